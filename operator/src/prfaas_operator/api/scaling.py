"""How a pool gets its number of workers from a signal, in the words of the HorizontalPodAutoscaler."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AwareDatetime, Field

from prfaas_operator.api.model import Model, StatusModel
from prfaas_operator.api.rules import Rule
from prfaas_operator.api.scalars import MAX_REPLICAS, Between, CamelCase, Message, Number, Positive, PromQL, Whole

Window = Annotated[int, Between(0, 3600)]


class SignalName(StrEnum):
    """What is measured."""

    PREFILL_QUEUE_WAIT = "PrefillQueueWait"
    DECODE_RUNNING = "DecodeRunning"
    QUERY = "Query"


class Signal(Model):
    """What the pool is sized by, and the value to keep."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.name == 'Query') == has(self.query)",
            "name {self.name}: a query goes with the name Query and with no other; set name: Query, or leave query out",
            lambda signal: (signal.name is SignalName.QUERY) == (signal.query is not None),
        ),
    )

    name: SignalName
    """PrefillQueueWait: mean seconds that requests wait for prefill. DecodeRunning: requests that one decode worker runs
    at once. Query: the PromQL in `query`."""
    target_value: Positive
    """The value to keep. PrefillQueueWait: seconds. DecodeRunning: requests a worker. Query: the unit of the query."""
    query: PromQL | None = None
    """PromQL that returns one number, an average over the pool's ready workers: it rises with load and falls when workers
    are added. With the name Query, and with no other."""
    window_seconds: Annotated[int, Between(5, 3600)] = 60
    """Time in seconds that built-in signals are averaged over. A query says its own range."""


class ScaleUp(Model):
    """How the pool grows."""

    stabilization_window_seconds: Window = 0
    """Seconds to look back: grow to the lowest recommendation of that time; 0 acts on the newest."""


class ScaleDown(Model):
    """How the pool shrinks."""

    stabilization_window_seconds: Window = 300
    """Seconds to look back: shrink to the highest recommendation of that time, so that a short lull takes no worker."""


class Behavior(Model):
    """How fast the number of workers follows the signal."""

    scale_up: ScaleUp = ScaleUp()
    """How the pool grows."""
    scale_down: ScaleDown = ScaleDown()
    """How the pool shrinks."""


class Scaling(Model):
    """Bounds and signal of a pool that PrfaaS sizes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas {self.minReplicas} is above maxReplicas {self.maxReplicas}; lower one or raise the other",
            lambda scaling: scaling.min_replicas <= scaling.max_replicas,
        ),
    )

    min_replicas: Annotated[int, Between(1, MAX_REPLICAS)] = 1
    """Never fewer workers than this."""
    max_replicas: Annotated[int, Between(1, MAX_REPLICAS)]
    """Never more workers than this."""
    signal: Signal
    """What the pool is sized by, and the value to keep."""
    tolerance: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] = 0.1
    """No change while the signal is within this fraction of its target."""
    behavior: Behavior = Behavior()
    """How fast the number of workers follows the signal."""


class Decision(StatusModel):
    """A decision of the autoscaler."""

    reason: CamelCase
    """Why, for machines."""
    message: Message = ""
    """Why, for people, with the numbers."""
    time: AwareDatetime
    """When it was taken."""


class AutoscalingStatus(StatusModel):
    """What the autoscaler saw and decided."""

    signal_value: Number | None = None
    """The signal when it was last read; absent if it could not be read."""
    query: Message | None = None
    """The PromQL that was asked."""
    desired_replicas: Whole | None = None
    """What it asked for, within the bounds."""
    last_decision: Decision | None = None
    """The last decision, also when it was to hold."""
    last_scale_time: AwareDatetime | None = None
    """When the number of workers last changed."""
