"""How many replicas a pool should have: one signal, in the words and with the formula of the HorizontalPodAutoscaler.

`decide` is a function of (observed, settings, history, now). For a signal whose value is an average over the ready pods,
as the built-in ones are, the wanted number is `ceil(ready * value / target)`; inside the tolerance around the target
nothing changes. Upwards and downwards the recommendation is stabilised over a window: the smallest of the recent
recommendations upwards, the largest downwards.

It errs towards holding: a value that is missing, not finite, negative or stale decides nothing, and the reason says which.
Bounds are kept even then. Pods that are still starting count as capacity that will come, so they are not asked for twice.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from prfaas_core import errors


class ScalingReason(enum.StrEnum):
    """Why a pool has the replicas it has."""

    WITHIN_TOLERANCE = "WithinTolerance"
    ABOVE_TARGET = "AboveTarget"
    BELOW_TARGET = "BelowTarget"
    STABILIZED = "Stabilized"
    AT_MAXIMUM = "AtMaximum"
    AT_MINIMUM = "AtMinimum"
    WAITING_FOR_PODS = "WaitingForPods"
    SIGNAL_MISSING = "SignalMissing"
    SIGNAL_INVALID = "SignalInvalid"
    SIGNAL_STALE = "SignalStale"


HOLDING_REASONS = frozenset({ScalingReason.SIGNAL_MISSING, ScalingReason.SIGNAL_INVALID, ScalingReason.SIGNAL_STALE})
"""Reasons that mean that nothing was decided for want of a trustworthy signal."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a pool's `spec.scaling` asks for.

    Attributes:
        min_replicas, max_replicas: bounds, both included.
        target_value: what the signal's average over pods should be, above 0.
        tolerance: relative distance from the target that is left alone.
        scale_up_window_s, scale_down_window_s: stabilisation windows.
        stale_after_s: age from which a value no longer counts.
        period_s: when to look again.
    """

    min_replicas: int
    max_replicas: int
    target_value: float
    tolerance: float = 0.1
    scale_up_window_s: float = 0.0
    scale_down_window_s: float = 300.0
    stale_after_s: float = 60.0
    period_s: float = 5.0

    def __post_init__(self) -> None:
        errors.count("scaling.minReplicas", self.min_replicas)
        errors.count("scaling.maxReplicas", self.max_replicas, minimum=1)
        if self.max_replicas < self.min_replicas:
            raise errors.InvalidValueError(
                "scaling.maxReplicas", self.max_replicas, f"give at least minReplicas ({self.min_replicas})"
            )
        errors.positive("scaling.signal.targetValue", self.target_value)
        errors.non_negative("scaling.tolerance", self.tolerance)
        errors.non_negative("scaling.behavior.scaleUp.stabilizationWindowSeconds", self.scale_up_window_s)
        errors.non_negative("scaling.behavior.scaleDown.stabilizationWindowSeconds", self.scale_down_window_s)
        errors.positive("stale_after_s", self.stale_after_s)
        errors.positive("period_s", self.period_s)


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of a pool.

    Attributes:
        replicas: what the workload is set to now.
        ready_replicas: pods that serve.
        value: the signal's average over the ready pods; None when there is no sample.
        age_s: age of the sample.
    """

    replicas: int
    ready_replicas: int
    value: float | None
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A number of replicas that was wanted at a time."""

    at_s: float
    replicas: int


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """What to set, why, and when to look again.

    Attributes:
        replicas: what the workload should be set to.
        wanted: what the signal alone asks for; None when it decided nothing.
        history: recommendations to hand in next time.
    """

    replicas: int
    reason: ScalingReason
    wanted: int | None
    history: tuple[Recommendation, ...]
    next_look_s: float


def decide(
    observed: Observed, settings: Settings, history: tuple[Recommendation, ...], now_s: float
) -> ScalingDecision:
    """Return the replicas of a pool at `now_s`, a clock in seconds that does not go back."""
    window_s = max(settings.scale_up_window_s, settings.scale_down_window_s)
    recent = tuple(entry for entry in history if now_s - entry.at_s <= window_s)

    def answer(
        replicas: int, reason: ScalingReason, wanted: int | None, entries: tuple[Recommendation, ...]
    ) -> ScalingDecision:
        bounded = min(max(replicas, settings.min_replicas), settings.max_replicas)
        if bounded < replicas:
            reason = ScalingReason.AT_MAXIMUM
        elif bounded > replicas:
            reason = ScalingReason.AT_MINIMUM
        return ScalingDecision(bounded, reason, wanted, entries, now_s + settings.period_s)

    fault = _fault(observed, settings)
    if fault is not None:
        return ScalingDecision(
            min(max(observed.replicas, settings.min_replicas), settings.max_replicas),
            fault,
            None,
            recent,
            now_s + settings.period_s,
        )
    assert observed.value is not None  # noqa: S101 - _fault covers None; this tells the type checker
    if observed.ready_replicas == 0:
        # There is no average over no pods. What is set comes first; the signal is read once something serves.
        return answer(observed.replicas, ScalingReason.WAITING_FOR_PODS, None, recent)

    ratio = observed.value / settings.target_value
    if abs(ratio - 1) <= settings.tolerance:
        wanted, reason = observed.replicas, ScalingReason.WITHIN_TOLERANCE
    else:
        # Against rounding noise, so that 2 pods at exactly 1.5 times the target want 3 and not 4.
        exact = math.ceil(observed.ready_replicas * ratio - 1e-9)
        if ratio > 1:
            wanted, reason = max(exact, observed.replicas), ScalingReason.ABOVE_TARGET
            if exact <= observed.replicas:
                reason = ScalingReason.WAITING_FOR_PODS
        else:
            wanted, reason = min(exact, observed.replicas), ScalingReason.BELOW_TARGET
    bounded = min(max(wanted, settings.min_replicas), settings.max_replicas)
    entries = (*recent, Recommendation(now_s, bounded))

    if bounded > observed.replicas:
        upward = [entry.replicas for entry in entries if now_s - entry.at_s <= settings.scale_up_window_s]
        stable = max(min(upward), observed.replicas)
    else:
        downward = [entry.replicas for entry in entries if now_s - entry.at_s <= settings.scale_down_window_s]
        stable = min(max(downward), observed.replicas)
    if stable != bounded:
        return answer(stable, ScalingReason.STABILIZED, wanted, entries)
    if bounded != wanted:
        reason = ScalingReason.AT_MAXIMUM if bounded < wanted else ScalingReason.AT_MINIMUM
    return answer(stable, reason, wanted, entries)


def _fault(observed: Observed, settings: Settings) -> ScalingReason | None:
    if observed.value is None:
        return ScalingReason.SIGNAL_MISSING
    if not math.isfinite(observed.value) or observed.value < 0:
        return ScalingReason.SIGNAL_INVALID
    if not 0 <= observed.age_s <= settings.stale_after_s:
        return ScalingReason.SIGNAL_STALE
    return None
