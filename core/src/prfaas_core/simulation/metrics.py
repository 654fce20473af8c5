"""What Prometheus reads of a pool's workers, and the operator's signals made of it.

Workers count as vLLM does; every `scrape_s` the pool's counters and gauges are taken down, and a signal sees no more than that:
a rate is the difference between the first and the last scrape within its window, a quantile is interpolated within a
histogram's bucket. What the real thing adds is left out: counters are the pool's and not each pod's, so that a pod that starts
or goes loses none of its counts, and a scrape takes no time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from prfaas_core import errors
from prfaas_core.autoscaling import (
    Reading,
    ScalingReason,
    SignalName,
    Target,
    TargetType,
    built_in_target_type,
    is_proportional,
)
from prfaas_core.profiles import Profile

TTFT_BOUNDS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
ITL_BOUNDS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Bounds of vLLM's buckets; what is beyond counts in one without a bound."""


_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Metric:
    """A signal that a pool is sized by.

    Attributes:
        target, window_s, quantile: as in `spec.scaling.signals`.
        panic_window_s: of the short window; None: it is not asked for.
        guard: it only keeps the pool from shrinking.
    """

    name: SignalName
    target: float
    window_s: float = 60.0
    quantile: float = 0.9
    panic_window_s: float | None = None
    guard: bool = False

    @classmethod
    def of(cls, target: Target) -> Metric:
        """Return the signal that keeps a target."""
        return cls(target.name, target.value, window_s=target.window_s)

    def __post_init__(self) -> None:
        if self.name is SignalName.QUERY:
            raise errors.InvalidValueError("name", self.name.value, "give a built-in signal; PromQL needs a Prometheus")
        errors.positive(f"{self.name}: target", self.target)
        errors.positive(f"{self.name}: window_s", self.window_s)
        if not 0 < self.quantile < 1:
            raise errors.InvalidValueError(f"{self.name}: quantile", self.quantile, "give a number between 0 and 1")


class Counters:
    """What the workers of a pool have counted since the start of the run."""

    __slots__ = ("answers", "generated", "held_s", "itl", "prefilled_tokens", "prefills", "ttft", "waited_s")

    def __init__(self) -> None:
        self.prefills = self.answers = 0
        self.prefilled_tokens = self.waited_s = 0.0
        self.generated = self.held_s = 0.0
        self.ttft = [0] * (len(TTFT_BOUNDS_S) + 1)
        self.itl = [0] * (len(ITL_BOUNDS_S) + 1)

    def prefilled(self, uncached_tokens: int, waited_s: float, ttft_s: float) -> None:
        """Count a prefill that ended."""
        self.prefills += 1
        self.prefilled_tokens += uncached_tokens
        self.waited_s += waited_s
        self.ttft[bisect_left(TTFT_BOUNDS_S, ttft_s)] += 1

    def answered(self, tokens: int, held_s: float) -> None:
        """Count an answer that ended; its gaps between tokens count as equal, all of them when it ends."""
        self.answers += 1
        self.generated += tokens
        self.held_s += held_s
        if tokens > 1:
            self.itl[bisect_left(ITL_BOUNDS_S, held_s / (tokens - 1))] += tokens - 1


class Scrape(NamedTuple):
    """A pool's counters and gauges at one time.

    Attributes:
        waiting, running: prefills, or decodes.
        held_s: that the answers took, from the first token to the last.
        generated: tokens, those of answers that are not over included.
        kv_use: mean part of the workers' room for KV that is taken, 0 to 1.
    """

    at_s: float
    prefills: int
    prefilled_tokens: float
    waited_s: float
    ttft: tuple[int, ...]
    waiting: int
    running: int
    answers: int
    held_s: float
    generated: float
    itl: tuple[int, ...]
    kv_use: float

    @property
    def in_hand(self) -> int:
        """Requests that have come and are not done."""
        return self.waiting + self.running


class Scrapes:
    """The scrapes of one pool, as far back as its signals look."""

    def __init__(self, metrics: Sequence[Metric], profile: Profile) -> None:
        self._metrics = tuple(metrics)
        self._profile = profile
        self._reach_s = max(metric.window_s for metric in metrics)
        self._scrapes: deque[Scrape] = deque()

    def add(self, scrape: Scrape) -> None:
        """Take one more down."""
        self._scrapes.append(scrape)
        while self._scrapes[0].at_s < scrape.at_s - 2 * self._reach_s:
            self._scrapes.popleft()

    def readings(self, now_s: float) -> tuple[Reading, ...]:
        """Return what the signals are at `now_s`."""
        return tuple(self._reading(metric, now_s) for metric in self._metrics)

    def _reading(self, metric: Metric, now_s: float) -> Reading:
        target_type = built_in_target_type(metric.name)
        value = self._value(metric, metric.window_s, now_s)
        return Reading(
            metric.name.value,
            metric.target,
            target_type,
            value,
            age_s=now_s - self._scrapes[-1].at_s if self._scrapes else 0.0,
            window_s=metric.window_s,
            panic_value=self._value(metric, metric.panic_window_s, now_s) if metric.panic_window_s else None,
            guard=metric.guard,
            work=target_type is TargetType.AVERAGE_VALUE,
            proportional=is_proportional(metric.name),
            fault=ScalingReason.SIGNAL_MISSING if value is None else None,
        )

    def _value(self, metric: Metric, window_s: float, now_s: float) -> float | None:
        """Return a signal over the window that ends now; None where its query returns nothing."""
        seen = [scrape for scrape in self._scrapes if scrape.at_s > now_s - window_s]
        if len(seen) < 2:
            return None
        first, last = seen[0], seen[-1]
        span_s = last.at_s - first.at_s
        prefills, answers = last.prefills - first.prefills, last.answers - first.answers
        nothing = 0.0 if last.in_hand == 0 else None
        match metric.name:
            case SignalName.PREFILL_LOAD:
                if prefills == 0:
                    return nothing
                mean_tokens = (last.prefilled_tokens - first.prefilled_tokens) / prefills
                rate_rps = max(arrived(prefills, first, last) / span_s, last.in_hand / (_PATIENCE * window_s))
                return rate_rps * self._profile.prefill_s(mean_tokens)
            case SignalName.PREFILL_QUEUE_WAIT:
                return (last.waited_s - first.waited_s) / prefills if prefills else nothing
            case SignalName.TIME_TO_FIRST_TOKEN:
                return quantile(TTFT_BOUNDS_S, first.ttft, last.ttft, metric.quantile) if prefills else nothing
            case SignalName.DECODE_REQUESTS:
                in_hand = sum(scrape.in_hand for scrape in seen) / len(seen)
                if answers == 0:
                    return in_hand
                mean_s = (last.held_s - first.held_s) / answers
                steady = arrived(answers, first, last) / span_s * mean_s
                return min(in_hand, max(steady, in_hand / _PATIENCE))
            case SignalName.KV_CACHE_USE:
                return sum(scrape.kv_use for scrape in seen) / len(seen)
            case SignalName.INTER_TOKEN_LATENCY:
                return quantile(ITL_BOUNDS_S, first.itl, last.itl, metric.quantile) if answers else nothing
            case SignalName.GENERATION_TOKENS:
                return (last.generated - first.generated) / span_s
            case _:
                raise AssertionError(metric.name)


def arrived(done: int, first: Scrape, last: Scrape) -> int:
    """Return how many requests came between two scrapes.

    It is those that were done and those that there are more in hand. What waits since before is not counted again at every
    look: it is worked off by what is above the target, and a queue that grew while workers start would order more of them than
    the load needs. Signals only see to it that a backlog is gone within ten windows.
    """
    return max(0, done + last.in_hand - first.in_hand)


def quantile(bounds: Sequence[float], before: Sequence[int], after: Sequence[int], q: float) -> float:
    """Return a quantile of what was counted between two scrapes, as `histogram_quantile` has it.

    Within a bucket it is interpolated; in the one without a bound it is the last bound.
    """
    counts = [later - earlier for earlier, later in zip(before, after, strict=True)]
    rank = q * sum(counts)
    for (low, high), count in zip(pairwise((0.0, *bounds)), counts, strict=False):
        if rank <= count and count:
            return low + (high - low) * rank / count
        rank -= count
    return bounds[-1]
