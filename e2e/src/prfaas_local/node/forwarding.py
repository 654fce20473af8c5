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
    """The accepted end: connects onward to a backend chosen for the client's address.

    What the client sends before the backend is connected is kept and the client is not read further: a pause that is asked
    for at once does not hold, because uvloop begins to read after `connection_made`.
    """

    def __init__(self, choose: Callable[[str], tuple[str, int] | None]) -> None:
        super().__init__()
        self._choose = choose
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to a backend."""
        super().connection_made(transport)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, or keep them until there is somewhere to pass them to."""
        if self._connecting is None:
            super().data_received(data)
            return
        self._early.append(data)
        if self.transport:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Pass the end of the stream on, later when the backend is not connected yet."""
        if self._connecting is None:
            return super().eof_received()
        self.ended = True
        return True

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
            # Before it is connected, so that a backend that speaks first is heard.
            outbound.peer = self
            await asyncio.get_running_loop().create_connection(lambda: outbound, *backend)
        except OSError:
            reset(transport)
            return
        self._connecting = None
        self.peer = outbound
        if outbound.transport is not None:
            outbound.transport.writelines(self._early)
            if self.ended:
                outbound.transport.write_eof()
        self._early.clear()
        if not self.ended:
            transport.resume_reading()


def reset(transport: asyncio.Transport) -> None:
    """Close a connection so that the other side sees a reset."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    transport.abort()
