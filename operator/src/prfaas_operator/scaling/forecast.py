"""What the load of a pool will be, from what it was: `spec.scaling.forecast`.

The first total among a pool's signals (`AverageValue`) is its load. Its history comes from Prometheus, as the mean of each
step; `smoothing` continues it, and by the same target the continuation is a number of workers. It is shown beside
what happened, and with mode `Floor` the pool has at least so many: a forecast never takes a worker away, and never goes
beyond `maxReplicas`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from prfaas_core.autoscaling import Floor, ScalingReason
from prfaas_operator.api.scaling import Forecast, ForecastMode
from prfaas_operator.api.scaling_status import LoadForecast
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import Ref
from prfaas_operator.scaling.prometheus import Fault, Series
from prfaas_operator.scaling.queries import Workers
from prfaas_operator.scaling.smoothing import LEAST_POINTS

_log = structlog.get_logger(__name__)

_STEPS_A_SEASON: Final = 288
_LEAST_STEP_S: Final = 15.0
_SEASONS: Final = 3
_MEANS_A_STEP: Final = 5
# A hole in the history of up to so many steps is bridged; behind a longer one it begins anew.
_HOLE_STEPS: Final = 12
# For so many steps a prediction, and the newest point of a history, are of now.
_FRESH_STEPS: Final = 2
_KEPT_PREDICTIONS: Final = _STEPS_A_SEASON
_ROUND_S: Final = 15.0
_FIT_LIMIT_S: Final = 120.0

# Returns a series of workers by a query, from one Unix time to another, with a step in seconds.
AskHistory = Callable[[Workers, str, float, float, float], Awaitable[Series | Fault]]


@dataclass(frozen=True, slots=True)
class ForecastedPool:
    """A pool whose load is predicted.

    Attributes:
        query: PromQL of its load; empty where none of its signals is a total.
        target: load of one worker.
    """

    ref: Ref
    workers: Workers
    forecast: Forecast
    query: str
    target: float
    most: int

    @property
    def step_s(self) -> float:
        """Seconds of one step of its history."""
        return max(_LEAST_STEP_S, math.ceil(self.forecast.season_seconds / _STEPS_A_SEASON))


@dataclass(frozen=True, slots=True)
class Task:
    """A history to continue: one value a step, and how many steps ahead; `season` steps make a season."""

    values: tuple[float, ...]
    season: int
    ahead: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A load, and whether seasons were told apart; or why there is none."""

    load: float | None
    seasonal: bool = False
    error: str = ""


Smooth = Callable[[Sequence[Task]], Awaitable[list[Outcome]]]


@dataclass(slots=True)
class _State:
    pool: ForecastedPool
    looked_at_s: float = -math.inf
    predictions: list[tuple[float, float]] = field(default_factory=list)  # Unix time that is predicted, load
    past: list[tuple[float, float]] = field(default_factory=list)  # predicted load, and the one that came
    replicas: int | None = None
    replicas_until_s: float = -math.inf
    view: LoadForecast = field(default_factory=lambda: LoadForecast(message="the history was not read yet"))


class Forecaster:
    """Predicts the load of every pool with a forecast, once a step of its history."""

    def __init__(
        self,
        ask: AskHistory,
        *,
        pools: Callable[[], list[ForecastedPool]],
        smooth: Smooth,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ask = ask
        self._pools = pools
        self._smooth = smooth
        self._metrics = metrics
        self._clock = clock
        self._states: dict[Ref, _State] = {}

    async def run(self) -> None:
        """Predict until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001  a forecast is an extra; nothing ends for want of one
                _log.exception("no forecast")
            await asyncio.sleep(_ROUND_S)

    def floor(self, ref: Ref) -> Floor | None:
        """Return what a pool with mode `Floor` has at least, while its prediction is of now."""
        state = self._states.get(ref)
        if state is None or state.pool.forecast.mode is not ForecastMode.FLOOR or state.replicas is None:
            return None
        if self._clock() >= state.replicas_until_s:
            return None
        return Floor(state.replicas, ScalingReason.FORECAST_FLOOR, state.view.message)

    def view(self, ref: Ref) -> LoadForecast | None:
        """Return what is to be seen of a pool's forecast; None with mode `Off`."""
        state = self._states.get(ref)
        return state.view if state is not None else None

    async def look(self) -> None:
        """Predict for the pools for which it is time."""
        pools = {pool.ref: pool for pool in self._pools()}
        for gone in self._states.keys() - pools.keys():
            del self._states[gone]
            self._metrics.unforecast(gone.namespace, gone.kind, gone.name)
        due = []
        for ref, pool in pools.items():
            state = self._states.setdefault(ref, _State(pool))
            if (state.pool.query, state.pool.target, state.pool.forecast) != (pool.query, pool.target, pool.forecast):
                # What was predicted of something else tells nothing.
                state = self._states[ref] = _State(pool)
            state.pool = pool
            if self._clock() - state.looked_at_s >= pool.step_s:
                due.append(state)
        # One after the other: decisions ask the same servers, and do not wait behind histories.
        tasks = [(state, task) for state in due if (task := await self._task(state)) is not None]
        if tasks:
            outcomes = await self._smooth([task for _, task in tasks])
            for (state, _), outcome in zip(tasks, outcomes, strict=True):
                self._conclude(state, outcome)

    async def _task(self, state: _State) -> Task | None:
        """Read the history of a pool, and return what is to be continued; None where that cannot be, and the view says why."""
        pool, now_s = state.pool, self._clock()
        state.looked_at_s = now_s
        if not pool.query:
            self._say(state, "no signal of the pool is a total (AverageValue), so there is no load to predict; add one")
            return None
        step_s = pool.step_s
        end_s = math.floor(now_s / step_s) * step_s
        start_s = end_s - _SEASONS * math.ceil(pool.forecast.season_seconds / step_s) * step_s
        inner_s = max(5, round(step_s / _MEANS_A_STEP))
        # A comment at the query's end would swallow the parenthesis.
        query = f"avg_over_time(({pool.query}\n)[{step_s:g}s:{inner_s}s])"
        found = await self._ask(pool.workers, query, start_s, end_s, step_s)
        if isinstance(found, Fault):
            self._say(state, f"no history: {found.message}")
            return None
        values = history(found, end_s, step_s)
        if not values:
            self._say(state, "no history: the newest point is too old")
            return None
        self._compare(state, found)
        if len(values) < LEAST_POINTS:
            self._say(state, f"too little history: {len(values)} of {LEAST_POINTS} steps of {step_s:g} s")
            return None
        # A point is the mean of the step before it.
        ahead = (now_s - end_s + pool.forecast.horizon_seconds) / step_s
        return Task(tuple(values), round(pool.forecast.season_seconds / step_s), ahead)

    def _conclude(self, state: _State, outcome: Outcome) -> None:
        pool, now_s = state.pool, state.looked_at_s
        if outcome.load is None:
            self._say(state, f"no prediction: {outcome.error}")
            return
        at_s = now_s + pool.forecast.horizon_seconds
        asked = math.ceil(outcome.load / pool.target - 1e-9)
        state.predictions = [*state.predictions, (at_s, outcome.load)][-_KEPT_PREDICTIONS:]
        state.replicas = min(asked, pool.most)
        state.replicas_until_s = now_s + max(_FRESH_STEPS * pool.step_s, _ROUND_S)
        at = datetime.fromtimestamp(at_s, UTC).replace(microsecond=0)
        way = (
            "from what came before, and the season"
            if outcome.seasonal
            else "from what came before, less than two seasons"
        )
        message = f"load {outcome.load:.4g} at {at:%H:%M:%S} UTC, {asked} workers by target {pool.target:g}, {way}"
        state.view = LoadForecast(
            predicted_replicas=state.replicas, target_time=at, error=_error(state.past), message=message
        )
        self._metrics.forecast(pool.ref.namespace, pool.ref.kind, pool.ref.name, state.replicas, state.view.error)

    def _compare(self, state: _State, found: Series) -> None:
        """Take from the predictions those whose time has come, and see what came."""
        newest_s = found.samples[-1][0] if found.samples else -math.inf
        for at_s, load in state.predictions:
            if at_s <= newest_s and (came := _between(found, at_s, state.pool.step_s)) is not None:
                state.past.append((load, came))
        state.past = state.past[-_KEPT_PREDICTIONS:]
        state.predictions = [item for item in state.predictions if item[0] > newest_s]

    def _say(self, state: _State, why: str) -> None:
        """Say why there is no prediction; one of before goes on until it is old."""
        pool = state.pool
        fresh = state.replicas is not None and self._clock() < state.replicas_until_s
        if not fresh:
            state.replicas = None
        state.view = LoadForecast(
            predicted_replicas=state.replicas,
            target_time=state.view.target_time if fresh else None,
            error=_error(state.past),
            message=why,
        )
        self._metrics.forecast(pool.ref.namespace, pool.ref.kind, pool.ref.name, state.replicas, state.view.error)


def history(found: Series, end_s: float, step_s: float) -> list[float]:
    """Return one value a step up to the newest point: the part behind the last long hole, short ones bridged by lines.

    Empty where the newest point is older than two steps.
    """
    points = {round((end_s - at_s) / step_s): max(value, 0.0) for at_s, value in found.samples}
    ages = sorted(age for age in points if age >= 0)
    if not ages or ages[0] > _FRESH_STEPS:
        return []
    values = [points[ages[0]]]
    for newer, older in itertools.pairwise(ages):
        missing = older - newer - 1
        if missing > _HOLE_STEPS:
            break
        rise = (points[older] - points[newer]) / (older - newer)
        values += [points[newer] + rise * (place + 1) for place in range(missing)]
        values.append(points[older])
    return values[::-1]


async def smoothed(tasks: Sequence[Task]) -> list[Outcome]:
    """Continue histories in another process: see `smoothing`."""
    if importlib.util.find_spec("statsmodels") is None:
        missing = "statsmodels is not installed; install prfaas[operator,forecast], or set forecast.mode Off"
        return [Outcome(None, error=missing)] * len(tasks)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prfaas_operator.scaling.smoothing",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    asked = [{"values": task.values, "season": task.season, "ahead": task.ahead} for task in tasks]
    try:
        async with asyncio.timeout(_FIT_LIMIT_S + len(tasks)):
            output, errors = await process.communicate(json.dumps(asked).encode())
    except TimeoutError:
        return [Outcome(None, error=f"no fit within {_FIT_LIMIT_S + len(tasks):g} s")] * len(tasks)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        _log.error("smoothing failed", status=process.returncode, output=errors.decode(errors="replace")[-2000:])
        return [Outcome(None, error=f"the fit ended with status {process.returncode}")] * len(tasks)
    answers: list[dict[str, Any]] = json.loads(output)
    return [Outcome(answer.get("load"), answer.get("seasonal", False), answer.get("error", "")) for answer in answers]


def _between(found: Series, at_s: float, step_s: float) -> float | None:
    """Return the load at a time, on the line between the points around it; None in a hole."""
    before = max((point for point in found.samples if point[0] <= at_s), default=None)
    after = min((point for point in found.samples if point[0] >= at_s), default=None)
    if before is None or after is None or after[0] - before[0] > _FRESH_STEPS * step_s:
        return None
    if after[0] == before[0]:
        return after[1]
    return before[1] + (after[1] - before[1]) * (at_s - before[0]) / (after[0] - before[0])


def _error(past: Sequence[tuple[float, float]]) -> float | None:
    """Return the mean absolute error of predictions, relative to the mean of what came; None as long as nothing came."""
    came = sum(load for _, load in past)
    if came <= 0:
        return None
    return float(f"{sum(abs(predicted - load) for predicted, load in past) / came:.4g}")
