"""What is seen of a pool at one look, and what others say about its size."""

from __future__ import annotations

from dataclasses import dataclass

from prfaas_core import errors
from prfaas_core.autoscaling.reasons import ScalingReason
from prfaas_core.autoscaling.settings import TargetType


@dataclass(frozen=True, slots=True)
class Reading:
    """One signal as it was read.

    Attributes:
        name: tells signals of one pool apart.
        target: what the signal should be, above 0, in its own unit.
        value: by `target_type`; None when there is none, and `fault` says why.
        age_s: of the newest sample of the pod that was heard of last.
        window_s: the time that the value is averaged over.
        panic_value: the same over the panic window; None when it was not asked for or is not there.
        guard: it only keeps the pool from shrinking. A latency that is fine says nothing about how many workers
            would still do, so signals that are latencies come with a guard that counts the work.
        work: the value is work in hand, so that 0 means that there is nothing to do.
        proportional: of a value: twice of it is twice the work. A time that requests wait or take is not: it says that
            workers are missing, and not how many.
    """

    name: str
    target: float
    target_type: TargetType
    value: float | None
    age_s: float = 0.0
    window_s: float = 0.0
    panic_value: float | None = None
    guard: bool = False
    work: bool = False
    proportional: bool = True
    fault: ScalingReason | None = None
    message: str = ""

    def __post_init__(self) -> None:
        errors.positive(f"signal {self.name}: target", self.target)
        if self.value is not None and self.fault is not None:
            raise errors.InvalidValueError(f"signal {self.name}: fault", self.fault.value, "a value has no fault")


@dataclass(frozen=True, slots=True)
class Floor:
    """So many replicas at least, for now; bounded by the maximum and by ceilings."""

    replicas: int
    reason: ScalingReason
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """So many replicas at most, for now; bounded by the minimum.

    Attributes:
        hard: takes replicas away that are there. Otherwise it only stops growth.
    """

    replicas: int
    reason: ScalingReason
    message: str = ""
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What is seen of a pool.

    Attributes:
        replicas: what is asked for now.
        ready_replicas: pods that serve.
        readings: of its signals, in the order of the spec.
        demand: how much routers want the pool that it does not do: requests that wait for it, or went elsewhere for want
            of a worker. None when no router says.
    """

    replicas: int
    ready_replicas: int
    readings: tuple[Reading, ...]
    demand: float | None = None
    floors: tuple[Floor, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
