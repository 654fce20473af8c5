"""What the signals of a pool say at one look, or why they say nothing.

All built-in signals of a pool are one query: their values, and beside each what tells whether it can be believed. How many
pods report and how old their newest samples are is counted by Prometheus, by its own clock, because a sum shows neither. A query
of the user's own is asked apart, so that one that is refused takes nothing with it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from prfaas_core.autoscaling import (
    Reading,
    ScalingReason,
    SignalName,
    TargetType,
    built_in_target_type,
    is_proportional,
)
from prfaas_core.profiles import Profile
from prfaas_operator.api.model_profile import EngineName
from prfaas_operator.scaling.prometheus import Fault, Prometheus, Vector
from prfaas_operator.scaling.queries import Workers, sglang, vllm
from prfaas_operator.scaling.queries.built_in import LIMITS, Asking, BuiltIn
from prfaas_operator.scaling.views import Measured

_PART: Final = "prfaas_part"
# The engines of this project have vLLM's metrics.
_SIGNALS: Final = {
    EngineName.VLLM: vllm.SIGNALS,
    EngineName.SIM: vllm.SIGNALS,
    EngineName.TINY: vllm.SIGNALS,
    EngineName.SGLANG: sglang.SIGNALS,
}


@dataclass(frozen=True, slots=True)
class Question:
    """One signal of a pool.

    Attributes:
        name: tells it from the pool's others.
        target: in its own unit.
        window_s: what built-in signals are averaged over; of a query, how far back it looks.
        quantile: of latencies.
        query, target_type: with the kind Query only.
        guard: it only keeps the pool from shrinking.
    """

    name: str
    kind: SignalName
    target: float
    window_s: int
    quantile: float = 0.9
    query: str | None = None
    target_type: TargetType = TargetType.VALUE
    guard: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """The pool that is looked at.

    Attributes:
        engine, profile: of its workers.
        ready_replicas: workers that serve.
        expected_replicas: fewer that report make a signal incomplete: a worker that has just become ready has next to no load,
            and may not have been scraped twice.
        panic_window_s: of the short window; None: it is not asked for.
        stale_after_s: age from which a worker's newest sample no longer counts.
    """

    workers: Workers
    engine: EngineName
    profile: Profile
    ready_replicas: int
    expected_replicas: int
    signals: tuple[Question, ...]
    panic_window_s: int | None = None
    stale_after_s: float = 60.0


async def observe(server: Prometheus, subject: Subject) -> tuple[Measured, ...]:
    """Read the signals of a pool; what cannot be read, or not be believed, is a reading with a fault."""
    look = _Look(subject)
    async with asyncio.TaskGroup() as group:
        built_in = group.create_task(_select(server, look.query))
        own = {signal.name: group.create_task(_own(server, signal, subject)) for signal in look.own}
    return tuple(
        own[signal.name].result() if signal.name in own else look.observation(signal, built_in.result())
        for signal in subject.signals
    )


async def _select(server: Prometheus, query: str) -> Vector | Fault:
    return await server.select(query) if query else Vector(())


async def _own(server: Prometheus, signal: Question, subject: Subject) -> Measured:
    """Read a query of the user's own; an age is known where its samples still have their times."""
    query = signal.query or ""
    sample = await server.ask(query)
    if sample.value is None:
        assert sample.reason is not None  # noqa: S101  for the type checker
        return Measured(_faulty(signal, signal.target_type, ScalingReason(sample.reason), sample.message), query)
    if sample.value < 0:
        return Measured(_faulty(signal, signal.target_type, *_negative(sample.value)), query)
    # A comment at the query's end would swallow the parenthesis.
    age = await server.ask(f"time() - timestamp({query}\n)")
    age_s = max(age.value or 0.0, 0.0)
    if age_s > subject.stale_after_s:
        return Measured(_faulty(signal, signal.target_type, *_stale(age_s), age_s=age_s), query)
    reading = Reading(
        signal.name, signal.target, signal.target_type, sample.value, age_s=age_s, window_s=signal.window_s,
        guard=signal.guard, work=signal.target_type is TargetType.AVERAGE_VALUE,
    )  # fmt: skip
    return Measured(reading, query)


class _Look:
    """The one query about a pool's built-in signals, and what its answer says."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.own = tuple(signal for signal in subject.signals if signal.kind is SignalName.QUERY)
        self._parts = _Parts()
        self._labels: dict[str, _Labels] = {}
        self._built_in: dict[str, BuiltIn] = {}
        for signal in subject.signals:
            if signal.kind is not SignalName.QUERY:
                self._built_in[signal.name], self._labels[signal.name] = self._ask(signal)
        # Without workers there is nothing to ask.
        self.query = self._parts.query if subject.ready_replicas else ""

    def observation(self, signal: Question, answer: Vector | Fault) -> Measured:
        """Return what the answer says about a signal."""
        built_in, subject = self._built_in[signal.name], self._subject
        if not subject.ready_replicas:
            found: Reading | tuple[ScalingReason, str] = ScalingReason.SIGNAL_MISSING, "no worker is ready"
        elif isinstance(answer, Fault):
            found = ScalingReason(answer.reason), answer.message
        else:
            found = self._reading(signal, answer.by_label(_PART))
        if not isinstance(found, Reading):
            found = _faulty(signal, built_in_target_type(signal.kind), *found)
        return Measured(found, built_in.value)

    def _ask(self, signal: Question) -> tuple[BuiltIn, _Labels]:
        subject, part = self._subject, self._parts.add
        build = _SIGNALS[subject.engine][signal.kind]

        def over(window_s: int) -> BuiltIn:
            return build(Asking(subject.workers.having, window_s, signal.quantile, subject.profile))

        found = over(signal.window_s)
        series = " or ".join(found.reporting)
        # Of a selector itself: of anything else the time is that of the evaluation.
        age = f"time() - ({' or '.join(f'timestamp({selector})' for selector in found.reporting)})"
        fresh = f"{age} <= {subject.stale_after_s:g}"
        # With one sample there is no rate yet.
        twice = " or ".join(f"count_over_time({selector}[{signal.window_s}s]) > 1" for selector in found.reporting)
        return found, _Labels(
            value=part(found.value),
            panic=part(over(subject.panic_window_s).value) if subject.panic_window_s is not None else None,
            pods=part(f"count(count by (pod) ({series}))"),
            reporting=part(f"count(count by (pod) (({fresh}) and ({twice})))"),
            oldest_s=part(f"max({age})"),
            age_s=part(f"max({fresh})"),
            scrapes=part(f'max(count by (pod) (count_values by (pod) ("age", {age})))'),
            least=tuple(part(f"min({gauge})") for gauge in found.gauges),
            bounded=part(found.bounded) if found.bounded is not None else None,
        )

    def _reading(self, signal: Question, found: Mapping[str, float]) -> Reading | tuple[ScalingReason, str]:
        labels, subject = self._labels[signal.name], self._subject
        pods, reporting = found.get(labels.pods, 0), found.get(labels.reporting, 0)
        if pods == 0:
            return ScalingReason.SIGNAL_MISSING, f"none of {subject.ready_replicas} ready workers reports it"
        if reporting < subject.expected_replicas:
            oldest_s = found.get(labels.oldest_s, 0.0)
            if pods >= subject.expected_replicas and oldest_s > subject.stale_after_s:
                return _stale(oldest_s)
            return (
                ScalingReason.SIGNAL_INCOMPLETE,
                f"{reporting:g} of {subject.expected_replicas} workers have two samples within {signal.window_s} s",
            )
        if found.get(labels.scrapes, 1) > 1:
            return (
                ScalingReason.SIGNAL_INVALID,
                "series of a worker are there more than once; scrape each pod once, and deduplicate replicas of Prometheus",
            )
        value = found.get(labels.value)
        if value is None:
            return (
                ScalingReason.SIGNAL_MISSING,
                f"requests are in hand and none ended within {signal.window_s} s, or a metric of the query is missing",
            )
        if not math.isfinite(value):
            return ScalingReason.SIGNAL_INVALID, f"the value is {value}"
        least = min((value, *(found[label] for label in labels.least if label in found)))
        if least < 0:
            return _negative(least)
        bounded = value if labels.bounded is None else found.get(labels.bounded, 0.0)
        most = LIMITS[signal.kind]
        limit = most.of(subject.profile) * (reporting if most.per_worker else 1)
        if not bounded <= limit:
            return (
                ScalingReason.SIGNAL_IMPLAUSIBLE,
                f"{bounded:.4g} is beyond {limit:.4g} {most.unit}; is its unit another, or the profile's?",
            )
        target_type = built_in_target_type(signal.kind)
        panic = found.get(labels.panic) if labels.panic is not None else None
        return Reading(
            signal.name, signal.target, target_type, value,
            age_s=max(found.get(labels.age_s, 0.0), 0.0),
            window_s=signal.window_s,
            panic_value=panic if panic is not None and math.isfinite(panic) and panic >= 0 else None,
            guard=signal.guard,
            work=target_type is TargetType.AVERAGE_VALUE,
            proportional=is_proportional(signal.kind),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Labels:
    """Which part of the answer is what about a signal; ages are in seconds, by the server's clock."""

    value: str
    panic: str | None
    pods: str  # that have the series, however old
    reporting: str  # of those, that have two samples and a fresh one
    oldest_s: str  # of their newest samples
    age_s: str  # the same among the fresh ones
    scrapes: str  # most instants at which the newest samples of one pod were taken
    least: tuple[str, ...]
    bounded: str | None


@dataclass(slots=True)
class _Parts:
    """Expressions with one number each, asked together; the same expression is asked once."""

    _labels: dict[str, str] = field(default_factory=dict)

    def add(self, expression: str) -> str:
        return self._labels.setdefault(expression, str(len(self._labels)))

    @property
    def query(self) -> str:
        return "\nor ".join(
            f'label_replace({expression}, "{_PART}", "{label}", "", "")' for expression, label in self._labels.items()
        )


def _faulty(
    signal: Question, target_type: TargetType, fault: ScalingReason, message: str, age_s: float = 0.0
) -> Reading:
    return Reading(
        signal.name, signal.target, target_type, None, age_s=age_s, window_s=signal.window_s, guard=signal.guard,
        fault=fault, message=message,
    )  # fmt: skip


def _stale(age_s: float) -> tuple[ScalingReason, str]:
    return ScalingReason.SIGNAL_STALE, f"the newest sample of a worker is {age_s:.0f} s old"


def _negative(value: float) -> tuple[ScalingReason, str]:
    return ScalingReason.SIGNAL_INVALID, f"the value is {value:g}, and cannot be negative"
