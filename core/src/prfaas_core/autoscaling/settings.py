"""What a pool's `spec.scaling` asks for, in the words of the HorizontalPodAutoscaler and, but for PREFILL_UP, with its defaults."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from prfaas_core import errors


class TargetType(enum.StrEnum):
    """What a signal's target is compared with.

    Attributes:
        VALUE: the value itself, a mean or a quantile over workers; it falls when workers are added.
        AVERAGE_VALUE: the value divided by the workers; the value itself is a total, which workers do not change.
    """

    VALUE = "Value"
    AVERAGE_VALUE = "AverageValue"


class PolicyType(enum.StrEnum):
    """What a policy limits a change by."""

    PODS = "Pods"
    PERCENT = "Percent"


class SelectPolicy(enum.StrEnum):
    """Which of several policies holds: the one that allows most, or least, or no change at all."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `value` pods, or per cent of the pods there were, within any `period_s` seconds."""

    type: PolicyType
    value: int
    period_s: float

    def __post_init__(self) -> None:
        errors.count("policies.value", self.value, minimum=1)
        errors.positive("policies.periodSeconds", self.period_s)


@dataclass(frozen=True, slots=True)
class Rules:
    """How a pool changes in one direction.

    Attributes:
        window_s: stabilisation window: the most cautious recommendation of that time is followed.
        tolerance: relative distance from the target that is left alone.
        policies: none limits nothing.
    """

    window_s: float
    tolerance: float = 0.1
    select: SelectPolicy = SelectPolicy.MAX
    policies: tuple[Policy, ...] = ()

    def __post_init__(self) -> None:
        errors.non_negative("stabilizationWindowSeconds", self.window_s)
        errors.non_negative("tolerance", self.tolerance)


STALE_AFTER_S = 60.0
UP = Rules(0.0, policies=(Policy(PolicyType.PERCENT, 100, 15.0), Policy(PolicyType.PODS, 4, 15.0)))
PREFILL_UP = replace(UP, window_s=30.0)
"""How a prefill pool grows that is not told otherwise: one long prompt makes a load and a queue that are over in seconds."""
DOWN = Rules(300.0, policies=(Policy(PolicyType.PERCENT, 100, 15.0),))


@dataclass(frozen=True, slots=True)
class Panic:
    """What counts as a burst: a signal that, over the short window, asks for `threshold` times the ready workers.

    Attributes:
        window_s: of the short window, for the queries.
        lasts_s: for how long after the last sign of it the pool does not shrink.
    """

    window_s: float = 10.0
    threshold: float = 2.0
    lasts_s: float = 60.0

    def __post_init__(self) -> None:
        errors.positive("panic.windowSeconds", self.window_s)
        errors.positive("panic.threshold", self.threshold)
        errors.non_negative("panic.lastsSeconds", self.lasts_s)


@dataclass(frozen=True, slots=True)
class Settings:
    """Bounds and behaviour of a pool.

    Attributes:
        min_replicas, max_replicas: bounds, both included; a minimum of 0 lets the pool sleep.
        up, down: how it grows and shrinks.
        panic: None for no such thing.
        startup_s: for so long a pod that starts counts as capacity that will come.
        idle_cool_down_s: with a minimum of 0: for so long there must have been nothing to do.
        turns_an_hour: growth that follows shrinking, or the other way round, within any hour at most. Growth always comes, so
            a pool that has turned too often keeps what it has instead of shrinking, unless there is nothing to do.
        stale_after_s: age from which a value no longer counts.
        period_s: when to look again.
    """

    min_replicas: int
    max_replicas: int
    up: Rules = UP
    down: Rules = DOWN
    panic: Panic | None = None
    startup_s: float = 60.0
    idle_cool_down_s: float = 300.0
    turns_an_hour: int = 3
    stale_after_s: float = STALE_AFTER_S
    period_s: float = 5.0

    def __post_init__(self) -> None:
        errors.count("scaling.minReplicas", self.min_replicas)
        errors.count("scaling.maxReplicas", self.max_replicas, minimum=1)
        if self.max_replicas < self.min_replicas:
            raise errors.InvalidValueError(
                "scaling.maxReplicas", self.max_replicas, f"give at least minReplicas ({self.min_replicas})"
            )
        errors.non_negative("scaling.startupSeconds", self.startup_s)
        errors.non_negative("scaling.idle.coolDownSeconds", self.idle_cool_down_s)
        errors.count("turns_an_hour", self.turns_an_hour, minimum=2)
        errors.positive("stale_after_s", self.stale_after_s)
        errors.positive("period_s", self.period_s)
