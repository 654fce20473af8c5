"""What one signal asks for: the formula of the HorizontalPodAutoscaler, `ceil(replicas * value / target)`.

For a total (`AverageValue`) that is `ceil(value / target)`, whatever the number of workers. For a mean or a quantile (`Value`)
the workers are those that are ready, and the formula holds only for the capacity that the value was measured with: while pods
that were asked for are still starting, and until two of the value's windows lie behind the last that became ready, such a signal
asks for no more. Otherwise a queue that waits for its first pod would order the whole pool; and in the first window new
pods take what had been waiting for them, which says nothing about whether there are enough now. It asks for no fewer until its
window lies behind the last pod that went. A time that requests wait or take is not proportional to the work: it asks for a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from prfaas_core.autoscaling.observed import Observed, Reading
from prfaas_core.autoscaling.reasons import ScalingReason
from prfaas_core.autoscaling.settings import Settings, TargetType

# Against rounding noise, so that 2 pods at exactly 1.5 times the target want 3 and not 4.
_EPSILON = 1e-9
_WINDOWS_TO_SETTLE = 2
# What a time may add at once, of the ready pods or in pods: what that does is seen before it asks again.
_STEP, _STEP_PODS = 0.25, 2


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a signal asks for, or why it does not; `replicas` is None exactly when `reason` is a fault."""

    name: str
    replicas: int | None
    reason: ScalingReason
    guard: bool = False


@dataclass(frozen=True, slots=True)
class Capacity:
    """What is known of the pods behind a value.

    Attributes:
        starting: pods were asked for that are not ready and still may become so in time.
        unchanged_s: for how long no further pod has become ready.
        not_fewer_s: for how long no ready pod has gone.
    """

    starting: bool
    unchanged_s: float
    not_fewer_s: float


def propose(reading: Reading, observed: Observed, settings: Settings, capacity: Capacity) -> Proposal:
    """Return what a signal asks for, outside of all bounds."""
    fault = distrust(reading, settings.stale_after_s)
    if fault is ScalingReason.SIGNAL_MISSING and observed.ready_replicas == 0 < observed.replicas:
        # Nobody can report yet, which is no fault of the signal.
        return Proposal(reading.name, observed.replicas, ScalingReason.WAITING_FOR_PODS, reading.guard)
    if fault is not None:
        return Proposal(reading.name, None, fault, reading.guard)
    assert reading.value is not None  # noqa: S101  distrust covers None; this tells the type checker
    replicas, reason = _asked(reading, reading.value, observed, settings, capacity)
    return Proposal(reading.name, replicas, reason, reading.guard)


def propose_in_panic(reading: Reading, observed: Observed, settings: Settings, capacity: Capacity) -> int:
    """Return what a signal asks for over the short window; 0 when that is not known, or the signal itself is not."""
    if reading.guard or reading.panic_value is None or distrust(reading, settings.stale_after_s) is not None:
        return 0
    # Steps are for normal times; what a burst asks for is taken at its word.
    burst = replace(reading, value=reading.panic_value, proportional=True)
    found = propose(burst, observed, settings, capacity)
    return found.replicas or 0


def _asked(
    reading: Reading, value: float, observed: Observed, settings: Settings, capacity: Capacity
) -> tuple[int, ScalingReason]:
    replicas, ready = observed.replicas, observed.ready_replicas
    if reading.target_type is TargetType.AVERAGE_VALUE:
        ratio = value / (reading.target * max(replicas, 1))
        exact = math.ceil(value / reading.target - _EPSILON)
        if replicas == 0 and exact > 0:
            # Any work wakes a pool that sleeps; a tolerance is about the pods that are there.
            return exact, ScalingReason.ABOVE_TARGET
    else:
        if ready == 0:
            # There is no mean over no pods. What is set comes first; the signal is read once something serves.
            return replicas, ScalingReason.WAITING_FOR_PODS
        ratio = value / reading.target
        exact = math.ceil(ready * ratio - _EPSILON)
    if 1 - settings.down.tolerance <= ratio <= 1 + settings.up.tolerance:
        return replicas, ScalingReason.WITHIN_TOLERANCE
    if ratio < 1:
        if reading.target_type is TargetType.VALUE and capacity.not_fewer_s < reading.window_s:
            return replicas, ScalingReason.SETTLING
        return min(exact, replicas), ScalingReason.BELOW_TARGET
    if reading.target_type is TargetType.VALUE:
        if capacity.starting:
            return replicas, ScalingReason.WAITING_FOR_PODS
        if capacity.unchanged_s < _WINDOWS_TO_SETTLE * reading.window_s:
            return replicas, ScalingReason.SETTLING
        if not reading.proportional:
            exact = min(exact, ready + max(_STEP_PODS, math.ceil(ready * _STEP)))
    return max(exact, replicas), ScalingReason.ABOVE_TARGET


def distrust(reading: Reading, stale_after_s: float) -> ScalingReason | None:
    """Return why a value cannot be trusted, or None."""
    if reading.fault is not None:
        return reading.fault
    if reading.value is None:
        return ScalingReason.SIGNAL_MISSING
    if not math.isfinite(reading.value) or reading.value < 0:
        return ScalingReason.SIGNAL_INVALID
    if not 0 <= reading.age_s <= stale_after_s:
        return ScalingReason.SIGNAL_STALE
    return None
