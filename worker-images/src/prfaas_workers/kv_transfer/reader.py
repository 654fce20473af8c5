"""The side that needs KV: reads it from the owner and checks every byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from prfaas_workers.kv_transfer import wire

STREAM_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """What a transfer brought: bytes of payload, and the tokens that the owner's KV covers."""

    size_bytes: int
    tokens: int


async def read(
    host: str,
    port: int,
    request: wire.ReadRequest,
    on_layer: Callable[[int, memoryview], None],
    connect_timeout_s: float = 5.0,
    stall_timeout_s: float = 30.0,
) -> Received:
    """Read the KV of one request; `on_layer` gets each layer after its checksum was found right.

    Nothing of what `on_layer` got may be used before this returns. It may raise `TransferError` to end the transfer.

    Raises:
        TransferError: refused, not reachable, truncated, damaged, or no byte came for `stall_timeout_s`.
    """
    try:
        async with asyncio.timeout(connect_timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=STREAM_LIMIT_BYTES)
    except TimeoutError as error:
        raise wire.TransferError(f"cannot reach {host}:{port} within {connect_timeout_s:g} s") from error
    except OSError as error:
        raise wire.TransferError(f"cannot reach {host}:{port}: {error}") from error
    try:
        writer.write(wire.encode(request))
        await writer.drain()
        header = await _exactly(reader, wire.MESSAGE_HEADER.size, stall_timeout_s)
        body = await _exactly(reader, wire.message_length(header), stall_timeout_s)
        grant = wire.decode_grant(wire.check_message(header, body))
        if grant.fingerprint != request.fingerprint or grant.engine_id != request.engine_id:
            raise wire.TransferError(
                f"engine {grant.engine_id} with KV fingerprint {grant.fingerprint} answered, "
                f"{request.engine_id} with {request.fingerprint} was expected"
            )
        assembly = wire.Assembly(grant)
        index = 0
        while True:
            size_bytes = assembly.frame(await _exactly(reader, wire.FRAME_HEADER.size, stall_timeout_s))
            if assembly.complete:
                return Received(assembly.received_bytes, grant.tokens)
            payload = await _exactly(reader, size_bytes, stall_timeout_s)
            assembly.layer(payload)
            on_layer(index, memoryview(payload))
            index += 1
    except asyncio.IncompleteReadError as error:
        raise wire.TransferError(
            f"{host}:{port} ended the transfer early: {len(error.partial)} of {error.expected} bytes"
        ) from error
    except TimeoutError as error:
        raise wire.TransferError(f"{host}:{port} sent nothing for {stall_timeout_s:g} s") from error
    except OSError as error:
        raise wire.TransferError(f"{host}:{port} broke the transfer: {error}") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _exactly(reader: asyncio.StreamReader, size_bytes: int, stall_timeout_s: float) -> bytes:
    """Read exactly so many bytes, as long as some come within the time; a slow link is not a stalled one."""
    parts = bytearray()
    while len(parts) < size_bytes:
        async with asyncio.timeout(stall_timeout_s):
            part = await reader.read(size_bytes - len(parts))
        if not part:
            raise asyncio.IncompleteReadError(bytes(parts[:64]), size_bytes)
        if not parts and len(part) == size_bytes:
            return part
        parts += part
    return bytes(parts)
