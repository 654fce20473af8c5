"""From a pool's `spec.scaling` to what the core decides by."""

from typing import Final

from prfaas_core import autoscaling
from prfaas_core.autoscaling import TargetType
from prfaas_operator.api.scaling import Panic, ScaleDown, ScaleUp, Scaling, Signal, SignalName
from prfaas_operator.children.metadata import Role

_WORK: Final = frozenset({SignalName.PREFILL_LOAD, SignalName.DECODE_REQUESTS, SignalName.GENERATION_TOKENS})
# What a pool without a signal of its own work keeps, when it shrinks: a worker that is busy for four fifths.
_GUARD_LOAD: Final = 0.8


def core_settings(scaling: Scaling, period_s: float) -> autoscaling.Settings:
    """Return bounds and behaviour as the core has them; a look is taken every `period_s` seconds."""
    return autoscaling.Settings(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        up=_rules(scaling.behavior.scale_up),
        down=_rules(scaling.behavior.scale_down),
        panic=_panic(scaling.panic) if scaling.panic is not None else None,
        startup_s=scaling.startup_seconds,
        idle_cool_down_s=scaling.idle.cool_down_seconds,
        period_s=period_s,
    )


def target_type(signal: Signal) -> TargetType:
    """Return how a signal's target is meant."""
    if signal.target_type is not None:
        return signal.target_type
    return TargetType.AVERAGE_VALUE if signal.name in _WORK else TargetType.VALUE


def is_work(signal: Signal) -> bool:
    """Return whether a signal counts work in hand, so that 0 means that there is nothing to do."""
    return target_type(signal) is TargetType.AVERAGE_VALUE


def guards(scaling: Scaling, role: Role, decode_slots: int) -> tuple[Signal, ...]:
    """Return the signals that are added so that a pool shrinks, and sleeps, only as far as its work allows.

    A pool that is sized by latencies alone would shrink whenever it is fast enough, be too slow at once, and grow again.
    One that is sized by queries alone may be anything, and is left to who wrote them.
    """
    if any(is_work(signal) or signal.name is SignalName.QUERY for signal in scaling.signals):
        return ()
    window_s = max(signal.window_s for signal in scaling.signals)
    if role == "prefill":
        return (Signal(name=SignalName.PREFILL_LOAD, target_value=_GUARD_LOAD, window_seconds=window_s),)
    target = _GUARD_LOAD * max(decode_slots, 1)
    return (Signal(name=SignalName.DECODE_REQUESTS, target_value=target, window_seconds=window_s),)


def titles(signals: tuple[Signal, ...]) -> tuple[str, ...]:
    """Return the names of signals in a status; where a name stands twice, it is numbered."""
    names = [signal.name.value for signal in signals]
    return tuple(
        name if names.count(name) == 1 else f"{name}[{names[:index].count(name) + 1}]"
        for index, name in enumerate(names)
    )


def _rules(direction: ScaleUp | ScaleDown) -> autoscaling.Rules:
    return autoscaling.Rules(
        window_s=direction.stabilization_window_seconds,
        tolerance=direction.tolerance,
        select=direction.select_policy,
        policies=tuple(
            autoscaling.Policy(policy.type, policy.value, policy.period_seconds) for policy in direction.policies
        ),
    )


def _panic(panic: Panic) -> autoscaling.Panic:
    return autoscaling.Panic(window_s=panic.window_seconds, threshold=panic.threshold)
