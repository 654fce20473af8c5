"""Feed a series to the decision function: recorded signals as they are, or a load to a model of the pool.

With a record the loop is open: the signals were measured with other replicas, and what is decided does not change them. With a load
the loop is closed: the pool is simulated, and its signals follow from its workers as Prometheus would read them.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from prfaas_cli.autoscaling_pool import ScaledPool
from prfaas_cli.autoscaling_series import DEMAND, PANIC, READY, Series
from prfaas_core import errors, simulation
from prfaas_core.autoscaling import Floor, Observed, Proposal, Reading, ScalingDecision, SignalName
from prfaas_core.simulation import (
    Arrival,
    DecodePool,
    Metric,
    PrefillPool,
    Scaling,
    Scenario,
    results,
    traffic,
)
from prfaas_core.simulation.scalers import Core, Hpa, Scaler, Sized

PRFAAS, HPA = "PrfaaS", "HPA"
SYNTHETIC_BEGIN: Final = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
"""When a series that does not say its date begins, for schedules: a Monday at midnight."""
_UNIX_S: Final = 1e9
_TAIL_S: Final = 60.0
_SLACK: Final = 3.0
"""The side of the deployment that is not looked at has so many times the workers that its mean load takes."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the pool.

    Attributes:
        before, replicas: what was asked for before it, and from it on.
        reason: why; empty for an HPA, which gives none that can be compared.
        readings, proposals: what was seen, and what each signal asks for.
    """

    at_s: float
    before: int
    replicas: int
    ready: int
    wanted: int | None
    reason: str
    message: str
    readings: tuple[Reading, ...]
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class Requests:
    """What came of the requests of a closed loop: how many there were, and how many missed their limit."""

    count: int
    missed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one autoscaler did.

    Attributes:
        replica_s: time of workers; in a closed loop those that start or drain are included.
        requests: None in an open loop.
    """

    name: str
    looks: tuple[Look, ...]
    replica_s: float
    requests: Requests | None = None

    @property
    def changes(self) -> tuple[Look, ...]:
        """Return the looks that changed something."""
        return tuple(look for look in self.looks if look.replicas != look.before)

    @property
    def turns_s(self) -> tuple[float, ...]:
        """Return when growth followed shrinking, or the other way round."""
        return results.turns_s((look.at_s, size) for look in self.changes for size in (look.before, look.replicas))

    @property
    def most_turns_an_hour(self) -> int:
        """Return the most turns within any hour."""
        return results.most_within(self.turns_s, 3600.0)


@dataclass(frozen=True, slots=True)
class Load:
    """What a closed loop is driven by.

    Attributes:
        arrivals: makes the requests, the same at every call.
        length_s: how long they take.
        rps, answer_tokens, prompt_tokens: means, of the busiest time.
        slo_ttft_s: time to the first token that a request may take.
    """

    arrivals: Callable[[], Iterable[Arrival]]
    length_s: float
    rps: float
    prompt_tokens: float
    answer_tokens: float
    slo_ttft_s: float


@dataclass(slots=True)
class _Recorder:
    """A scaler that remembers what it was asked and what it answered."""

    scaler: Scaler
    floors: Callable[[float], tuple[Floor, ...]]
    begin_s: float = 0.0
    looks: list[Look] = field(default_factory=list)

    def __call__(self, observed: Observed, now_s: float) -> Sized:
        observed = replace(observed, floors=self.floors(now_s))
        answer = self.scaler(observed, now_s)
        decided = answer if isinstance(answer, ScalingDecision) else None
        self.looks.append(
            Look(
                now_s,
                observed.replicas,
                answer.replicas,
                observed.ready_replicas,
                decided.wanted if decided else None,
                decided.reason.value if decided else "",
                decided.message if decided else "",
                observed.readings,
                decided.proposals if decided else (),
            )
        )
        return answer


def scalers(pool: ScaledPool, *, against_hpa: bool) -> dict[str, Callable[[], Scaler]]:
    """Return who decides, by name; each call makes a new one that remembers nothing."""
    found: dict[str, Callable[[], Scaler]] = {PRFAAS: lambda: Core(pool.settings)}
    if against_hpa:
        found[HPA] = lambda: Hpa(pool.settings)
    return found


def open_loop(pool: ScaledPool, series: Series, replicas: int, name: str, make: Callable[[], Scaler]) -> Outcome:
    """Return what would have been decided on recorded signals; pods are ready after `startupSeconds`."""
    recorder = _recorder(pool, name, make, series.begin_s)
    now_s, replica_s = series.begin_s, 0.0
    ready_from_s = [-math.inf] * replicas
    while now_s <= series.end_s:
        recorded = _recorded(series, READY, now_s)
        observed = Observed(
            replicas,
            int(recorded) if recorded is not None else sum(1 for from_s in ready_from_s if from_s <= now_s),
            tuple(_readings(pool, series, now_s)),
            demand=_recorded(series, DEMAND, now_s),
        )
        answer = recorder(observed, now_s)
        # Those that were asked for last go first.
        ready_from_s = ready_from_s[: answer.replicas]
        ready_from_s += [now_s + pool.settings.startup_s] * (answer.replicas - len(ready_from_s))
        replicas = answer.replicas
        replica_s += replicas * (min(answer.next_look_s, series.end_s) - now_s)
        now_s = answer.next_look_s
    return Outcome(name, tuple(recorder.looks), replica_s)


def closed_loop(
    pool: ScaledPool, load: Load, replicas: int, scrape_s: float, name: str, make: Callable[[], Scaler]
) -> Outcome:
    """Return what a model of the pool does under a load.

    Raises:
        InvalidValueError: a signal that the model does not have, or whose window never holds the two scrapes of a rate.
    """
    recorder = _recorder(pool, name, make, 0.0)
    scaling = Scaling(_metrics(pool, scrape_s), recorder, start_up_s=pool.settings.startup_s, scrape_s=scrape_s)
    profile = pool.profile
    # The other side is as large as it takes not to be in the way.
    prefill = math.ceil(_SLACK * load.rps * profile.prefill_s(load.prompt_tokens)) + 1
    decode = math.ceil(_SLACK * load.rps * load.answer_tokens * profile.step_s / profile.decode_slots) + 1
    scenario = Scenario(
        decode=DecodePool(
            "decode",
            profile,
            decode if pool.prefills else replicas,
            interference=0.0,
            scaling=None if pool.prefills else scaling,
        ),
        local=PrefillPool(
            "prefill", profile, replicas if pool.prefills else prefill, scaling=scaling if pool.prefills else None
        ),
        threshold_tokens=profile.max_model_len_tokens,
        absorb=False,
    )
    result = simulation.simulate(scenario, load.arrivals(), load.length_s + _TAIL_S)
    missed = sum(1 for ttft_s in result.ttft_s if not ttft_s <= load.slo_ttft_s)
    (replica_s,) = result.replica_s.values()
    return Outcome(name, tuple(recorder.looks), replica_s, Requests(len(result.ttft_s), missed))


def diurnal_load(
    pool: ScaledPool, hours: float, rps: float | None, prompt_tokens: int, answer_tokens: int, slo_s: float, seed: int
) -> Load:
    """Return a day's ups and downs; without a rate the busiest time takes four fifths of `maxReplicas`."""
    swing = 0.7
    mean_rps = rps if rps is not None else 0.8 * _most_rps(pool, prompt_tokens, answer_tokens) / (1 + swing)

    def arrivals() -> Iterable[Arrival]:
        return traffic.diurnal(
            Random(seed),  # noqa: S311  a simulation has to be repeatable
            hours * 3600, mean_rps,
            inputs=_about(prompt_tokens), outputs=_about(answer_tokens), swing=swing,
        )  # fmt: skip

    return Load(arrivals, hours * 3600, mean_rps * (1 + swing), prompt_tokens, answer_tokens, slo_s)


def step_load(
    pool: ScaledPool, what: str, factor: float, hours: float, rps: float | None, prompt_tokens: int,
    answer_tokens: int, slo_s: float, seed: int,
) -> Load:  # fmt: skip
    """Return a load of which `what` (prompts, answers or requests) becomes `factor` times as much after a third of the time.

    Without a rate the pool needs four fifths of `maxReplicas` in the end.
    """
    prompts = prompt_tokens * (factor if what == "prompts" else 1)
    answers = answer_tokens * (factor if what == "answers" else 1)
    rate = factor if what == "requests" else 1
    base_rps = rps if rps is not None else 0.8 * _most_rps(pool, prompts, answers) / rate
    at_s, end_s = hours * 1200, hours * 3600

    def arrivals() -> Iterable[Arrival]:
        random = Random(seed)  # noqa: S311  a simulation has to be repeatable
        now_s = 0.0
        before, after = (_about(prompt_tokens), _about(answer_tokens)), (_about(prompts), _about(answers))
        while (now_s := now_s + random.expovariate(base_rps * (rate if now_s >= at_s else 1))) < end_s:
            inputs, outputs = after if now_s >= at_s else before
            yield now_s, inputs(random), outputs(random), ()

    return Load(arrivals, end_s, base_rps * rate, prompts, answers, slo_s)


def _about(tokens: float) -> traffic.Sampler:
    """Return a sampler of lengths about a mean, a quarter up or down."""
    errors.positive("tokens", tokens)
    return lambda random: max(1, round(tokens * random.uniform(0.75, 1.25)))


def _most_rps(pool: ScaledPool, prompt_tokens: float, answer_tokens: float) -> float:
    """Return the requests a second that `maxReplicas` take at the target of the first signal that counts work."""
    profile = pool.profile
    if pool.prefills:
        load = _target(pool, SignalName.PREFILL_LOAD)
        return pool.settings.max_replicas * (load or 0.7) / profile.prefill_s(prompt_tokens)
    requests = _target(pool, SignalName.DECODE_REQUESTS) or 0.75 * profile.decode_slots
    return pool.settings.max_replicas * min(requests, profile.decode_slots) / (answer_tokens * profile.step_s)


def _target(pool: ScaledPool, name: SignalName) -> float | None:
    return next((float(sized.signal.target_value) for sized in pool.signals if sized.signal.name is name), None)


def _metrics(pool: ScaledPool, scrape_s: float) -> tuple[Metric, ...]:
    for sized in pool.signals:
        if sized.signal.name is SignalName.QUERY:
            raise errors.InvalidValueError(
                f"{pool.name}: signal {sized.title}",
                sized.signal.query,
                "the model of a pool has only built-in signals; replay a record of it with --csv",
            )
    windows = [(float(sized.signal.window_s), sized.title) for sized in pool.signals]
    if pool.panic_window_s is not None:
        windows.append((pool.panic_window_s, "panic"))
    window_s, title = min(windows)
    if window_s < 2 * scrape_s:
        raise errors.InvalidValueError(
            "--scrape-s",
            scrape_s,
            f"give at most {window_s / 2:g}: {title} of {pool.name} has a window of {window_s:g} s",
        )
    return tuple(
        Metric(
            sized.signal.name,
            float(sized.signal.target_value),
            window_s=sized.signal.window_s,
            quantile=sized.signal.latency_quantile,
            panic_window_s=pool.panic_window_s,
            guard=sized.guard,
        )
        for sized in pool.signals
    )


def _recorder(pool: ScaledPool, name: str, make: Callable[[], Scaler], begin_s: float) -> _Recorder:
    begin = SYNTHETIC_BEGIN if begin_s < _UNIX_S else datetime.datetime.fromtimestamp(0, datetime.UTC)

    def floors(now_s: float) -> tuple[Floor, ...]:
        # Schedules are PrfaaS's; an HPA has none.
        return pool.floors(begin + datetime.timedelta(seconds=now_s)) if name == PRFAAS else ()

    return _Recorder(make(), floors)


def _recorded(series: Series, column: str, now_s: float) -> float | None:
    samples = series.columns.get(column)
    found = samples.at(now_s) if samples is not None else None
    return found[0] if found is not None else None


def _readings(pool: ScaledPool, series: Series, now_s: float) -> Iterable[Reading]:
    for sized in pool.signals:
        samples = series.columns.get(sized.title)
        if samples is None and sized.guard:
            continue
        found = samples.at(now_s) if samples is not None else None
        yield Reading(
            sized.title,
            float(sized.signal.target_value),
            sized.target_type,
            found[0] if found is not None else None,
            age_s=found[1] if found is not None else 0.0,
            window_s=sized.signal.window_s,
            panic_value=_recorded(series, f"{sized.title}{PANIC}", now_s),
            guard=sized.guard,
            work=sized.work,
        )
