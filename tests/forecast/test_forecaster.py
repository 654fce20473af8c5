"""What is predicted of pools is shown beside what came, and only ever raises their floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from prfaas_core.autoscaling import ScalingReason
from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.scaling import Forecast, ForecastMode
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import Ref
from prfaas_operator.scaling.forecast import ForecastedPool, Forecaster, Outcome, Task, history
from prfaas_operator.scaling.prometheus import Fault, Series
from prfaas_operator.scaling.queries import Workers

POOL = ForecastedPool(
    Ref("PrefillPool", "t", "p"),
    Workers("west", "t", "p", "prefill"),
    Forecast(mode=ForecastMode.FLOOR, horizon_seconds=600, season_seconds=86_400),
    query="sum(load) # in workers",
    target=0.5,
    most=20,
)
STEP_S = 300.0


@dataclass
class World:
    """A load over time, a clock, and a fit that says what a test wants."""

    now_s: float = 1_000_000.0
    load: float = 4.0
    predicted: float | None = 3.2
    pools: list[ForecastedPool] = field(default_factory=lambda: [POOL])
    fault: Fault | None = None
    points: int = 600
    asked: list[tuple[str, float, float, float]] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.forecaster = Forecaster(
            self.ask, pools=lambda: self.pools, smooth=self.smooth, metrics=self.metrics, clock=lambda: self.now_s
        )

    async def ask(self, workers: Workers, query: str, start_s: float, end_s: float, step_s: float) -> Series | Fault:
        assert workers == POOL.workers
        self.asked.append((query, start_s, end_s, step_s))
        if self.fault is not None:
            return self.fault
        return Series(tuple((end_s - step_s * age, self.load) for age in reversed(range(self.points))))

    async def smooth(self, tasks: Sequence[Task]) -> list[Outcome]:
        self.tasks += tasks
        return [Outcome(self.predicted, seasonal=True, error="" if self.predicted is not None else "it broke")] * len(
            tasks
        )

    async def after(self, seconds: float) -> None:
        self.now_s += seconds
        await self.forecaster.look()

    def metric(self, name: str) -> float | None:
        labels = {"namespace": "t", "kind": "PrefillPool", "pool": "p"}
        return self.metrics.registry.get_sample_value(f"prfaas_operator_{name}", labels)


async def test_a_prediction_is_a_floor_by_the_same_target() -> None:
    world = World()
    await world.after(0)
    (query, start_s, end_s, step_s) = world.asked[0]
    assert query == "avg_over_time((sum(load) # in workers\n)[300s:60s])"
    assert (end_s, step_s, end_s - start_s) == (999_900.0, STEP_S, 3 * 86_400)
    assert world.tasks == [Task((4.0,) * 600, 288, (100 + 600) / STEP_S)]
    floor = world.forecaster.floor(POOL.ref)
    assert floor is not None
    assert (floor.replicas, floor.reason) == (7, ScalingReason.FORECAST_FLOOR)
    assert floor.message.startswith(
        "load 3.2 at 13:56:40 UTC, 7 workers by target 0.5, from what came before, and the season"
    )
    view = world.forecaster.view(POOL.ref)
    assert view is not None
    assert view.target_time is not None
    assert (view.predicted_replicas, view.target_time.timestamp(), view.error) == (7, 1_000_600.0, None)
    assert world.metric("forecast_replicas") == 7


async def test_it_is_looked_at_once_a_step_and_is_no_floor_when_it_is_old() -> None:
    world = World()
    for _ in range(4):
        await world.after(75)
    assert len(world.tasks) == 1
    await world.after(75)
    assert len(world.tasks) == 2
    world.fault = Fault(Reason.PROMETHEUS_UNREACHABLE, "nobody there")
    await world.after(599)
    assert world.forecaster.floor(POOL.ref) is not None
    await world.after(1)
    assert world.forecaster.floor(POOL.ref) is None
    await world.after(300)
    view = world.forecaster.view(POOL.ref)
    assert view is not None
    assert (view.predicted_replicas, view.message) == (None, "no history: nobody there")
    assert world.metric("forecast_replicas") is None


async def test_a_wrong_forecast_stops_at_the_maximum_and_at_nought() -> None:
    world = World(predicted=1e9)
    await world.after(0)
    floor = world.forecaster.floor(POOL.ref)
    assert floor is not None
    assert floor.replicas == POOL.most
    world = World(predicted=0.0)
    await world.after(0)
    floor = world.forecaster.floor(POOL.ref)
    assert floor is not None
    assert floor.replicas == 0


async def test_to_show_is_not_to_act() -> None:
    world = World(pools=[replace(POOL, forecast=POOL.forecast.model_copy(update={"mode": ForecastMode.SHOW}))])
    await world.after(0)
    view = world.forecaster.view(POOL.ref)
    assert view is not None
    assert view.predicted_replicas == 7
    assert world.forecaster.floor(POOL.ref) is None


async def test_predictions_are_compared_with_what_came() -> None:
    """3.2 was predicted, and 4 came: a fifth of it."""
    world = World()
    await world.after(0)
    await world.after(300)
    assert world.metric("forecast_error") is None
    await world.after(600)
    view = world.forecaster.view(POOL.ref)
    assert view is not None
    assert view.error == pytest.approx(0.2)
    assert world.metric("forecast_error") == pytest.approx(0.2)
    world.pools = []
    await world.after(300)
    assert world.forecaster.view(POOL.ref) is None
    assert world.metric("forecast_error") is None


@pytest.mark.parametrize(
    ("changes", "pool", "message"),
    [
        ({}, replace(POOL, query=""), "no signal of the pool is a total (AverageValue), so there is no load to predict; add one"),
        ({"points": 11}, POOL, "too little history: 11 of 12 steps of 300 s"),
        ({"points": 0}, POOL, "no history: the newest point is too old"),
        ({"predicted": None}, POOL, "no prediction: it broke"),
    ],
)  # fmt: skip
async def test_without_a_prediction_it_says_why(changes: dict[str, float], pool: ForecastedPool, message: str) -> None:
    world = World(pools=[pool], **changes)
    await world.after(0)
    view = world.forecaster.view(POOL.ref)
    assert view is not None
    assert (view.predicted_replicas, view.message) == (None, message)
    assert world.forecaster.floor(POOL.ref) is None


def test_holes_are_bridged_and_long_ones_end_the_history() -> None:
    def series(*ages: int) -> Series:
        return Series(tuple((1000.0 - 10 * age, float(age)) for age in sorted(ages, reverse=True)))

    assert history(series(0, 1, 2), 1000, 10) == [2, 1, 0]
    assert history(series(0, 1, 5, 6), 1000, 10) == [6, 5, 4, 3, 2, 1, 0]
    assert history(series(1, 2, 15, 16), 1000, 10) == [float(age) for age in range(16, 0, -1)]
    assert history(series(1, 2, 16, 17), 1000, 10) == [2, 1]
    assert history(series(2, 3), 1000, 10) == [3, 2]
    assert history(series(3, 4), 1000, 10) == []
    assert history(Series(()), 1000, 10) == []
    assert history(Series(((1000.0, -math.pi),)), 1000, 10) == [0.0]
