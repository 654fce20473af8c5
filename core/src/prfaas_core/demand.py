"""How much requests want a pool: what routers report, and what wakes a pool that is scaled to zero.

A request wants the pools that it goes to, and a pool that sleeps when it would go there (`prfaas_core.routing.sleeping`). Those
that find no decode worker wait for one. The rate forgets as the lengths of requests do (`prfaas_core.traffic`), so that it says
how strong demand is and not whether there is any: for that there is the time since the last request.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from prfaas_core import errors
from prfaas_core.traffic import HALF_LIFE_S

PRESSING_S = 30.0
"""For so long after the last request a pool is still wanted: longer than a report or a decision can take."""


@dataclass(frozen=True, slots=True)
class Demand:
    """How much requests want one pool.

    Attributes:
        waiting: requests that wait for its first worker at the moment.
        wanted_rps: how many want it in a second, if they kept coming as they did.
        since_last_s: since the last one that wanted it, 0 while one waits; infinite when none ever did.
    """

    waiting: int = 0
    wanted_rps: float = 0.0
    since_last_s: float = math.inf

    def __post_init__(self) -> None:
        errors.count("demand.waiting", self.waiting)
        errors.non_negative("demand.wanted_rps", self.wanted_rps)
        if self.since_last_s != math.inf:
            errors.non_negative("demand.since_last_s", self.since_last_s)

    @property
    def pressing(self) -> bool:
        """Whether somebody wants the pool now."""
        return self.waiting > 0 or self.since_last_s <= PRESSING_S

    @property
    def strength(self) -> float:
        """Requests that wait, or those a second that want the pool, whichever is more; 0 when nobody does now."""
        return max(float(self.waiting), self.wanted_rps) if self.pressing else 0.0

    def aged(self, by_s: float) -> Demand:
        """Return what was reported `by_s` seconds ago as of now."""
        return Demand(
            self.waiting, self.wanted_rps * _left(by_s), self.since_last_s if self.waiting else self.since_last_s + by_s
        )


def total(reports: Iterable[Demand]) -> Demand:
    """Return the demand of several routers together."""
    found = tuple(reports)
    return Demand(
        sum(report.waiting for report in found),
        math.fsum(report.wanted_rps for report in found),
        min((report.since_last_s for report in found), default=math.inf),
    )


class DemandWindow:
    """The requests that want one pool, as one router sees them. Times are of a clock that does not go back."""

    __slots__ = ("_count", "_last_s")

    def __init__(self) -> None:
        self._count = 0.0
        self._last_s = -math.inf

    def record(self, now_s: float) -> None:
        """Count a request that wants the pool."""
        self._count = self._count * _left(now_s - self._last_s) + 1.0
        self._last_s = now_s

    def since_last_s(self, now_s: float) -> float:
        """Return the time since the last request; infinite when there was none."""
        return now_s - self._last_s

    def report(self, now_s: float, waiting: int) -> Demand:
        """Return the demand at `now_s`, with the requests that wait."""
        since_s = self.since_last_s(now_s)
        # A steady rate r leaves r x half-life / ln 2 in a count that halves so.
        rate_rps = self._count * _left(since_s) * math.log(2) / HALF_LIFE_S
        return Demand(waiting, rate_rps, 0.0 if waiting else since_s)


def _left(by_s: float) -> float:
    return math.exp2(-by_s / HALF_LIFE_S)
