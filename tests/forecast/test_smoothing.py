"""Series that repeat themselves are continued better than by their last value, and no fit runs away."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_operator.scaling.forecast import Task, smoothed
from prfaas_operator.scaling.smoothing import LEAST_POINTS, predict

pytestmark = pytest.mark.slow

DAY = 96


def diurnal(step: int) -> float:
    """Return the load of an office's day: a morning that rises, a peak after noon, a quiet night."""
    hour = 24 * step / DAY
    return 20 + 14 * math.sin(2 * math.pi * (hour - 9) / 24) + 5 * math.sin(4 * math.pi * (hour - 8) / 24)


def noisy(load: Callable[[int], float], steps: int, seed: int) -> list[float]:
    chance = random.Random(seed)
    return [max(0.0, load(step) * chance.gauss(1, 0.08)) for step in range(steps)]


@pytest.mark.parametrize(("ahead", "better"), [(2, 0.9), (6, 0.5)])
def test_a_day_is_continued_better_than_by_its_last_value(ahead: int, better: float) -> None:
    """Over the origins of one day, after three others; the further ahead, the clearer."""
    errors, naive = [], []
    values = noisy(diurnal, 4 * DAY + ahead, seed=7)
    for origin in range(3 * DAY, 4 * DAY, 5):
        found, seasonal = predict(values[origin - 3 * DAY : origin], DAY, ahead)
        assert seasonal
        errors.append(abs(found - values[origin - 1 + ahead]))
        naive.append(abs(values[origin - 1] - values[origin - 1 + ahead]))
    assert sum(errors) < better * sum(naive)


def test_without_two_seasons_there_is_none() -> None:
    values = noisy(diurnal, 2 * DAY - 1, seed=3)
    found, seasonal = predict(values, DAY, 1.0)
    assert not seasonal
    assert found == pytest.approx(values[-1], rel=0.5)
    rising = [10.0 + step for step in range(LEAST_POINTS)]
    assert rising[-1] < predict(rising, DAY, 2.5)[0] < rising[-1] + 3


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 1e6), min_size=LEAST_POINTS, max_size=40), st.sampled_from([6, 12, 96]), st.floats(0.1, 20)
)  # fmt: skip
def test_a_prediction_is_a_number_near_what_was_seen(values: list[float], season: int, ahead: float) -> None:
    found, _ = predict(values, season, ahead)
    assert 0 <= found <= 2 * max(values) + 1e-6


async def test_one_series_that_cannot_be_fitted_takes_nothing_from_the_others() -> None:
    """The process that fits is a real one."""
    steady, broken = Task((5.0,) * 30, 96, 2.0), Task((), 96, 2.0)
    good, bad = await smoothed([steady, broken])
    assert good.load == pytest.approx(5.0)
    assert bad.load is None
    assert "ValueError" in bad.error


async def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (found,) = await smoothed([Task((5.0,) * 30, 96, 2.0)])
    assert found.error == "statsmodels is not installed; install prfaas[operator,forecast], or set forecast.mode Off"
