"""How many replicas a pool should have: a function of (observed, settings, history, now), with a reason.

The order is that of the HorizontalPodAutoscaler: what each signal asks for, the highest of them upward and only all together
downward, stabilisation, the policies' rate, bounds. Around it stand a panic for bursts, sleep at no replicas, a limit to how often
a pool turns round, and floors and ceilings that others set: a schedule, a forecast, the planner, a link, a budget.

It errs towards holding. A signal without a trustworthy value asks for nothing and keeps the pool from shrinking; when no signal has
one, nothing changes but what bounds ask for. Bounds, floors and hard ceilings act at once; the policies limit what signals do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from prfaas_core.autoscaling.observed import Ceiling, Floor, Observed
from prfaas_core.autoscaling.pace import Change, Recommendation, limited, longest_s, stabilized
from prfaas_core.autoscaling.proposals import Capacity, Proposal, propose, propose_in_panic
from prfaas_core.autoscaling.reasons import FAULTS, ScalingReason
from prfaas_core.autoscaling.settings import Settings

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class History:
    """What a decision needs to know of those before it; the empty one is that of a pool seen for the first time.

    Attributes:
        recommendations: what was wanted, before stabilisation.
        changes: what was done.
        ready_replicas: the ready pods of the last look.
        ready_since_s, fewer_since_s: when they last became more, and fewer.
        grown_at_s: when replicas were last added; the start of pods is reckoned from it.
        panic_until_s: before which the pool does not shrink.
        panic_replicas: the most that was wanted in this panic.
        idle_since_s: since when there has been nothing to do.
        grew: whether the last change added replicas; None before the first.
        turns_s: when, within the last hour, growth followed shrinking or the other way round; with other settings it begins anew.
        settings: of the last look.
    """

    recommendations: tuple[Recommendation, ...] = ()
    changes: tuple[Change, ...] = ()
    ready_replicas: int | None = None
    ready_since_s: float = -math.inf
    fewer_since_s: float = -math.inf
    grown_at_s: float = -math.inf
    panic_until_s: float = -math.inf
    panic_replicas: int = 0
    idle_since_s: float | None = None
    grew: bool | None = None
    turns_s: tuple[float, ...] = ()
    settings: Settings | None = None


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """What to set, why, and when to look again.

    Attributes:
        replicas: what the workload should be set to.
        wanted: what the signals alone ask for; None when they decided nothing.
        proposals: what each signal asks for, in the order of the readings.
        message: of the floor or ceiling that decided, for people; empty otherwise.
        history: to hand in next time.
    """

    replicas: int
    reason: ScalingReason
    wanted: int | None
    proposals: tuple[Proposal, ...]
    message: str
    history: History
    next_look_s: float


def decide(observed: Observed, settings: Settings, history: History, now_s: float) -> ScalingDecision:
    """Return the replicas of a pool at `now_s`, a clock in seconds that does not go back."""
    history = _looked(observed, settings, history, now_s)
    capacity = Capacity(
        starting=observed.ready_replicas < observed.replicas and now_s - history.grown_at_s < settings.startup_s,
        unchanged_s=now_s - history.ready_since_s,
        not_fewer_s=now_s - history.fewer_since_s,
    )
    proposals = tuple(propose(reading, observed, settings, capacity) for reading in observed.readings)
    wanted, reason = _wanted(proposals, observed.replicas)
    held = 0
    if wanted is not None:
        burst = max((propose_in_panic(item, observed, settings, capacity) for item in observed.readings), default=0)
        history = _panicked(burst, observed, settings, history, now_s)
        held = max(history.panic_replicas, observed.replicas) if now_s < history.panic_until_s else 0
    asleep = _asleep(proposals, held, observed, settings, history, now_s)
    if asleep is not None:
        # Whoever wakes up gets the whole cool-down.
        history = replace(history, idle_since_s=None)
        return _bounded(*asleep, wanted, proposals, observed, settings, history, now_s)
    history = replace(history, idle_since_s=_idle_since_s(proposals, observed, settings, history, now_s))
    recommended = max(observed.replicas if wanted is None else wanted, held)
    before = history.recommendations
    history = replace(history, recommendations=(*before, Recommendation(now_s, recommended)))
    if wanted is None:
        # Nothing was known to speak for fewer: the window to shrink begins anew when signals are back.
        return _bounded(observed.replicas, reason, None, proposals, observed, settings, history, now_s)
    followed = stabilized(observed.replicas, wanted, before, settings, now_s)
    if followed != wanted:
        reason = ScalingReason.STABILIZED
    if held > followed:
        followed, reason = held, ScalingReason.PANIC
    paced = limited(observed.replicas, followed, history.changes, settings, now_s)
    if paced != followed:
        reason = ScalingReason.RATE_LIMITED
    if paced < observed.replicas and _busy(observed) and _flaps(settings, history):
        paced, reason = observed.replicas, ScalingReason.FLAPPING
    return _bounded(paced, reason, recommended, proposals, observed, settings, history, now_s)


def _busy(observed: Observed) -> bool:
    """Return whether there is work in hand, or nothing that would count it."""
    work = [reading for reading in observed.readings if reading.work]
    return not work or any(reading.value != 0 for reading in work)


def _flaps(settings: Settings, history: History) -> bool:
    """Return whether shrinking now would turn a pool round too often, growth that may have to follow included."""
    return bool(history.grew) and len(history.turns_s) + 2 > settings.turns_an_hour


def _looked(observed: Observed, settings: Settings, history: History, now_s: float) -> History:
    """Return the history without what no longer matters, and with the ready pods of now."""
    windows_s, periods_s = longest_s(settings)
    turns_s = history.turns_s if history.settings == settings else ()
    before = history.ready_replicas
    added = observed.ready_replicas - before if before is not None else 0
    # What there is when a pool is first seen was somebody's recommendation: a restart shortens no window.
    entries = history.recommendations if before is not None else (Recommendation(now_s, observed.replicas),)
    return replace(
        history,
        recommendations=tuple(entry for entry in entries if now_s - entry.at_s < windows_s),
        changes=tuple(change for change in history.changes if now_s - change.at_s < periods_s),
        turns_s=tuple(at_s for at_s in turns_s if now_s - at_s < _HOUR_S),
        settings=settings,
        ready_replicas=observed.ready_replicas,
        ready_since_s=now_s if added > 0 else history.ready_since_s,
        fewer_since_s=now_s if added < 0 else history.fewer_since_s,
    )


def _wanted(proposals: tuple[Proposal, ...], replicas: int) -> tuple[int | None, ScalingReason]:
    """Return what the signals ask for together: the highest upward; downward only what all agree to."""
    known = [found for found in proposals if found.replicas is not None]
    fault = next((found.reason for found in proposals if found.replicas is None), None)
    if not any(not found.guard for found in known):
        return None, fault or ScalingReason.SIGNAL_MISSING
    upward = max((found for found in known if not found.guard), key=_replicas)
    if _replicas(upward) > replicas:
        return _replicas(upward), upward.reason
    if fault is not None:
        return replicas, fault
    # A guard has a say in how far a pool shrinks, and none in its growth.
    highest = max(known, key=_replicas)
    if _replicas(highest) >= replicas:
        return replicas, ScalingReason.WITHIN_TOLERANCE if highest.guard else highest.reason
    return _replicas(highest), highest.reason


def _replicas(proposal: Proposal) -> int:
    assert proposal.replicas is not None  # noqa: S101  only asked of those that have one
    return proposal.replicas


def _panicked(burst: int, observed: Observed, settings: Settings, history: History, now_s: float) -> History:
    panic = settings.panic
    if panic is None:
        return history
    peak = history.panic_replicas if now_s < history.panic_until_s else 0
    if burst > observed.replicas and burst >= panic.threshold * max(observed.ready_replicas, 1):
        return replace(history, panic_until_s=now_s + panic.lasts_s, panic_replicas=max(burst, peak))
    return replace(history, panic_replicas=peak)


def _asleep(
    proposals: tuple[Proposal, ...], held: int, observed: Observed, settings: Settings, history: History, now_s: float
) -> tuple[int, ScalingReason] | None:
    """Return replicas and reason of a pool that sleeps, or wakes, to at least those that a panic holds; None for one that is awake."""
    if observed.replicas > 0 or settings.min_replicas > 0:
        return None
    asked = max([held, *(found.replicas or 0 for found in proposals if not found.guard)])
    if asked > 0 or (observed.demand or 0) > 0:
        # The first worker is not a matter of rates, or a policy in per cent would let none come.
        return max(limited(0, asked, history.changes, settings, now_s), 1), ScalingReason.ACTIVATED
    return 0, ScalingReason.IDLE if observed.demand is not None else ScalingReason.DEMAND_UNKNOWN


def _idle_since_s(
    proposals: tuple[Proposal, ...], observed: Observed, settings: Settings, history: History, now_s: float
) -> float | None:
    """Return since when a pool that may sleep has had nothing to do; None when it has, or when that is not known."""
    known = all(found.replicas is not None for found in proposals) and observed.demand is not None
    if settings.min_replicas > 0 or not known or observed.demand or _busy(observed):
        return None
    return history.idle_since_s if history.idle_since_s is not None else now_s


def _bounded(
    replicas: int,
    reason: ScalingReason,
    wanted: int | None,
    proposals: tuple[Proposal, ...],
    observed: Observed,
    settings: Settings,
    history: History,
    now_s: float,
) -> ScalingDecision:
    """Return the decision within the bounds: the maximum before ceilings, ceilings before floors, the minimum always."""
    idle_s = now_s - history.idle_since_s if history.idle_since_s is not None else 0.0
    cooling = history.idle_since_s is not None and idle_s < settings.idle_cool_down_s
    may_sleep = observed.replicas == 0 or (history.idle_since_s is not None and not cooling)
    least = settings.min_replicas if may_sleep else max(settings.min_replicas, 1)
    message = ""
    if replicas == 0 and observed.replicas > 0 and may_sleep:
        reason = ScalingReason.IDLE
    floor = _highest(observed.floors)
    if floor is not None and floor.replicas > max(replicas, least):
        replicas, reason, message = floor.replicas, floor.reason, floor.message
    if replicas < least:
        bound = ScalingReason.COOLING_DOWN if cooling else ScalingReason.AT_MINIMUM
        replicas, reason, message = least, _unless_fault(reason, bound), ""
    ceiling = _lowest(observed.ceilings, observed.replicas)
    if ceiling is not None and replicas > max(_height(ceiling, observed.replicas), least):
        replicas, reason, message = max(_height(ceiling, observed.replicas), least), ceiling.reason, ceiling.message
    if replicas > settings.max_replicas:
        replicas, reason, message = settings.max_replicas, _unless_fault(reason, ScalingReason.AT_MAXIMUM), ""
    delta = replicas - observed.replicas
    if delta:
        grows = delta > 0
        history = replace(
            history,
            changes=(*history.changes, Change(now_s, delta)),
            grown_at_s=now_s if grows else history.grown_at_s,
            grew=grows,
            turns_s=(*history.turns_s, now_s)
            if history.grew is not None and history.grew != grows
            else history.turns_s,
        )
    return ScalingDecision(replicas, reason, wanted, proposals, message, history, now_s + settings.period_s)


def _unless_fault(reason: ScalingReason, bound: ScalingReason) -> ScalingReason:
    # That nothing is known matters more to people than that a bound holds.
    return reason if reason in FAULTS else bound


def _highest(floors: Iterable[Floor]) -> Floor | None:
    return max(floors, key=lambda floor: floor.replicas, default=None)


def _lowest(ceilings: Iterable[Ceiling], replicas: int) -> Ceiling | None:
    return min(ceilings, key=lambda ceiling: _height(ceiling, replicas), default=None)


def _height(ceiling: Ceiling, replicas: int) -> int:
    return ceiling.replicas if ceiling.hard else max(ceiling.replicas, replicas)
