"""One direction of the link: connections take turns, bytes leave at the link's rate and arrive a delay later."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from prfaas_local.link.bucket import TokenBucket
from prfaas_local.link.state import Fault, LinkState

BURST_S = 0.008
"""How late the event loop may be without losing capacity. Also the most that goes out at once after a pause."""
TICK_S = 0.002
"""The least time between two wake-ups; more of them only cost CPU."""
_QUANTUM_S = 0.0005
_QUANTUM_BYTES = (256, 256 * 1024)

Data = bytes | memoryview


class Sender(Protocol):
    """A connection that has bytes for this direction."""

    waiting: bool
    """Whether it is in the direction's round; kept by the direction."""

    def ready(self) -> bool:
        """Return whether it has bytes and its receiver takes more."""

    def take(self, most_bytes: int) -> Data:
        """Return its next bytes: at least one, at most `most_bytes`. They are on the link from now on."""

    def arrive(self, data: Data) -> None:
        """Take bytes off the link, in the order in which they were taken."""

    def taken(self) -> None:
        """Called after `take`, once the bytes are on the link: what follows them may be carried now."""


class Direction:
    """Shares the capacity of one direction among its senders by byte-wise round robin."""

    def __init__(self, state: LinkState) -> None:
        self._state = state
        self._bucket = TokenBucket(state.capacity_bps, BURST_S, time.monotonic())
        self._round: deque[Sender] = deque()
        self._line: deque[tuple[float, int, Callable[[], None]]] = deque()
        self._departure: asyncio.TimerHandle | None = None
        self._arrival: asyncio.TimerHandle | None = None
        self._sending = False
        self.carried_bytes = 0
        """Bytes that left on the link, ever."""
        self.busy_s = 0.0
        """Time that they occupied it."""
        self.in_flight_bytes = 0
        """Bytes that left and have not arrived."""

    @property
    def waiting_senders(self) -> int:
        """Connections that wait for their turn."""
        return len(self._round)

    def configure(self, state: LinkState) -> None:
        """Change capacity, delay and fault. What is on the way keeps the delay it left with."""
        now_s = time.monotonic()
        self._state = state
        self._bucket.set_rate(state.capacity_bps, now_s)
        self._receive()
        self._send()

    def enlist(self, sender: Sender) -> None:
        """Give a sender that is ready its turn, unless it already waits for it."""
        if not sender.waiting:
            sender.waiting = True
            self._round.append(sender)
            if self._departure is None:
                self._send()

    def carry(self, action: Callable[[], None], size_bytes: int = 0) -> None:
        """Run an action at the far side: a delay later, after everything carried before it."""
        if self._state.delay_s == 0 and not self._line and self._state.fault is not Fault.STALL:
            action()
            return
        # When the delay was shortened, this is due before what is in front of it, and comes right after that.
        self.in_flight_bytes += size_bytes
        self._line.append((time.monotonic() + self._state.delay_s, size_bytes, action))
        if self._arrival is None:
            self._schedule_arrival()

    def _send(self) -> None:
        if self._departure is not None:
            self._departure.cancel()
            self._departure = None
        # What a sender does with its turn may enlist another one; that one waits for its turn in this loop.
        if self._state.fault is Fault.STALL or self._sending:
            return
        self._sending = True
        try:
            self._serve_round()
        finally:
            self._sending = False
        if self._round:
            wait_s = self._bucket.wait_s(time.monotonic())
            self._departure = asyncio.get_running_loop().call_later(max(TICK_S, wait_s), self._send)

    def _serve_round(self) -> None:
        now_s = time.monotonic()
        least, most = _QUANTUM_BYTES
        quantum_bytes = int(min(most, max(least, self._state.capacity_bps * _QUANTUM_S / 8)))
        while self._round and self._bucket.wait_s(now_s) == 0:
            sender = self._round.popleft()
            if not sender.ready():
                sender.waiting = False
                continue
            data = sender.take(quantum_bytes)
            self.carried_bytes += len(data)
            self.busy_s += self._bucket.take(len(data), now_s)
            self.carry(partial(sender.arrive, data), len(data))
            sender.taken()
            if sender.ready():
                self._round.append(sender)
            else:
                sender.waiting = False

    def _receive(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None
        if self._state.fault is Fault.STALL:
            return
        now_s = time.monotonic()
        while self._line and self._line[0][0] <= now_s:
            _, size_bytes, action = self._line.popleft()
            self.in_flight_bytes -= size_bytes
            action()
        if self._line and self._arrival is None:
            self._schedule_arrival()

    def _schedule_arrival(self) -> None:
        if self._state.fault is Fault.STALL:
            return
        # Timers round to the nearest tick, and bytes must not arrive early.
        wait_s = math.ceil((self._line[0][0] - time.monotonic()) / TICK_S) * TICK_S
        self._arrival = asyncio.get_running_loop().call_later(max(TICK_S, wait_s), self._receive)
