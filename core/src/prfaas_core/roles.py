"""Whether an instance beside the decode workers should prefill or decode: the paper's long-term loop, N_p <-> N_d.

`decide` is a function of (observed, settings, wish, now). The planner says how many of the instances should prefill and what that
carries more; one instance at a time changes its role, and only when the gain is worth the drain and was so all through a
window, so that a burst converts nothing.

It errs towards holding: while an earlier conversion is under way, or anything is missing that the planner needs, nothing
changes. Each role keeps at least one instance. With the same input it moves towards one split and stays there.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from prfaas_core import errors


class RolesReason(enum.StrEnum):
    """Why roles are as they are."""

    CONVERTED = "Converted"
    BEST_SPLIT = "BestSplit"
    GAIN_TOO_SMALL = "GainTooSmall"
    STABILIZING = "Stabilizing"
    CONVERSION_RUNNING = "ConversionRunning"
    INPUTS_MISSING = "InputsMissing"
    TOO_FEW_INSTANCES = "TooFewInstances"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a route's `spec.policy.roles` asks for.

    Attributes:
        min_gain: of the rate, relative, above which a conversion is worth it.
        window_s: for how long it must have been.
        period_s: when to look again.
    """

    min_gain: float = 0.05
    window_s: float = 600.0
    period_s: float = 300.0

    def __post_init__(self) -> None:
        errors.non_negative("roles.minimumGain", self.min_gain)
        errors.non_negative("roles.stabilizationWindowSeconds", self.window_s)
        errors.positive("period_s", self.period_s)


@dataclass(frozen=True, slots=True)
class Split:
    """What the planner says.

    Attributes:
        rate_rps: that the instances carry with the roles they have.
        best_prefill: how many of them should prefill.
        best_rps: that they would carry then.
    """

    rate_rps: float
    best_prefill: int
    best_rps: float


@dataclass(frozen=True, slots=True)
class Observed:
    """What is seen of the instances.

    Attributes:
        prefill, decode: asked for.
        settled: as many are ready and none is going: no conversion is under way.
        split: None when too little is known to plan.
    """

    prefill: int
    decode: int
    settled: bool
    split: Split | None


@dataclass(frozen=True, slots=True)
class Wish:
    """A conversion that has been wanted since a time; +1 is from prefill to decode, -1 the other way."""

    to_decode: int
    since_s: float


@dataclass(frozen=True, slots=True)
class RolesDecision:
    """What to do, why, and when to look again.

    Attributes:
        to_decode: +1 to make a prefill instance decode, -1 for the other way, 0 to hold.
        wanted_prefill: of all instances; None when it is not known.
        gain: of the rate that the wanted split carries; None when it is not known, infinite when nothing is carried now.
        wish: to hand in next time.
    """

    to_decode: int
    reason: RolesReason
    wanted_prefill: int | None
    gain: float | None
    wish: Wish | None
    next_look_s: float


def decide(observed: Observed, settings: Settings, wish: Wish | None, now_s: float) -> RolesDecision:
    """Return what to do about the roles at `now_s`, a clock in seconds that does not go back."""
    next_look_s = now_s + settings.period_s
    total, split = observed.prefill + observed.decode, observed.split
    if observed.prefill < 1 or observed.decode < 1 or total < 3:
        # With one of each there is nothing to give away.
        return RolesDecision(0, RolesReason.TOO_FEW_INSTANCES, None, None, None, next_look_s)
    if split is None or not all(math.isfinite(value) and value >= 0 for value in (split.rate_rps, split.best_rps)):
        return RolesDecision(0, RolesReason.INPUTS_MISSING, None, None, None, next_look_s)
    wanted = min(max(split.best_prefill, 1), total - 1)
    gain = split.best_rps / split.rate_rps - 1 if split.rate_rps > 0 else math.inf if split.best_rps > 0 else 0.0
    direction = (observed.prefill > wanted) - (observed.prefill < wanted)

    def hold(reason: RolesReason, keep: Wish | None) -> RolesDecision:
        return RolesDecision(0, reason, wanted, gain, keep, next_look_s)

    if direction == 0:
        return hold(RolesReason.BEST_SPLIT, None)
    if gain <= settings.min_gain:
        return hold(RolesReason.GAIN_TOO_SMALL, None)
    if wish is None or wish.to_decode != direction:
        wish = Wish(direction, now_s)
    if not observed.settled:
        return hold(RolesReason.CONVERSION_RUNNING, wish)
    if now_s - wish.since_s < settings.window_s:
        return hold(RolesReason.STABILIZING, wish)
    return RolesDecision(direction, RolesReason.CONVERTED, wanted, gain, None, next_look_s)
