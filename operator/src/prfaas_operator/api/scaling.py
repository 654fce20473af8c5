"""How a pool gets its number of workers from signals, in the words of the HorizontalPodAutoscaler."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from prfaas_core.autoscaling import QUANTILES, PolicyType, SelectPolicy, SignalName, TargetType
from prfaas_operator.api.cron import CronExpression, TimeZone
from prfaas_operator.api.model import Model
from prfaas_operator.api.rules import Rule
from prfaas_operator.api.scalars import MAX_REPLICAS, Between, Fraction, Positive, PromQL

Window = Annotated[int, Between(0, 3600)]
Tolerance = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


class Signal(Model):
    """What the pool is sized by, and the value to keep."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.name == 'Query') == has(self.query)",
            "name {self.name}: a query goes with the name Query and with no other; set name: Query, or leave query out",
            lambda signal: (signal.name is SignalName.QUERY) == (signal.query is not None),
        ),
        Rule(
            "(self.name == 'Query') == has(self.targetType)",
            "name {self.name}: targetType goes with the name Query and with no other, since built-in signals have their own",
            lambda signal: (signal.name is SignalName.QUERY) == (signal.target_type is not None),
        ),
        Rule(
            "!has(self.quantile) || self.name in ['TimeToFirstToken', 'InterTokenLatency']",
            "name {self.name} has no quantile; leave it out",
            lambda signal: signal.quantile is None or signal.name in QUANTILES,
        ),
    )

    name: SignalName
    """Of prefill: PrefillLoad, the work that comes, in workers; PrefillQueueWait, mean seconds in the queue;
    TimeToFirstToken, a quantile in seconds. Of decode: DecodeRequests, requests that run or wait for room; KVCacheUse, a mean
    fraction; InterTokenLatency, a quantile in seconds; GenerationTokens, tokens/s. Of both: Query, the PromQL in `query`."""
    target_value: Positive
    """The value to keep. PrefillLoad: part of a worker that is busy, such as 0.7. DecodeRequests, GenerationTokens: for each
    worker. KVCacheUse: a fraction. Others: seconds. Query: by targetType."""
    target_type: TargetType | None = None
    """With Query: Value, if the query returns a mean over workers, which falls when workers are added; AverageValue, if it
    returns a total, which is divided by the workers."""
    query: PromQL | None = None
    """PromQL that returns one number. With the name Query, and with no other."""
    quantile: Annotated[Fraction, Field(lt=1)] | None = None
    """Quantile of TimeToFirstToken and InterTokenLatency; absent: 0.9."""
    # Without defaults, here and below: kubectl apply takes a list whose items were completed for a changed one.
    window_seconds: Annotated[int, Between(5, 3600)] | None = None
    """Time in seconds that built-in signals are averaged over; absent: 60. For a query: the time that its own range looks
    back."""

    @property
    def latency_quantile(self) -> float:
        """Return the quantile of a signal that is one."""
        return self.quantile if self.quantile is not None else 0.9

    @property
    def window_s(self) -> int:
        """Return the time that the signal is averaged over."""
        return self.window_seconds if self.window_seconds is not None else 60


class ScalingPolicy(Model):
    """At most so many pods, or per cent, within a period."""

    type: PolicyType
    """Pods, or Percent of the pods at the period's start."""
    value: Annotated[int, Between(1, 10_000)]
    """Pods or per cent."""
    period_seconds: Annotated[int, Between(1, 1800)]
    """The period, in seconds."""


Policies = Annotated[tuple[ScalingPolicy, ...], Field(max_length=8)]
_PERCENT = ScalingPolicy(type=PolicyType.PERCENT, value=100, period_seconds=15)
_PODS = ScalingPolicy(type=PolicyType.PODS, value=4, period_seconds=15)


class ScaleUp(Model):
    """How the pool grows."""

    stabilization_window_seconds: Window | None = None
    """Seconds to look back: grow to the lowest recommendation of that time; 0 acts on the newest. Absent: 30 for a
    PrefillPool, 0 for a DecodePool."""
    tolerance: Tolerance = 0.1
    """No growth while a signal is above its target by at most this fraction."""
    select_policy: SelectPolicy = SelectPolicy.MAX
    """Of several policies: Max, the one that allows most; Min, the one that allows least; Disabled: the pool does not grow."""
    policies: Policies = (_PERCENT, _PODS)
    """How much a period may add."""


class ScaleDown(Model):
    """How the pool shrinks."""

    stabilization_window_seconds: Window = 300
    """Seconds to look back: shrink to the highest recommendation of that time, so that a short lull takes no worker."""
    tolerance: Tolerance = 0.1
    """No shrinking while a signal is below its target by at most this fraction."""
    select_policy: SelectPolicy = SelectPolicy.MAX
    """Of several policies: Max, the one that allows most; Min, the one that allows least; Disabled: the pool does not
    shrink."""
    policies: Policies = (_PERCENT,)
    """How much a period may take away."""


class Behavior(Model):
    """How fast the number of workers follows the signals."""

    scale_up: ScaleUp = ScaleUp()
    """How the pool grows."""
    scale_down: ScaleDown = ScaleDown()
    """How the pool shrinks."""


class Panic(Model):
    """What counts as a burst: then the short window decides, and for a minute the pool does not shrink."""

    window_seconds: Annotated[int, Between(5, 600)] = 10
    """The short window, in seconds; at least two scrapes of Prometheus."""
    threshold: Annotated[float, Field(strict=True, gt=1, le=100, allow_inf_nan=False)] = 2
    """A signal that asks over the short window for this many times the ready workers is a burst."""


class Schedule(Model):
    """A time in which the pool has at least so many workers."""

    start: CronExpression
    """When it begins: minute, hour, day of month, month, day of week."""
    end: CronExpression
    """When it ends, likewise."""
    time_zone: TimeZone
    """Name of the time zone of start and end in the IANA database, such as Europe/Berlin or Etc/UTC."""
    min_replicas: Annotated[int, Between(1, MAX_REPLICAS)]
    """Workers that the pool has at least between start and end."""


class Idle(Model):
    """When a pool with minReplicas 0 goes to sleep."""

    cool_down_seconds: Annotated[int, Between(0, 86_400)] = 300
    """Seconds for which there must have been nothing to do."""


class ForecastMode(StrEnum):
    """What is done with the forecast."""

    OFF = "Off"
    SHOW = "Show"
    FLOOR = "Floor"


class Forecast(Model):
    """A prediction of the pool's load from its history."""

    mode: ForecastMode = ForecastMode.OFF
    """Off; Show: predict, and show how right it was; Floor: the pool also has at least what is predicted."""
    horizon_seconds: Annotated[int, Between(60, 86_400)] = 600
    """How far ahead: at least the time that a worker takes to start."""
    season_seconds: Annotated[int, Between(3600, 1_209_600)] = 86_400
    """After how long the load repeats itself: a day, or a week."""


class Scaling(Model):
    """Bounds and signals of a pool that PrfaaS sizes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas {self.minReplicas} is above maxReplicas {self.maxReplicas}; lower one or raise the other",
            lambda scaling: scaling.min_replicas <= scaling.max_replicas,
        ),
        Rule(
            "!has(self.schedules) || self.schedules.all(schedule, schedule.minReplicas <= self.maxReplicas)",
            "minReplicas of a schedule is above maxReplicas {self.maxReplicas}; lower one or raise the other",
            lambda scaling: all(schedule.min_replicas <= scaling.max_replicas for schedule in scaling.schedules),
        ),
    )

    min_replicas: Annotated[int, Between(0, MAX_REPLICAS)] = 1
    """Never fewer workers than this. 0: the pool sleeps while there is nothing to do, and routers wake it."""
    max_replicas: Annotated[int, Between(1, MAX_REPLICAS)]
    """Never more workers than this."""
    signals: Annotated[tuple[Signal, ...], Field(min_length=1, max_length=8)] | None = None
    """What the pool is sized by. The highest wins upward; all must agree downward. Absent: for a PrefillPool PrefillLoad 0.7
    over 300 s and 0.9 over 60 s, and PrefillQueueWait 2 s; for a DecodePool DecodeRequests of three quarters of a worker's slots over 90 s."""
    behavior: Behavior = Behavior()
    """How fast the number of workers follows the signals."""
    panic: Panic | None = None
    """How bursts are answered; absent: like everything else."""
    startup_seconds: Annotated[int, Between(0, 86_400)] = 60
    """How long a worker takes to start. For so long one that was asked for counts as capacity that will come."""
    schedules: Annotated[tuple[Schedule, ...], Field(max_length=16)] = ()
    """Times in which the pool has more workers than minReplicas at least."""
    idle: Idle = Idle()
    """When a pool with minReplicas 0 goes to sleep."""
    priority: Annotated[int, Between(0, 1_000_000)] = 100
    """Which pool grows first where a Budget or a link is short: the one with the higher number, then by name."""
    max_link_utilisation: Fraction = 0.9
    """A remote prefill pool does not grow while its link is used by more than this part of what PrfaaS may use."""
    forecast: Forecast = Forecast()
    """A prediction of the load; off by default."""
