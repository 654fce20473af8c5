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


@pytest.mark.parametrize("bad", [(1.0, math.nan, 2.0), (2.0, 1.0), (1.0, 3.0, 2.0)])
def test_a_sample_that_is_not_sorted_numbers_is_refused(bad: tuple[float, ...]) -> None:
    with pytest.raises(errors.InvalidValueError, match=r"lengths\[\d\].*ascending"):
        Lengths(bad)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((math.nan, 1.0, 1.0, 2.0), "mu"),
        ((1.0, 0.0, 1.0, 2.0), "sigma"),
        ((1.0, 1.0, 0.0, 2.0), "low"),
        ((1.0, 1.0, 2.0, 2.0), "high"),
        ((1.0, 1.0, -1.0, 2.0), "low"),
    ],
)
def test_log_normals_that_cannot_be_are_refused(arguments: tuple[float, float, float, float], field: str) -> None:
    with pytest.raises(errors.InvalidValueError) as raised:
        Lengths.log_normal(*arguments)
    assert raised.value.field == field


@given(
    SAMPLES,
    st.lists(st.tuples(st.floats(1, 1000), st.floats(0, 5)), min_size=2, max_size=6),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_totals_are_those_of_walking_the_sample(
    sample: list[float], steps: list[tuple[float, float]], places: list[int]
) -> None:
    """A curve's sums from its pieces equal those of every length on its own, also squared."""
    anchors, tokens, value = [], 0.0, 0.1
    for width, rise in steps:
        tokens, value = tokens + 100 * width, value + rise
        anchors.append((tokens, value))
    curve, lengths = Curve.through(anchors), Lengths.of(sample)
    cuts = sorted({0, len(sample), *(min(place, len(sample)) for place in places)})
    for squared in (False, True):
        found = lengths.totals(curve, cuts, squared=squared)
        for total, first, last in zip(found, cuts, cuts[1:], strict=False):
            expected = sum(curve(length) ** (2 if squared else 1) for length in lengths.sample[first:last])
            assert total == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(SAMPLES, st.floats(0, 200_000))
def test_prefill_time_is_convex_so_true_means_carry_less(sample: list[float], threshold: float) -> None:
    lengths = Lengths.of(sample)
    convex = Curve.through([(1, 0.1), (10_000, 1.0), (50_000, 8.0), (200_000, 60.0)])
    deployment = replace(
        PRFAAS,
        local=replace(PRFAAS.local, prefill_s=convex),
        remote=replace(PRFAAS.local, prefill_s=convex),
    )
    paper, true = (model.throughput(deployment, lengths, threshold, how).rate for how in model.Averaging)
    assert true <= paper * (1 + 1e-9)
