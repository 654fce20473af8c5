"""The side that holds KV: serves reads on the side channel, layer by layer as layers get ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Protocol

from prfaas_workers.kv_transfer import wire
from prfaas_workers.kv_transfer.lease import LeaseTable, Refusal

log = logging.getLogger(__name__)


class LayerSource(Protocol):
    """The KV of one request, of which layers get ready one after the other."""

    @property
    def layers(self) -> int:
        """How many layers there are."""

    @property
    def tokens(self) -> int:
        """How many tokens of KV there are."""

    @property
    def content(self) -> str:
        """`wire.prompt_digest` of the prompt."""

    def total_bytes(self, have_tokens: int) -> int:
        """Return the size of what a reader that holds `have_tokens` leading tokens still needs."""

    async def layer(self, index: int, have_tokens: int) -> bytes | memoryview:
        """Wait until a layer is computed and return its bytes; `TransferError` when it never will be."""

    def ended(self) -> None:
        """Free the KV: it was read, wholly or not, or never will be. Called once for each offer."""


@dataclass(slots=True)
class OwnerCounters:
    """What happened to offers; the worker's metrics read it."""

    expired: int = 0
    reads_after_expiry: int = 0
    failed: int = 0


class Owner:
    """Offers KV and serves it once.

    Args:
        engine_id, fingerprint: of this worker; a reader that expects others is refused by name.
        lease_s: how long an offer waits for its reader.
        push_wait_s: how long a reader of the push handshake waits for the prefill leg to arrive, and how long a connection
            may take to say what it wants.
    """

    def __init__(self, engine_id: str, fingerprint: str, lease_s: float, push_wait_s: float = 30.0) -> None:
        self._engine_id = engine_id
        self._fingerprint = fingerprint
        self._push_wait_s = push_wait_s
        self._leases: LeaseTable[LayerSource] = LeaseTable(lease_s)
        self._arrivals: dict[str, asyncio.Event] = {}
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self.counters = OwnerCounters()

    @property
    def offers(self) -> int:
        """How many offers wait to be read or are being read."""
        return len(self._leases)

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port."""
        self._server = await asyncio.start_server(self._serve, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._sweep is not None:
            self._sweep.cancel()
        if self._server is not None:
            self._server.close()

    def offer(self, request_id: str, source: LayerSource) -> None:
        """Offer the KV of a request for one read; `ValueError` while another offer has the same id."""
        self._leases.offer(request_id, source, asyncio.get_running_loop().time())
        arrival = self._arrivals.pop(request_id, None)
        if arrival is not None:
            arrival.set()
        self._arm()

    def computed(self, request_id: str) -> None:
        """Start the lease's clock: the prefill has ended."""
        self._leases.extend(request_id, asyncio.get_running_loop().time())

    def withdraw(self, request_id: str) -> None:
        """Take an offer back: its request was aborted."""
        _ended(self._leases.withdraw(request_id))

    def _arm(self) -> None:
        due_s = self._leases.next_expiry_s()
        if due_s is not None and self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_at(due_s, self._expire)

    def _expire(self) -> None:
        self._sweep = None
        for source in self._leases.expire(asyncio.get_running_loop().time()):
            self.counters.expired += 1
            _ended(source)
        self._arm()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (wire.TransferError, OSError, asyncio.IncompleteReadError) as error:
            self.counters.failed += 1
            log.warning("KV read failed: %s", str(error) or type(error).__name__)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(self._push_wait_s):
            header = await reader.readexactly(wire.MESSAGE_HEADER.size)
            body = await reader.readexactly(wire.message_length(header))
        request = wire.decode_request(wire.check_message(header, body))
        refused = self._mismatch(request)
        if refused is None and request.push:
            await self._arrived(request.request_id)
        source = self._begin(request) if refused is None else None
        if isinstance(source, str):
            refused, source = source, None
        if source is None:
            writer.write(wire.refusal(refused or "refused"))
            await writer.drain()
            return
        try:
            have_tokens = min(request.have_tokens, source.tokens)
            grant = wire.ReadGrant(
                self._engine_id, self._fingerprint, source.layers, source.total_bytes(have_tokens), source.tokens
            )
            writer.write(wire.encode(grant))
            framing = wire.Framing()
            for index in range(source.layers):
                payload = await source.layer(index, have_tokens)
                writer.write(framing.header(payload))
                writer.write(payload)
                await writer.drain()
            writer.write(framing.trailer())
            await writer.drain()
        finally:
            # What became of the offer meanwhile is not ours: it may have been withdrawn, and its id offered again.
            if self._leases.reading(request.request_id) is source:
                _ended(self._leases.end(request.request_id))

    def _begin(self, request: wire.ReadRequest) -> LayerSource | str:
        """Return the KV to send, or why it is refused."""
        offered = self._leases.look(request.request_id)
        if offered is not None and offered.content != request.content:
            return f"request {request.request_id}: its KV here is of another prompt; give each request an id of its own"
        source = self._leases.begin(request.request_id)
        if isinstance(source, Refusal):
            self.counters.reads_after_expiry += source is Refusal.EXPIRED
            return f"request {request.request_id}: {source}"
        return source

    def _mismatch(self, request: wire.ReadRequest) -> str | None:
        if request.fingerprint != self._fingerprint:
            return f"KV fingerprint {request.fingerprint} is not {self._fingerprint}; pair pools of compatible profiles"
        if request.engine_id != self._engine_id:
            return f"engine {request.engine_id} is not {self._engine_id}; the worker has restarted"
        return None

    async def _arrived(self, request_id: str) -> None:
        if self._leases.begin_possible(request_id):
            return
        arrival = self._arrivals.setdefault(request_id, asyncio.Event())
        try:
            async with asyncio.timeout(self._push_wait_s):
                await arrival.wait()
        except TimeoutError:
            self._arrivals.pop(request_id, None)


def _ended(source: LayerSource | None) -> None:
    if source is not None:
        source.ended()
