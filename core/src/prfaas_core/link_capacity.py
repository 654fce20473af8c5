"""What a link between clusters really carries: measured by routers from their own transfers, combined, and believed or not.

A router notes when KV of its requests begins and ends to move (`LinkWindow`). Time in which several transfers are on the way is
divided among them; bits that arrived over the time that they took so is the speed of the link, whatever the load on it is: a
link that gets little to carry is measured as well as one that is overrun. The time that a hand-over takes besides the transfer
is taken off.

`combine` puts the reports of all routers together. Routers that fill a link at the same time each see a part of it, and the
parts add up; routers that use it one after the other each see all of it. With the share u of the time that each is busy, taken
to be independent, something is on the way for 1 - prod(1 - u) of the time, and the link carries the sum of speed times u over
that. It is exact for one router and for routers that are always busy. Where routers are busy together more often than by chance
it is too low, at most by their number; a full link makes them all busy always, and the error goes away.

`believe` decides what is planned with. It errs towards nominal: a link becomes slow when enough transfers say so, clearly, and
it is busy with them; on a fast link that idles, what else a hand-over takes is most of the time, and nothing hangs on its
capacity. It errs towards holding: without new transfers the last belief stays for `HOLD_S`, and after that is doubled
every `PROBE_S` up to nominal. That is the probe: a plan for a little more sends a little more, and what that shows counts at once.
While something crosses a slow link no probe is needed, since every transfer measures its speed.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass

from prfaas_core import errors

MEMORY_S = 4.0
MEMORY_TRANSFERS = 8.0
"""A window looks back over the longer of the two."""
IDLE_MEMORY_S = 30.0
_LONGEST_GAP_S = 5.0
FRESH_S = 15.0
"""A router whose last transfer ended longer ago says nothing about the link of now."""
LEAST_TRANSFERS = 3.0
SLOW_BELOW = 0.75
NOMINAL_FROM = 0.85
"""Parts of nominal below which a link is slow, and from which it no longer is."""
BUSY_FROM = 0.2
"""Part of the time that something has to be on its way for a link to become slow."""
HEADROOM = 0.9
"""What is planned of a measured capacity: unlike a share of the nominal one it has no room for queues in it."""
SAME_WITHIN = 0.15
HOLD_S = 20.0
PROBE_S = 20.0
_LEAST_PART = 0.01


@dataclass(frozen=True, slots=True)
class LinkReport:
    """What one router saw of one link lately; all sums forget alike.

    Attributes:
        moved_bits: that arrived.
        moving_s: time that they took, divided among transfers at the same time.
        busy_s: time in which something was on its way.
        seen_s: time that the sums stand for, idle time included.
        transfers: how many ended.
        age_s: since the last one ended; 0 while one is overdue.
    """

    moved_bits: float
    moving_s: float
    busy_s: float
    seen_s: float
    transfers: float
    age_s: float

    def __post_init__(self) -> None:
        for name in ("moved_bits", "moving_s", "busy_s", "seen_s", "transfers", "age_s"):
            errors.non_negative(f"link.{name}", getattr(self, name))


@dataclass(frozen=True, slots=True, eq=False)
class Moving:
    """One transfer on its way.

    Attributes:
        bits: to move.
        began_s: the time that each transfer had been given when it began.
    """

    bits: float
    began_s: float


class LinkWindow:
    """The recent transfers of one router over one link. Not safe for use from several threads."""

    __slots__ = (
        "_at_s", "_began_s", "_bits", "_busy_s", "_each_s", "_ended_s", "_moving_s", "_on_the_way", "_seen_s", "_transfers",
    )  # fmt: skip

    def __init__(self) -> None:
        self._bits = self._moving_s = self._busy_s = self._seen_s = self._transfers = 0.0
        self._at_s = self._ended_s = -math.inf
        self._began_s = 0.0
        self._each_s = 0.0  # the time that a transfer on the way all along would have been given
        self._on_the_way: list[Moving] = []

    def start(self, now_s: float, size_bytes: float) -> Moving:
        """Note that a transfer begins. `now_s` is a clock in seconds that does not go back."""
        if not self._on_the_way:
            gap_s = now_s - self._at_s
            if gap_s < math.inf:
                self._forget(math.exp(-gap_s / IDLE_MEMORY_S))
                self._seen_s += min(gap_s, _LONGEST_GAP_S)
            self._at_s = self._began_s = now_s
        self._advance(now_s)
        moving = Moving(8 * size_bytes, self._each_s)
        self._on_the_way.append(moving)
        return moving

    def finish(self, now_s: float, moving: Moving, handover_s: float = 0.0, *, telling: bool = True) -> None:
        """Note that a transfer ended.

        Args:
            now_s: the time.
            moving: as `start` returned it.
            handover_s: time that a hand-over takes besides the transfer.
            telling: whether its time says something about the link; that of a failed transfer does not, and neither does
                that of one that waited for something else.
        """
        self._advance(now_s)
        self._on_the_way.remove(moving)
        if not telling:
            return
        since_s = now_s - self._ended_s
        self._forget(max(math.exp(-1 / MEMORY_TRANSFERS), math.exp(-since_s / MEMORY_S)))
        self._ended_s = now_s
        took_s = self._each_s - moving.began_s
        if not self._on_the_way:
            # Within a busy time one request's hand-over hides behind the transfers of others.
            took_s -= min(handover_s, 0.9 * took_s)
        self._bits += moving.bits
        self._moving_s += took_s
        self._transfers += 1

    def report(self, now_s: float) -> LinkReport | None:
        """Return what was seen; None when nothing ever crossed."""
        if self._bits == 0 or self._moving_s == 0:
            return None
        self._advance(now_s)
        usual = self._moving_s / self._bits
        overdue_s = sum(max(0.0, self._each_s - one.began_s - usual * one.bits) for one in self._on_the_way)
        age_s = 0.0 if overdue_s > 0 else max(0.0, now_s - self._ended_s)
        return LinkReport(
            self._bits,
            self._moving_s + overdue_s,
            min(self._busy_s, self._seen_s),
            self._seen_s,
            self._transfers,
            age_s,
        )

    def _advance(self, now_s: float) -> None:
        if self._on_the_way:
            elapsed_s = now_s - self._at_s
            self._at_s = now_s
            self._each_s += elapsed_s / len(self._on_the_way)
            self._busy_s += elapsed_s
            self._seen_s += elapsed_s

    def _forget(self, kept: float) -> None:
        self._bits *= kept
        self._moving_s *= kept
        self._busy_s *= kept
        self._seen_s *= kept
        self._transfers *= kept


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the routers' reports say together; `busy` is the part of the time in which something is on its way."""

    capacity_bps: float
    transfers: float
    age_s: float
    busy: float


def combine(reports: Iterable[LinkReport]) -> Estimate | None:
    """Return what a link carries by the reports of all its routers; None when none of them is fresh."""
    together_bps = transfers = 0.0
    idle, age_s = 1.0, math.inf
    for report in reports:
        if report.age_s > FRESH_S or report.moving_s <= 0 or report.busy_s <= 0 or report.seen_s <= 0:
            continue
        busy = min(1.0, report.busy_s / report.seen_s)
        together_bps += report.moved_bits / report.moving_s * busy
        idle *= 1 - busy
        transfers += report.transfers
        age_s = min(age_s, report.age_s)
    return Estimate(together_bps / (1 - idle), transfers, age_s, 1 - idle) if idle < 1 else None


class LinkState(enum.StrEnum):
    """What is known of a link's capacity."""

    UNMEASURED = "Unmeasured"
    NOMINAL = "Nominal"
    SLOW = "Slow"
    HELD = "Held"
    PROBING = "Probing"


@dataclass(frozen=True, slots=True)
class Belief:
    """What to plan with.

    Attributes:
        bps: that may be sent, at most nominal.
        measured_bps: the last measurement behind it; None when there never was one.
        changed_s: when it was last confirmed or doubled.
    """

    state: LinkState
    bps: float
    measured_bps: float | None
    changed_s: float


def believe(before: Belief | None, estimate: Estimate | None, nominal_bps: float, now_s: float) -> Belief:
    """Return what to believe of a link at `now_s`, a clock in seconds that does not go back.

    Args:
        before: the last belief; None at the start.
        estimate: what routers report now.
        nominal_bps: what may be sent when nothing is wrong.
    """
    errors.positive("nominal_bps", nominal_bps)
    if before is None:
        before = Belief(LinkState.UNMEASURED, nominal_bps, None, now_s)
    if estimate is None or estimate.transfers < LEAST_TRANSFERS:
        return _without_news(before, nominal_bps, now_s)
    measured_bps = estimate.capacity_bps
    slow = before.state not in (LinkState.UNMEASURED, LinkState.NOMINAL)
    if measured_bps >= (NOMINAL_FROM if slow else SLOW_BELOW) * nominal_bps:
        return Belief(LinkState.NOMINAL, nominal_bps, measured_bps, now_s)
    if not slow and estimate.busy < BUSY_FROM:
        return Belief(before.state, nominal_bps, before.measured_bps, now_s)
    bps = min(nominal_bps, max(HEADROOM * measured_bps, _LEAST_PART * nominal_bps))
    if slow and abs(bps - before.bps) <= SAME_WITHIN * before.bps:
        # Noise in what is measured moves nothing.
        return Belief(LinkState.SLOW, min(before.bps, nominal_bps), before.measured_bps, now_s)
    return Belief(LinkState.SLOW, bps, measured_bps, now_s)


def _without_news(before: Belief, nominal_bps: float, now_s: float) -> Belief:
    if before.state in (LinkState.UNMEASURED, LinkState.NOMINAL):
        return Belief(before.state, nominal_bps, before.measured_bps, before.changed_s)
    bps = min(before.bps, nominal_bps)
    wait_s = PROBE_S if before.state is LinkState.PROBING else HOLD_S
    if now_s - before.changed_s < wait_s:
        state = LinkState.PROBING if before.state is LinkState.PROBING else LinkState.HELD
        return Belief(state, bps, before.measured_bps, before.changed_s)
    if 2 * bps >= nominal_bps:
        return Belief(LinkState.UNMEASURED, nominal_bps, before.measured_bps, now_s)
    return Belief(LinkState.PROBING, 2 * bps, before.measured_bps, now_s)
