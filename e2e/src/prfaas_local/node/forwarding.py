"""Copy bytes between two TCP connections: half-close preserved, and nobody is read faster than the other side takes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import cast

_BUFFER_BYTES = 256 * 1024
_LINGER_RESET = struct.pack("ii", 1, 0)


class Half(asyncio.Protocol):
    """One end of a forwarded connection. Two halves know each other as `peer`."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: Half | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports have the interface and not the base class.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self.peer and self.peer.transport:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end of the stream on and stay open for the other direction."""
        self.ended = True
        if self.peer and self.peer.transport and not self.peer.transport.is_closing():
            if self.peer.ended:
                return False
            with suppress(OSError):
                self.peer.transport.write_eof()
            return True
        return False

    def pause_writing(self) -> None:
        """Stop reading the peer while this side does not take more."""
        if self.peer and self.peer.transport:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read the peer again."""
        if self.peer and self.peer.transport and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Close the peer; pass a reset on as a reset."""
        peer, self.peer = self.peer, None
        if peer is None or peer.transport is None:
            return
        if error:
            reset(peer.transport)
        else:
            peer.transport.close()


class Inbound(Half):
    """The accepted end: connects onward to a backend chosen for the client's address."""

    def __init__(self, choose: Callable[[str], tuple[str, int] | None]) -> None:
        super().__init__()
        self._choose = choose
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold the client's bytes back until the backend is connected."""
        super().connection_made(transport)
        if self.transport:
            self.transport.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def connection_lost(self, error: Exception | None) -> None:
        """Stop connecting, or close the backend's side."""
        if self._connecting:
            self._connecting.cancel()
        super().connection_lost(error)

    async def _connect(self) -> None:
        transport = self.transport
        if transport is None:
            return
        backend = self._choose(transport.get_extra_info("peername")[0])
        try:
            if backend is None:
                raise ConnectionRefusedError
            outbound = Half()
            await asyncio.get_running_loop().create_connection(lambda: outbound, *backend)
        except OSError:
            reset(transport)
            return
        self._connecting = None
        outbound.peer, self.peer = self, outbound
        transport.resume_reading()


def reset(transport: asyncio.Transport) -> None:
    """Close a connection so that the other side sees a reset."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    transport.abort()
