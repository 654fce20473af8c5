"""What this router knows of one pool: its workers, their caches, and the link to it. `Fleet` keeps one for each pool."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from prfaas_core import routing
from prfaas_core.link_capacity import LinkReport, LinkWindow, Moving
from prfaas_core.prefix import PrefixIndex
from prfaas_core.routing.backlog import LinkMeter
from prfaas_router.configuration import Link

_PACE_MEMORY = 0.1
_HANDOVER_MEMORY = 0.1
_MOST_PACE = 1000.0


@dataclass(slots=True)
class WorkerAccount:
    """One worker: what decisions see of it, and its failures."""

    seen: routing.Worker
    failures: int = 0
    ejected_until_s: float = 0.0


@dataclass(slots=True)
class PoolAccount:
    """One pool.

    Attributes:
        pace: how many times as long as its profile says prefills take there.
    """

    index: PrefixIndex
    pace: float = 1.0
    workers: dict[str, WorkerAccount] = field(default_factory=dict)
    link: LinkAccount | None = None

    def took(self, work_s: float, elapsed_s: float) -> None:
        """Learn from a prefill that found its worker idle.

        Whatever else keeps the workers busy, such as other routers, makes them look slower too; that is meant.
        """
        if work_s > 0:
            sample = self.pace * elapsed_s / work_s
            self.pace += _PACE_MEMORY * (min(max(sample, 1 / _MOST_PACE), _MOST_PACE) - self.pace)


class HandoverTime:
    """How long a hand-over within the cluster takes: all that a transfer between clusters takes too, without the link.

    Attributes:
        mean_s: 0 until one was seen, which makes links look slower than they are.
    """

    def __init__(self) -> None:
        self.mean_s = 0.0

    def took(self, elapsed_s: float) -> None:
        """Learn from one hand-over."""
        self.mean_s += (_HANDOVER_MEMORY if self.mean_s else 1.0) * (elapsed_s - self.mean_s)


class LinkAccount:
    """The bytes that this router has put on a link, or will: KV of requests that were sent to prefill behind it.

    A transfer ends when the decode worker's answer begins. The answer to a request that is not streamed begins only with
    its end, so that its transfer is taken to last as long as the link needs for what is on it.
    """

    def __init__(self, link: Link, handover: HandoverTime | None = None) -> None:
        self.meter = LinkMeter(link.capacity_bps)
        self._window = LinkWindow()
        self._handover = handover or HandoverTime()
        self._backlog_bytes = 0.0
        self._unseen: deque[tuple[float, float]] = deque()

    def backlog_bytes(self, now_s: float) -> float:
        """Return what is on the way at the moment."""
        while self._unseen and self._unseen[0][0] <= now_s:
            self._take(self._unseen.popleft()[1])
        return self._backlog_bytes

    def add(self, size_bytes: float) -> None:
        """Count KV that will be on the way."""
        self._backlog_bytes += size_bytes

    def leave(self, size_bytes: float, now_s: float) -> None:
        """Let KV go whose arrival will not be seen."""
        until_s = now_s + 8 * self._backlog_bytes / self.meter.capacity_bps(now_s)
        self._unseen.append((max(until_s, self._unseen[-1][0]) if self._unseen else until_s, size_bytes))

    def remove(self, size_bytes: float) -> None:
        """Take off KV that has arrived, or never will."""
        self._take(size_bytes)

    def start(self, now_s: float, due_s: float, size_bytes: float) -> Moving:
        """Note that KV begins to move, which should take `due_s`; return what to give to `finish`."""
        self.meter.start(now_s, due_s)
        return self._window.start(now_s, size_bytes)

    def finish(self, now_s: float, moving: Moving, due_s: float, moved_bytes: float, *, saturated: bool) -> None:
        """Note that KV no longer moves; see `LinkMeter.finish`."""
        self.meter.finish(now_s, due_s, moved_bytes, saturated=saturated)
        self._window.finish(now_s, moving, self._handover.mean_s, telling=saturated and moved_bytes > 0)

    def report(self, now_s: float) -> LinkReport | None:
        """Return what transfers say about the link; None when there were none."""
        return self._window.report(now_s)

    def _take(self, size_bytes: float) -> None:
        self._backlog_bytes = max(0.0, self._backlog_bytes - size_bytes)


class Transfer:
    """The KV of one request on its way over a link.

    Args:
        account: of the link.
        size_bytes: of the KV.
        push: it moves while prefill computes.
        seen: whether its arrival can be seen.
    """

    def __init__(self, account: LinkAccount, size_bytes: float, *, push: bool, seen: bool) -> None:
        self._account = account
        self._size_bytes = size_bytes
        self._push = push
        self._seen = seen
        self._open = True
        self._due_s: float | None = None
        self._prefilled_s: float | None = None
        self._began_s = 0.0
        self._moving: Moving | None = None
        account.add(size_bytes)

    def prefilling(self, now_s: float, prefill_s: float) -> None:
        """Note that the prefill was sent, which should take `prefill_s` with its wait."""
        self._began_s = now_s
        if self._push and self._seen:
            self._start(now_s, prefill_s)

    def prefilled(self, now_s: float) -> None:
        """Note that the prefill has ended; what is left moves now."""
        self._prefilled_s = now_s
        if not self._open:
            return
        if not self._seen:
            self._open = False
            self._account.leave(self._size_bytes, now_s)
        elif not self._push:
            self._start(now_s, 0.0)

    def end(self, now_s: float, *, moved: bool) -> None:
        """Note that the KV has arrived, or never will; a second time does nothing."""
        if not self._open:
            return
        self._open = False
        self._account.remove(self._size_bytes)
        if self._due_s is None or self._moving is None:
            return
        saturated = not self._push
        if self._push and self._prefilled_s is not None:
            # A push that ends with its prefill says nothing about what the link could do.
            saturated = now_s - self._prefilled_s > 0.3 * (self._prefilled_s - self._began_s)
        self._account.finish(now_s, self._moving, self._due_s, self._size_bytes if moved else 0.0, saturated=saturated)

    def _start(self, now_s: float, more_s: float) -> None:
        self._due_s = more_s + 8 * self._size_bytes / self._account.meter.capacity_bps(now_s)
        self._moving = self._account.start(now_s, self._due_s, self._size_bytes)


class LocalTransfer:
    """The KV of one request on its way within the cluster: nothing is counted but how long the hand-over takes."""

    def __init__(self, handover: HandoverTime) -> None:
        self._handover = handover
        self._began_s: float | None = None

    def prefilling(self, now_s: float, prefill_s: float) -> None:
        """Note that the prefill was sent."""

    def prefilled(self, now_s: float) -> None:
        """Note that the prefill has ended; the KV moves now."""
        self._began_s = now_s

    def end(self, now_s: float, *, moved: bool) -> None:
        """Note that the KV has arrived, or never will; a second time does nothing."""
        if moved and self._began_s is not None:
            self._handover.took(now_s - self._began_s)
        self._began_s = None
