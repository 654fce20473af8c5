"""How a router keeps account of what it has sent: prefill work in seconds, and what the link really carries.

These are the only functions here that change what they are given. A router calls them when it sends a request and when an
answer comes; in between nothing has to be updated, because a backlog is kept as the time at which it ends.
"""

from __future__ import annotations

import math

from prfaas_core import errors
from prfaas_core.routing.view import Worker

_TRANSFERS = 12
_DOUBT_S = 0.5
"""Seconds at nominal that never fade, so that the estimate returns to nominal when everything else has faded."""


def assign(worker: Worker, now_s: float, work_s: float) -> None:
    """Add a prefill that should take `work_s` to a worker that computes in order of arrival."""
    worker.pending_s += work_s
    start_s = worker.busy_until_s
    worker.busy_until_s = (max(now_s, start_s)) + work_s


def release(worker: Worker, now_s: float, work_s: float) -> None:
    """Take off a prefill that has ended, and correct the rest by when it did: the next one starts now."""
    pending_s = worker.pending_s - work_s
    # Sums of floats do not cancel to zero exactly; a negative rest would make an idle worker look better than idle.
    worker.pending_s = pending_s if pending_s > 1e-9 else 0.0
    worker.busy_until_s = now_s + worker.pending_s


def expect(worker: Worker, now_s: float, work_s: float) -> None:
    """Add a prefill whose end will not be seen; it counts until it should be over or another one ends."""
    worker.busy_until_s = max(now_s, worker.busy_until_s) + work_s


class LinkMeter:
    """What a link carries for this router, from the bytes that arrive while something is on its way.

    `nominal_bps` is the truth until transfers clearly say less, and again after a while without any: an estimate that keeps
    everything away from the link could otherwise never be corrected. Bytes count when their transfer ends, in lumps, so
    that a measurement wavers; only one below `doubt` times nominal is believed, or else the lower half of the noise would
    pass for a slower link.

    Args:
        nominal_bps: what the link should carry, bit/s.
        memory_s: time constant of the averages, seconds of a busy link and of an idle one alike; on a slow link it is the
            time of `_TRANSFERS` transfers, which it takes to even out their sizes.
        prior_s: seconds of a busy link at `nominal_bps` that the start counts for.
        doubt: from what part of nominal on the measurement counts as nominal.
    """

    __slots__ = (
        "_busy_s", "_doubt", "_due_s", "_memory_s", "_moved_bits", "_nominal_bps", "_on_the_way", "_since_s",
    )  # fmt: skip

    def __init__(
        self, nominal_bps: float, *, memory_s: float = 20.0, prior_s: float = 2.0, doubt: float = 0.75
    ) -> None:
        self._nominal_bps = nominal_bps = errors.positive("nominal_bps", nominal_bps)
        self._memory_s = errors.positive("memory_s", memory_s)
        prior_s = errors.positive("prior_s", prior_s)
        self._doubt = errors.positive("doubt", doubt)
        self._busy_s = prior_s
        self._moved_bits = prior_s * nominal_bps
        self._since_s = -math.inf
        self._on_the_way = 0
        self._due_s = 0.0

    def nominal(self, bps: float) -> None:
        """Take over what the link should carry from now on."""
        self._nominal_bps = errors.positive("bps", bps)

    def start(self, now_s: float, due_s: float) -> None:
        """Note that a transfer begins, which would take `due_s` with the link to itself."""
        if self._on_the_way == 0:
            if self._since_s > -math.inf:
                self._forget(now_s - self._since_s)
            self._since_s = now_s
        self._on_the_way += 1
        self._due_s += due_s

    def finish(self, now_s: float, due_s: float, moved_bytes: float, *, saturated: bool = True) -> None:
        """Note that a transfer ended.

        Args:
            now_s: the time.
            due_s: as it was given at the start.
            moved_bytes: what it moved; 0 when it failed.
            saturated: whether the link held it up. A push that ends with its prefill says nothing about the link.
        """
        elapsed_s = now_s - self._since_s
        self._since_s = now_s
        self._on_the_way -= 1
        self._due_s = self._due_s - due_s if self._on_the_way else 0.0
        self._forget(elapsed_s, _TRANSFERS * due_s)
        if saturated:
            self._busy_s += elapsed_s
            self._moved_bits += 8 * moved_bytes

    def capacity_bps(self, now_s: float) -> float:
        """Return what the link carries, bit/s: above 0 and at most nominal."""
        kept, late_s = 1.0, 0.0
        if self._on_the_way:
            # By then everything on the way should have ended; a wait beyond it is the first sign of an outage.
            late_s = max(0.0, now_s - self._since_s - self._due_s)
        elif self._since_s > -math.inf:
            kept = math.exp((self._since_s - now_s) / self._memory_s)
        measured = (kept * self._moved_bits + _DOUBT_S * self._nominal_bps) / (kept * self._busy_s + late_s + _DOUBT_S)
        return measured if measured < self._doubt * self._nominal_bps else self._nominal_bps

    def _forget(self, elapsed_s: float, memory_s: float = 0.0) -> None:
        kept = math.exp(-elapsed_s / max(self._memory_s, memory_s))
        self._busy_s *= kept
        self._moved_bits *= kept
