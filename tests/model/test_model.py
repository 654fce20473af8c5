"""Invariants of the steady-state model and of the search."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core import errors, model, planner
from prfaas_core.case_study import LENGTHS, PRFAAS
from prfaas_core.lengths import Lengths
from prfaas_core.profiles import Curve

SAMPLES = st.lists(st.floats(1, 200_000), min_size=1, max_size=60)


@given(SAMPLES, st.floats(0, 250_000))
def test_the_two_sides_of_a_threshold_make_up_the_whole(sample: list[float], threshold: float) -> None:
    lengths = Lengths.of(sample)
    share = lengths.above(threshold)
    total = 0.0
    if share > 0:
        assert lengths.mean_above(threshold) >= threshold or math.isclose(lengths.mean_above(threshold), threshold)
        total += share * lengths.mean_above(threshold)
    if share < 1:
        total += (1 - share) * lengths.mean_up_to(threshold)
    assert total == pytest.approx(lengths.mean)


@given(SAMPLES, st.floats(0, 200_000), st.floats(0, 1e12), st.floats(0, 1e12))
def test_a_faster_link_never_lowers_the_rate(sample: list[float], threshold: float, one: float, other: float) -> None:
    lengths = Lengths.of(sample)
    slow, fast = (
        model.throughput(replace(PRFAAS, link_bps=bps), lengths, threshold).rate for bps in sorted((one, other))
    )
    assert slow <= fast


@given(SAMPLES, st.lists(st.integers(1, 200_000), min_size=1, max_size=10))
def test_the_search_finds_the_best_of_its_grid(sample: list[float], grid: list[int]) -> None:
    lengths = Lengths.of(sample)
    plan = planner.best_threshold(PRFAAS, lengths, grid)
    assert plan.throughput.rate == max(model.throughput(PRFAAS, lengths, t).rate for t in grid)


@pytest.mark.parametrize("change", [{"remote_instances": 0}, {"link_bps": 0.0}])
def test_without_a_way_across_everything_stays(change: dict[str, float]) -> None:
    plan = planner.best_threshold(replace(PRFAAS, **change), LENGTHS)  # type: ignore[arg-type]
    assert plan.throughput.remote_share == 0
    assert plan.throughput.rate > 0


def test_scarcity_has_hysteresis_and_keeps_what_it_does_not_know() -> None:
    state, seen = False, []
    for utilisation in (0.5, 0.79, 0.8, 0.7, None, 0.6, 0.59, None):
        state = planner.scarce(utilisation, state)
        seen.append(state)
    assert seen == [False, False, True, True, True, True, False, False]


@pytest.mark.parametrize("bad", [[], [0.0], [-1.0], [math.nan], [math.inf]])
def test_lengths_that_are_none_are_refused(bad: list[float]) -> None:
    with pytest.raises(errors.InvalidValueError, match="lengths"):
        Lengths.of(bad)


@pytest.mark.parametrize(
    ("anchors", "field"),
    [
        ([(1, 1.0)], "prefill"),
        ([(2, 1.0), (1, 2.0)], r"prefill\[1\].tokens"),
        ([(1, 2.0), (2, 1.0)], r"prefill\[1\].value"),
        ([(1, 1.0), (2, math.nan)], r"prefill\[1\].value"),
        ([(0, 1.0), (2, 2.0)], r"prefill\[0\].tokens"),
    ],
)
def test_curves_that_cannot_be_are_refused(anchors: list[tuple[float, float]], field: str) -> None:
    with pytest.raises(errors.InvalidValueError, match=field):
        Curve.through(anchors, "prefill")
