"""From a pool's `spec.scaling` to what the core decides by."""

from typing import Final

from prfaas_core import autoscaling
from prfaas_core.autoscaling import SignalName, TargetType
from prfaas_core.profiles import Profile
from prfaas_operator.api.scaling import Panic, ScaleDown, ScaleUp, Scaling, Signal
from prfaas_operator.children.metadata import Role

# What a pool without a signal of its own work keeps, when it shrinks: a worker that is busy for four fifths.
_GUARD_LOAD: Final = 0.8


def core_settings(scaling: Scaling, role: Role, period_s: float) -> autoscaling.Settings:
    """Return bounds and behaviour as the core has them; a look is taken every `period_s` seconds."""
    behavior, given_s = scaling.behavior, scaling.behavior.scale_up.stabilization_window_seconds
    up = autoscaling.PREFILL_UP if role == "prefill" else autoscaling.UP
    return autoscaling.Settings(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        up=_rules(behavior.scale_up, up.window_s if given_s is None else given_s),
        down=_rules(behavior.scale_down, behavior.scale_down.stabilization_window_seconds),
        panic=_panic(scaling.panic) if scaling.panic is not None else None,
        startup_s=scaling.startup_seconds,
        idle_cool_down_s=scaling.idle.cool_down_seconds,
        period_s=period_s,
    )


def signals(scaling: Scaling, role: Role, profile: Profile | None) -> tuple[Signal, ...]:
    """Return what a pool is sized by, with the profile of its workers."""
    if scaling.signals is not None:
        return scaling.signals
    targets = autoscaling.PREFILL_TARGETS if role == "prefill" else autoscaling.decode_targets(_slots(profile))
    return tuple(
        Signal(name=target.name, target_value=target.value, window_seconds=round(target.window_s)) for target in targets
    )


def target_type(signal: Signal) -> TargetType:
    """Return how a signal's target is meant."""
    return signal.target_type if signal.target_type is not None else autoscaling.built_in_target_type(signal.name)


def is_work(signal: Signal) -> bool:
    """Return whether a signal counts work in hand, so that 0 means that there is nothing to do."""
    return target_type(signal) is TargetType.AVERAGE_VALUE


def guards(signals: tuple[Signal, ...], role: Role, profile: Profile | None) -> tuple[Signal, ...]:
    """Return the signals that are added so that a pool shrinks, and sleeps, only as far as its work allows.

    A pool that is sized by latencies alone would shrink whenever it is fast enough, be too slow at once, and grow again.
    One that is sized by queries alone may be anything, and is left to who wrote them.
    """
    if any(is_work(signal) or signal.name is SignalName.QUERY for signal in signals):
        return ()
    window_s = max(signal.window_s for signal in signals)
    if role == "prefill":
        return (Signal(name=SignalName.PREFILL_LOAD, target_value=_GUARD_LOAD, window_seconds=window_s),)
    target = _GUARD_LOAD * max(_slots(profile), 1)
    return (Signal(name=SignalName.DECODE_REQUESTS, target_value=target, window_seconds=window_s),)


def titles(signals: tuple[Signal, ...]) -> tuple[str, ...]:
    """Return the names of signals in a status; where a name stands twice, it is numbered."""
    names = [signal.name.value for signal in signals]
    return tuple(
        name if names.count(name) == 1 else f"{name}[{names[:index].count(name) + 1}]"
        for index, name in enumerate(names)
    )


def _slots(profile: Profile | None) -> int:
    # Without a profile nothing is measured, and what the target is does not matter.
    return profile.decode_slots if profile is not None else 1


def _rules(direction: ScaleUp | ScaleDown, window_s: float) -> autoscaling.Rules:
    return autoscaling.Rules(
        window_s=window_s,
        tolerance=direction.tolerance,
        select=direction.select_policy,
        policies=tuple(
            autoscaling.Policy(policy.type, policy.value, policy.period_seconds) for policy in direction.policies
        ),
    )


def _panic(panic: Panic) -> autoscaling.Panic:
    return autoscaling.Panic(window_s=panic.window_seconds, threshold=panic.threshold)
