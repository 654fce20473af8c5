"""A link whose bandwidth is shared max-min fairly by the transfers on it, as a fluid.

Transfers that have all their bytes ready get equal shares; they are kept by the virtual time at which they end, so that an
event costs O(log n). Transfers that still wait for layers to be computed (push mode) are limited by what is produced; of
those there is one a worker at most.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush

from prfaas_core.routing.backlog import LinkMeter
from prfaas_core.simulation.job import Job
from prfaas_core.simulation.scenario import Link, LinkChange

_SLACK_BYTES = 1.0
"""Rounding of the virtual time, far below a packet."""


class LinkState:
    """The state of one link.

    Attributes:
        backlog_bytes: what the router has sent to prefill behind it, and is not there yet.
        token: changes whenever the next end of a transfer does.
    """

    __slots__ = (
        "_at_s", "_bytes_s", "_fair", "_foreign_flows", "_order", "_paced", "_ready", "_ready_count", "_virtual",
        "backlog_bytes", "busy_s", "meter", "spec", "token",
    )  # fmt: skip

    def __init__(self, spec: Link) -> None:
        self.spec = spec
        self.meter = LinkMeter(spec.told_bps)
        self.token = 0
        self.backlog_bytes = self.busy_s = 0.0
        self._bytes_s = spec.capacity_bps / 8
        self._foreign_flows = 0
        self._at_s = 0.0
        self._virtual = 0.0
        self._fair = 0.0
        self._ready: list[tuple[float, int, Job]] = []
        self._ready_count = 0
        self._paced: dict[int, Job] = {}
        self._order = 0

    def change(self, change: LinkChange, now_s: float) -> None:
        """Take over what the link is like from now on."""
        self._advance(now_s)
        self._bytes_s = max(0.0, change.capacity_bps - change.foreign_bps) / 8
        self._foreign_flows = change.foreign_flows
        self._share()

    def send(self, job: Job, size_bytes: float, now_s: float) -> None:
        """Begin a transfer whose bytes are all there."""
        self._advance(now_s)
        job.prefill.pool.taken_bytes += size_bytes
        self._make_ready(job, size_bytes)
        self._share()

    def pace(self, job: Job, size_bytes: float, until_s: float, layers: int, now_s: float) -> None:
        """Begin a transfer whose bytes are produced evenly until `until_s`; its last layer can go only then."""
        self._advance(now_s)
        job.prefill.pool.taken_bytes += size_bytes
        job.tail_bytes = size_bytes / layers
        job.remaining_bytes = size_bytes - job.tail_bytes
        job.paced_until_s = until_s
        job.rate = 0.0
        self._paced[job.number] = job
        self._share()

    def release(self, job: Job, now_s: float) -> None:
        """Let the rest of a paced transfer go, since everything is computed."""
        self._advance(now_s)
        if self._paced.pop(job.number, None) is not None:
            self._make_ready(job, max(0.0, job.remaining_bytes) + job.tail_bytes)
        self._share()

    def give_up(self, job: Job, now_s: float) -> None:
        """Take a transfer off the link; its bytes count as neither delivered nor on the way, unless all have left it."""
        self._advance(now_s)
        if self._paced.pop(job.number, None) is None:
            left = [entry for entry in self._ready if entry[2] is not job]
            if len(left) == self._ready_count:
                return
            left.sort()
            self._ready, self._ready_count = left, len(left)
        job.prefill.pool.taken_bytes -= job.kv_bytes
        self._share()

    def next_end_s(self) -> float:
        """Return when the next transfer ends if nothing changes; infinite: none does."""
        if not self._ready or self._fair <= 0:
            return math.inf
        return self._at_s + max(0.0, self._ready[0][0] - self._virtual) / self._fair

    def ended(self, now_s: float) -> list[Job]:
        """Return the transfers that are over by now, and take them off."""
        self._advance(now_s)
        done: list[Job] = []
        ready, limit = self._ready, self._virtual + _SLACK_BYTES
        while ready and ready[0][0] <= limit:
            done.append(heappop(ready)[2])
        self._ready_count = len(ready)
        if not ready:
            # Small numbers keep the virtual time exact over long runs.
            self._virtual = 0.0
        for job in done:
            job.prefill.pool.delivered_bytes += job.kv_bytes
        self._share()
        return done

    def _make_ready(self, job: Job, size_bytes: float) -> None:
        self._order += 1
        heappush(self._ready, (self._virtual + size_bytes, self._order, job))
        self._ready_count += 1

    def _advance(self, now_s: float) -> None:
        elapsed_s = now_s - self._at_s
        if elapsed_s <= 0:
            return
        self._at_s = now_s
        if self._ready_count:
            self._virtual += self._fair * elapsed_s
            self.busy_s += elapsed_s
        for job in self._paced.values():
            job.remaining_bytes -= job.rate * elapsed_s

    def _share(self) -> None:
        self.token += 1
        left, claims = self._bytes_s, self._ready_count + self._foreign_flows + len(self._paced)
        if self._paced:
            now_s = self._at_s
            # What is left of the layers, over the time left to compute them: never more than is there to send.
            wanted = []
            for job in self._paced.values():
                time_s = job.paced_until_s - now_s
                wanted.append((max(0.0, job.remaining_bytes) / time_s if time_s > 1e-9 else 0.0, job.number, job))
            wanted.sort()
            for rate, _, job in wanted:
                job.rate = min(rate, left / claims)
                left -= job.rate
                claims -= 1
        self._fair = left / claims if claims else 0.0
