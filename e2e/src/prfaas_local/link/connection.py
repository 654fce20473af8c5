"""A connection over the link: two TCP connections, one at each end, and a flow of bytes each way."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from prfaas_local.link.direction import Data, Direction

READ_AHEAD_BYTES = 512 * 1024
"""Bytes of a flow that wait for the link before its sender is no longer read."""
WINDOW_BYTES = 16 * 1024 * 1024
"""Bytes of a flow that may be on the way, as a TCP window bounds them."""
RECEIVE_BUFFER_BYTES = 256 * 1024
"""Asked of the kernel for each socket: with its default it would take megabytes off a sender that the link holds up."""
_WRITE_BUFFER_BYTES = 256 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Flow:
    """Bytes of one connection in one direction, from the end they are read at to the end they are written to."""

    __slots__ = (
        "_blocked", "_closed", "_direction", "_ended", "_head_sent", "_in_flight_bytes", "_on_end", "_opened", "_queue",
        "_reading", "_sink", "_source", "queued_bytes", "waiting",
    )  # fmt: skip

    def __init__(
        self, direction: Direction, source: End, sink: End, on_end: Callable[[], None], *, opened: bool
    ) -> None:
        self.waiting = False
        self.queued_bytes = 0
        self._direction = direction
        self._source = source
        self._sink = sink
        self._on_end = on_end
        self._opened = opened
        self._reading = True
        self._queue: deque[bytes] = deque()
        self._head_sent = 0
        self._in_flight_bytes = 0
        self._blocked = False
        self._ended = False
        self._closed = False

    def offer(self, data: bytes) -> None:
        """Queue bytes for the link; stop reading when enough wait, or while they have nowhere to go."""
        if self._closed:
            return
        self._queue.append(data)
        self.queued_bytes += len(data)
        if self._reading and not (self._opened and self.queued_bytes < READ_AHEAD_BYTES):
            self._reading = False
            self._source.pause_reading()
        if self.ready():
            self._direction.enlist(self)

    def open(self) -> None:
        """Let bytes onto the link: the sink is connected."""
        if self._opened:
            return
        self._opened = True
        if self.ready():
            self._direction.enlist(self)
        else:
            self.taken()
        self._read()

    def end(self) -> None:
        """Say that no bytes follow: the sink's stream ends after those that are queued."""
        self._ended = True
        self.taken()

    def reset(self) -> None:
        """Give up what is queued and reset the sink, after what is on the way."""
        if not self._closed:
            self._discard()
            self._direction.carry(self._sink.reset)

    def close(self) -> None:
        """Drop everything, also what is on the way."""
        self._closed = True
        self._discard()

    def block(self, *, blocked: bool) -> None:
        """Note whether the sink takes bytes."""
        self._blocked = blocked
        if self.ready():
            self._direction.enlist(self)

    def ready(self) -> bool:
        """Return whether there are bytes and the receiver takes more."""
        return (
            self._opened and self.queued_bytes > 0 and not self._blocked and self._in_flight_bytes < WINDOW_BYTES
        )  # fmt: skip

    def take(self, most_bytes: int) -> Data:
        """Return the next bytes, at most so many."""
        # A turn is worth the same whether its bytes were read in one piece or in many.
        pieces = [self._piece(most_bytes)]
        size_bytes = len(pieces[0])
        while size_bytes < most_bytes and self._queue:
            pieces.append(self._piece(most_bytes - size_bytes))
            size_bytes += len(pieces[-1])
        self.queued_bytes -= size_bytes
        self._in_flight_bytes += size_bytes
        if self.queued_bytes <= READ_AHEAD_BYTES // 2:
            self._read()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def taken(self) -> None:
        """Send the end of the stream after the last bytes."""
        if self._ended and self._opened and not self.queued_bytes and not self._closed:
            self._direction.carry(self._deliver_end)

    def arrive(self, data: Data) -> None:
        """Write bytes to the sink."""
        self._in_flight_bytes -= len(data)
        if self._closed:
            return
        self._sink.write(data)
        if self.ready():
            self._direction.enlist(self)

    def _read(self) -> None:
        if not self._reading and not self._ended and not self._closed:
            self._reading = True
            self._source.resume_reading()

    def _piece(self, most_bytes: int) -> Data:
        head = self._queue[0]
        start, stop = self._head_sent, min(len(head), self._head_sent + most_bytes)
        if stop == len(head):
            self._queue.popleft()
            self._head_sent = 0
        else:
            self._head_sent = stop
        return head if stop - start == len(head) else memoryview(head)[start:stop]

    def _deliver_end(self) -> None:
        if not self._closed:
            self._sink.write_eof()
            self._on_end()

    def _discard(self) -> None:
        self._queue.clear()
        self._head_sent = self.queued_bytes = 0


class End(asyncio.Protocol):
    """One of the two TCP connections."""

    def __init__(self, on_open: Callable[[End], None], on_lost: Callable[[End], None]) -> None:
        self._on_open = on_open
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self.outward: Flow
        """What is read here."""
        self.inward: Flow
        """What is written here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # Those of uvloop are not of the class, but have its methods.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self.outward.offer(data)

    def eof_received(self) -> bool:
        """Pass the end of the stream on; the other direction goes on."""
        self.outward.end()
        return True

    def pause_writing(self) -> None:
        """Keep bytes off the link that could not be written."""
        self.inward.block(blocked=True)

    def resume_writing(self) -> None:
        """Let bytes come again."""
        self.inward.block(blocked=False)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  lost without being closed is a reset
        """Tell the connection."""
        self._transport = None
        self._on_lost(self)

    def pause_reading(self) -> None:
        """Stop reading."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: Data) -> None:
        """Write bytes."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        """End the stream after what is written."""
        if self._transport is not None and not self._transport.is_closing():
            # The other side may have gone in this moment; then the loss is reported as one.
            with suppress(OSError):
                self._transport.write_eof()

    def close(self) -> None:
        """Close after what is written."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close at once, so that the other side sees a reset."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()


class Connection:
    """One connection over the link, from its being accepted at the near end until both ends are closed.

    The client's kernel sees it accepted at once. The round trip that a handshake over the link takes comes before its
    first byte goes onto the link instead, and a refusal by the pod arrives as a reset.
    """

    def __init__(
        self,
        target: tuple[str, int],
        to_pods: Direction,
        from_pods: Direction,
        on_open: Callable[[Connection], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self._target = target
        self._to_pods = to_pods
        self._from_pods = from_pods
        self._on_open = on_open
        self._on_closed = on_closed
        self._ended_flows = 0
        self._open: set[End] = set()
        self._over = False
        self._connecting: asyncio.Task[None] | None = None
        self.near = End(self._accepted, self._lost)
        self._far = End(self._open.add, self._lost)
        self.near.outward = self._far.inward = Flow(to_pods, self.near, self._far, self._ended, opened=False)
        self._far.outward = self.near.inward = Flow(from_pods, self._far, self.near, self._ended, opened=True)

    @property
    def queued_bytes(self) -> tuple[int, int]:
        """Bytes that wait for the link: to the pods, from the pods."""
        return self.near.outward.queued_bytes, self._far.outward.queued_bytes

    def abort(self) -> None:
        """Reset both ends now; nothing that is on the way arrives."""
        self._finish()
        self.near.reset()
        self._far.reset()

    def _accepted(self, near: End) -> None:
        self._open.add(near)
        self._on_open(self)
        if not self._over:
            self._to_pods.carry(self._start_connecting)

    def _start_connecting(self) -> None:
        if not self._over:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        host, port = self._target
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(sock, (host, port))
                await loop.create_connection(lambda: self._far, sock=sock)
            except BaseException:
                sock.close()
                raise
        except OSError:
            self._from_pods.carry(self.abort)
        else:
            self._from_pods.carry(self.near.outward.open)

    def _ended(self) -> None:
        self._ended_flows += 1
        if self._ended_flows == 2:
            self._finish()
            self.near.close()
            self._far.close()

    def _lost(self, end: End) -> None:
        if not self._over:
            # The peer of this end is gone: what is on the way to it is lost, and the other end hears of it.
            end.inward.close()
            end.outward.reset()
        self._open.discard(end)
        if not self._open:
            self._finish()
            self._on_closed(self)

    def _finish(self) -> None:
        self._over = True
        self.near.outward.close()
        self.near.inward.close()
        if self._connecting is not None:
            self._connecting.cancel()
