"""Whether an instance beside the decode workers should prefill or decode: the paper's long-term loop, N_p <-> N_d.

`decide` is a function of (observed, settings, history, now). The planner says how many of the instances should prefill and what
that carries more; one instance at a time changes its role, and only when the gain is worth its cost and was so all through
a window, so that a burst converts nothing.

A conversion costs capacity. While the instance drains (`drain_s`) and the one in its new role starts (`start_s`), it does
nothing. Of a rate r that n instances of its old role take part in, that is at most r / n: a fleet with (n - 1) / n of
everything carries (n - 1) / n of r, and here only one role has less. With k conversions left, one after the other, each
taking T = drain_s + start_s, the better rate r* is there after k T, and what counts over the horizon H is

    G = ((r* - r) max(0, H - k T) - k T r / n) / (r H)

Pools of fixed size exchange instances by their numbers alone. Where both have an autoscaler, a conversion is advice to them: the pool
that gives has at most, and the one that gets at least, what the conversion leaves it, so that the sum stays. The autoscalers
come first. Nothing is converted while one of them has just changed a size, does not know what it wants, or wants to move the
other way; and the advice falls when one of them wants its pool further back than the conversion moved it, or when the planner
has been silent. A conversion that was taken back is made again only when both autoscalers ask for it, until the load is
another.

It errs towards holding: while an earlier conversion is under way, or anything is missing that the planner needs, nothing
changes. Each role keeps at least one instance. With the same input it moves towards one split and stays there.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

from prfaas_core import errors

# Two rates that differ by less are the same load.
_SAME_LOAD = 0.2


class RolesReason(enum.StrEnum):
    """Why roles are as they are."""

    CONVERTED = "Converted"
    BEST_SPLIT = "BestSplit"
    GAIN_TOO_SMALL = "GainTooSmall"
    STABILIZING = "Stabilizing"
    CONVERSION_RUNNING = "ConversionRunning"
    COOLING_DOWN = "CoolingDown"
    AT_BOUNDS = "AtBounds"
    AUTOSCALER_SETTLING = "AutoscalerSettling"
    AUTOSCALER_SILENT = "AutoscalerSilent"
    AUTOSCALER_OPPOSES = "AutoscalerOpposes"
    INPUTS_MISSING = "InputsMissing"
    TOO_FEW_INSTANCES = "TooFewInstances"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a route's `spec.policy.roles` asks for.

    Attributes:
        min_gain: of the rate, relative and after the cost, above which a conversion is worth it.
        window_s: for how long it must have been. After a conversion autoscaled pools are left alone for as long.
        period_s: when to look again.
        horizon_s: in which a conversion has to earn what it costs.
        expiry_s: for how long advice outlasts the planner's last word.
    """

    min_gain: float = 0.05
    window_s: float = 600.0
    period_s: float = 300.0
    horizon_s: float = 3600.0
    expiry_s: float = 900.0

    def __post_init__(self) -> None:
        errors.non_negative("roles.minimumGain", self.min_gain)
        errors.non_negative("roles.stabilizationWindowSeconds", self.window_s)
        errors.positive("period_s", self.period_s)
        errors.positive("roles.horizonSeconds", self.horizon_s)
        errors.positive("expiry_s", self.expiry_s)


@dataclass(frozen=True, slots=True)
class Split:
    """What the planner says.

    Attributes:
        rate_rps: that the instances carry with the roles they have.
        best_prefill: how many of them should prefill.
        best_rps: that they would carry then.
        asked_rps: that routers are asked for now; None when it is not known.
    """

    rate_rps: float
    best_prefill: int
    best_rps: float
    asked_rps: float | None = None


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """What the autoscaler of a pool says.

    Attributes:
        least, most: the pool's bounds, with the floors that others set.
        wanted: instances that its signals alone ask for; None when they say nothing.
        unchanged_s: for how long it has not changed the pool's size.
        settle_s: for so long after a change its signals may still be those of before.
    """

    least: int
    most: int
    wanted: int | None
    unchanged_s: float = math.inf
    settle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What is seen of the instances.

    Attributes:
        prefill, decode: asked for.
        settled: as many are ready and none is going: no conversion is under way.
        split: None when too little is known to plan.
        drain_s, start_s: that an instance takes to finish what it has, and one in the other role to take its first request.
        scalers: of prefill and decode; None where both pools have fixed sizes.
    """

    prefill: int
    decode: int
    settled: bool
    split: Split | None
    drain_s: float = 0.0
    start_s: float = 0.0
    scalers: tuple[Autoscaler, Autoscaler] | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """A conversion that has been wanted since a time; +1 is from prefill to decode, -1 the other way."""

    to_decode: int
    since_s: float


@dataclass(frozen=True, slots=True)
class Advice:
    """What a conversion leaves two pools with autoscalers: a ceiling to the one that gave, a floor to the one that got.

    Attributes:
        to_decode: +1 for a conversion from prefill to decode, -1 for the other way.
        prefill, decode: sizes after it.
        asked_rps: the load at the time.
        planned_s: when the planner last had something to say.
    """

    to_decode: int
    prefill: int
    decode: int
    asked_rps: float | None
    planned_s: float


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A direction in which a conversion was undone by an autoscaler, and the load at the time; None: unknown."""

    to_decode: int
    asked_rps: float | None


@dataclass(frozen=True, slots=True)
class History:
    """What a decision needs to know of those before it."""

    wish: Wish | None = None
    advice: Advice | None = None
    converted_s: float = -math.inf
    taken_back: TakenBack | None = None


@dataclass(frozen=True, slots=True)
class RolesDecision:
    """What to do, why, and when to look again.

    Attributes:
        to_decode: +1 to make a prefill instance decode, -1 for the other way, 0 to hold.
        wanted_prefill: of all instances; None when it is not known.
        gain: of the rate that the wanted split carries; None when it is not known, infinite when nothing is carried now.
        net_gain: what is left of it after the cost.
        history: to hand in next time.
    """

    to_decode: int
    reason: RolesReason
    wanted_prefill: int | None
    gain: float | None
    net_gain: float | None
    history: History
    next_look_s: float


def decide(observed: Observed, settings: Settings, history: History, now_s: float) -> RolesDecision:
    """Return what to do about the roles at `now_s`, a clock in seconds that does not go back."""
    split, total = observed.split, observed.prefill + observed.decode
    known = split is not None and all(math.isfinite(rate) and rate >= 0 for rate in (split.rate_rps, split.best_rps))
    history = _planned(history, split if known else None, now_s)
    history = relieved(history, observed.scalers, settings, now_s)

    def answer(reason: RolesReason, wish: Wish | None = None) -> RolesDecision:
        return RolesDecision(0, reason, None, None, None, replace(history, wish=wish), now_s + settings.period_s)

    if observed.prefill < 1 or observed.decode < 1 or total < 3:
        # With one of each there is nothing to give away.
        return answer(RolesReason.TOO_FEW_INSTANCES)
    if split is None or not known:
        return answer(RolesReason.INPUTS_MISSING)
    lowest, highest = prefill_bounds(observed)
    if lowest > highest:
        return answer(RolesReason.AT_BOUNDS)
    wanted = min(max(split.best_prefill, lowest), highest)
    direction = (observed.prefill > wanted) - (observed.prefill < wanted)
    gain, net_gain = _gains(observed, split, wanted, direction, settings)

    def hold(reason: RolesReason, wish: Wish | None = None) -> RolesDecision:
        return replace(answer(reason, wish), wanted_prefill=wanted, gain=gain, net_gain=net_gain)

    if direction == 0:
        return hold(RolesReason.BEST_SPLIT)
    if net_gain <= settings.min_gain:
        return hold(RolesReason.GAIN_TOO_SMALL)
    wish = history.wish
    if wish is None or wish.to_decode != direction:
        wish = Wish(direction, now_s)
    if not observed.settled:
        return hold(RolesReason.CONVERSION_RUNNING, wish)
    if now_s - wish.since_s < settings.window_s:
        return hold(RolesReason.STABILIZING, wish)
    if observed.scalers is not None:
        if now_s - history.converted_s < settings.window_s:
            return hold(RolesReason.COOLING_DOWN, wish)
        objection = _objection(observed, observed.scalers, direction, history, split.asked_rps)
        if objection is not None:
            return hold(objection, wish)
        prefill, decode = observed.prefill - direction, observed.decode + direction
        advice = Advice(direction, prefill, decode, split.asked_rps, now_s)
        history = History(None, advice, now_s, history.taken_back)
    return replace(hold(RolesReason.CONVERTED), to_decode=direction)


def prefill_bounds(observed: Observed) -> tuple[int, int]:
    """Return how many of the instances may prefill at least and at most; the first is above the second where none may."""
    total = observed.prefill + observed.decode
    if observed.scalers is None:
        return 1, total - 1
    prefill, decode = observed.scalers
    return max(1, prefill.least, total - decode.most), min(total - 1, prefill.most, total - decode.least)


def relieved(
    history: History, scalers: tuple[Autoscaler, Autoscaler] | None, settings: Settings, now_s: float
) -> History:
    """Return the history without advice that has fallen. It is asked for more often than a decision is due."""
    advice = history.advice
    if advice is None:
        return history
    if scalers is None or now_s - advice.planned_s >= settings.expiry_s:
        return replace(history, advice=None)
    gives, gets = scalers if advice.to_decode > 0 else scalers[::-1]
    ceiling, floor = (advice.prefill, advice.decode) if advice.to_decode > 0 else (advice.decode, advice.prefill)
    if gives.least > ceiling or gets.most < floor:
        # Bounds were edited, or a floor came into force that was not there before.
        return replace(history, advice=None, converted_s=now_s)
    # One instance either way is what the conversion moved.
    wants_more = gives.wanted is not None and gives.wanted > ceiling + 1
    wants_less = gets.wanted is not None and gets.wanted < floor - 1
    if not (wants_more or wants_less):
        return history
    return History(None, None, now_s, TakenBack(advice.to_decode, advice.asked_rps))


def _planned(history: History, split: Split | None, now_s: float) -> History:
    """Return the history with the planner's newest word, and without what another load has made void."""
    if split is None:
        return history
    advice, taken_back = history.advice, history.taken_back
    if advice is not None:
        advice = replace(advice, planned_s=now_s)
    if taken_back is not None and not _same_load(taken_back.asked_rps, split.asked_rps):
        taken_back = None
    return replace(history, advice=advice, taken_back=taken_back)


def _same_load(before: float | None, now: float | None) -> bool:
    return before is None or now is None or abs(now - before) <= _SAME_LOAD * max(now, before)


def _gains(observed: Observed, split: Split, wanted: int, direction: int, settings: Settings) -> tuple[float, float]:
    """Return the gain of the rate, and G of the module's description."""
    rate = split.rate_rps
    conversions = abs(observed.prefill - wanted)
    lost_s = min(conversions * (observed.drain_s + observed.start_s), settings.horizon_s)
    if rate <= 0:
        gain = math.inf if split.best_rps > 0 else 0.0
        return gain, gain if lost_s < settings.horizon_s else 0.0
    gain = split.best_rps / rate - 1
    giving = observed.prefill if direction > 0 else observed.decode
    return gain, gain * (1 - lost_s / settings.horizon_s) - lost_s / giving / settings.horizon_s


def _objection(
    observed: Observed,
    scalers: tuple[Autoscaler, Autoscaler],
    direction: int,
    history: History,
    asked_rps: float | None,
) -> RolesReason | None:
    """Return why the autoscalers do not let a conversion happen now."""
    if any(scaler.unchanged_s < scaler.settle_s for scaler in scalers):
        return RolesReason.AUTOSCALER_SETTLING
    gives, gets = scalers if direction > 0 else scalers[::-1]
    has, gained = (observed.prefill, observed.decode) if direction > 0 else (observed.decode, observed.prefill)
    if gives.wanted is None or gets.wanted is None:
        return RolesReason.AUTOSCALER_SILENT
    if gives.wanted > has or gets.wanted < gained:
        return RolesReason.AUTOSCALER_OPPOSES
    undone = history.taken_back
    burnt = undone is not None and undone.to_decode == direction and _same_load(undone.asked_rps, asked_rps)
    if burnt and not (gives.wanted < has and gets.wanted > gained):
        return RolesReason.AUTOSCALER_OPPOSES
    return None
