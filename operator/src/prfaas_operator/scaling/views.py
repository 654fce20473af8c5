"""What people see of the autoscaler: a pool's `status.autoscaling` and its condition ScalingActive."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prfaas_core.autoscaling import FAULTS, Observed, Reading, ScalingDecision, ScalingReason
from prfaas_core.autoscaling.settings import TargetType
from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.scaling_status import (
    MAX_DECISIONS,
    AutoscalingStatus,
    Decision,
    LoadForecast,
    ScalingRecord,
    SignalStatus,
)

# A status is for people, and every write of it costs the hub. A value that moves within this fraction is not written again,
# one that moves more only after a while, and everything when it is this old.
_NOTABLE_FRACTION: Final = 0.1
_VALUES_AGE_S: Final = 15.0
_NOTABLE_AGE_S: Final = 60.0

# What these say is worth a record even if the number of workers stays.
_RECORDED: Final = FAULTS | {
    ScalingReason.PANIC,
    ScalingReason.ACTIVATED,
    ScalingReason.IDLE,
    ScalingReason.AT_MAXIMUM,
    ScalingReason.SCHEDULED_FLOOR,
    ScalingReason.FORECAST_FLOOR,
    ScalingReason.PLANNER_FLOOR,
    ScalingReason.PLANNER_CEILING,
    ScalingReason.LINK_CEILING,
    ScalingReason.BUDGET_CEILING,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A signal as it was read, and the PromQL that returns the same to a person."""

    reading: Reading
    query: str


@dataclass(frozen=True, slots=True)
class ScalingView:
    """What the pool's status says about its size."""

    status: AutoscalingStatus
    active: bool
    reason: Reason
    message: str


def described(observed: Observed, decision: ScalingDecision) -> str:
    """Return a decision for people, with the numbers."""
    readings = ", ".join(_reading(reading) for reading in observed.readings)
    before, after = observed.replicas, decision.replicas
    outcome = f"{before} to {after} replicas" if before != after else f"{after} replicas hold"
    parts = [readings, f"{observed.ready_replicas} ready", outcome]
    if decision.wanted is not None and decision.wanted != decision.replicas:
        parts.append(f"signals ask for {decision.wanted}")
    if decision.message:
        parts.append(decision.message)
    return "; ".join(part for part in parts if part)


def view(
    measured: tuple[Measured, ...],
    observed: Observed,
    decision: ScalingDecision,
    before: ScalingView | None,
    *,
    now: datetime,
    period_s: float,
    forecast: LoadForecast | None,
) -> ScalingView:
    """Return what is to be seen of a decision; `before` is what is seen of the one before it."""
    message = described(observed, decision)
    fault = decision.reason in FAULTS
    reason = Reason(decision.reason.value) if fault else Reason.SIGNAL_OBSERVED
    old = before.status if before is not None else AutoscalingStatus()
    scaled = decision.replicas != observed.replicas
    status = AutoscalingStatus(
        signals=tuple(
            SignalStatus(
                name=item.reading.name,
                query=item.query,
                value=item.reading.value,
                target_value=item.reading.target,
                target_type=item.reading.target_type,
                guard=item.reading.guard,
                proposed_replicas=proposal.replicas,
                reason=proposal.reason.value,
                message=item.reading.message,
            )
            for item, proposal in zip(measured, decision.proposals, strict=True)
        ),
        desired_replicas=decision.replicas,
        wanted_replicas=decision.wanted,
        last_decision=Decision(reason=decision.reason.value, message=message, time=now),
        decisions=_recorded(observed.replicas, decision, old.decisions, message, now),
        period_seconds=period_s,
        last_scale_time=now if scaled else old.last_scale_time,
        forecast=forecast,
    )
    return ScalingView(status, not fault, reason, message)


def unreachable(replicas: int, before: ScalingView | None, *, now: datetime) -> ScalingView:
    """Return what is to be seen of a pool whose cluster does not say how many workers are ready."""
    message = f"the pool's cluster does not say how many workers are ready; {replicas} replicas hold"
    reason = Reason.CLUSTER_UNREACHABLE
    old = before.status if before is not None else AutoscalingStatus()
    status = old.model_copy(
        update={
            "desired_replicas": replicas,
            "wanted_replicas": None,
            "last_decision": Decision(reason=reason.value, message=message, time=now),
        }
    )
    return ScalingView(status, False, reason, message)


def notable(before: ScalingView, after: ScalingView) -> bool:
    """Return whether people should see the new view: another reason or number, clearly another value, or an old time."""
    old, new = before.status, after.status
    if (before.reason, old.desired_replicas, old.decisions) != (after.reason, new.desired_replicas, new.decisions):
        return True
    if old.last_decision is None or new.last_decision is None or old.last_decision.reason != new.last_decision.reason:
        return True
    age_s = (new.last_decision.time - old.last_decision.time).total_seconds()
    if age_s >= _NOTABLE_AGE_S or len(old.signals) != len(new.signals):
        return True
    if age_s < _VALUES_AGE_S:
        return False
    return old.forecast != new.forecast or any(
        _moved(one, other) for one, other in zip(old.signals, new.signals, strict=True)
    )


def _reading(reading: Reading) -> str:
    if reading.value is None:
        return f"{reading.name}: {reading.message or 'no value'}"
    each = " for each" if reading.target_type is TargetType.AVERAGE_VALUE else ""
    return f"{reading.name} {reading.value:.4g}, target {reading.target:g}{each}"


def _recorded(
    replicas: int, decision: ScalingDecision, before: tuple[ScalingRecord, ...], message: str, now: datetime
) -> tuple[ScalingRecord, ...]:
    """Return the last decisions with this one, if it changes the number of workers or says something new about it."""
    last = before[0].reason if before else None
    news = decision.reason in _RECORDED or last in _RECORDED
    if decision.replicas == replicas and not (news and decision.reason != last):
        return before
    record = ScalingRecord(
        time=now, from_replicas=replicas, to_replicas=decision.replicas, reason=decision.reason.value, message=message
    )
    return (record, *before)[:MAX_DECISIONS]


def _moved(before: SignalStatus, after: SignalStatus) -> bool:
    if (before.name, before.query, before.target_value) != (after.name, after.query, after.target_value):
        return True
    a, b = before.value, after.value
    if a is None or b is None:
        return a is not b
    return abs(a - b) > _NOTABLE_FRACTION * max(abs(a), abs(b))
