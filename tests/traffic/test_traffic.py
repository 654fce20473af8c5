"""The histogram of lengths keeps what matters to the planner, and forgets at its half-life."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core import planner, traffic
from prfaas_core.case_study import LENGTHS, PRFAAS
from prfaas_core.errors import InvalidValueError
from prfaas_core.traffic import Bucket, TrafficWindow, combine

lengths = st.lists(st.integers(1, 300_000), min_size=1, max_size=200)


@given(st.floats(1, 2_000_000))
def test_a_length_lies_in_its_bucket(tokens: float) -> None:
    bucket = traffic.bucket_of(tokens)
    assert tokens <= traffic.upper_tokens(bucket) * (1 + 1e-9) or bucket == traffic.BUCKETS - 1
    assert bucket == 0 or tokens > traffic.upper_tokens(bucket - 1) * (1 - 1e-9)


@given(lengths)
def test_counts_and_tokens_are_kept(sent: list[int]) -> None:
    window = TrafficWindow(0.0)
    for tokens in sent:
        window.record(tokens, 0.0)
    buckets = window.buckets(0.0)
    assert math.isclose(sum(bucket.count for bucket in buckets), len(sent))
    assert math.isclose(sum(bucket.tokens for bucket in buckets), sum(sent))


@given(lengths, st.floats(0, 3000), st.floats(0, 3000))
def test_looking_in_between_changes_nothing(sent: list[int], first_s: float, second_s: float) -> None:
    watched, left_alone = TrafficWindow(0.0), TrafficWindow(0.0)
    for window in (watched, left_alone):
        for tokens in sent:
            window.record(tokens, 0.0)
        window.record(500, first_s)
    watched.buckets(first_s)
    end_s = first_s + second_s
    before, after = left_alone.buckets(end_s), watched.buckets(end_s)
    assert [bucket.index for bucket in before] == [bucket.index for bucket in after]
    assert all(math.isclose(a.count, b.count, rel_tol=1e-6) for a, b in zip(before, after, strict=True))


def test_half_is_forgotten_in_a_half_life() -> None:
    window = TrafficWindow(0.0)
    for _ in range(100):
        window.record(1000, 0.0)
    (bucket,) = window.buckets(traffic.HALF_LIFE_S)
    assert bucket.count == pytest.approx(50)
    assert window.buckets(100 * traffic.HALF_LIFE_S) == ()


def test_the_rate_is_that_of_a_steady_stream() -> None:
    window = TrafficWindow(0.0)
    for number in range(20 * 600):
        window.record(1000, number / 20)
    found = combine([window.buckets(600.0)], 1)
    assert found is not None
    assert found.rate_rps == pytest.approx(20, rel=0.01)


def test_routers_add_up() -> None:
    windows = [TrafficWindow(0.0) for _ in range(3)]
    for number, window in enumerate(windows):
        for _ in range(10 * (number + 1)):
            window.record(1000 * 4**number, 0.0)
    found = combine([window.buckets(0.0) for window in windows], 60)
    assert found is not None
    assert found.requests == pytest.approx(60)
    assert found.lengths.mean == pytest.approx((10 * 1000 + 20 * 4000 + 30 * 16000) / 60, rel=0.002)
    assert combine([window.buckets(0.0) for window in windows], 61) is None
    assert combine([], 0) is None


def test_the_planner_finds_the_same_threshold_through_the_histogram() -> None:
    window = TrafficWindow(0.0)
    for tokens in LENGTHS.sample[::4]:
        window.record(tokens, 0.0)
    found = combine([window.buckets(0.0)], 1)
    assert found is not None
    exact = planner.best_threshold(PRFAAS, LENGTHS)
    rough = planner.best_threshold(PRFAAS, found.lengths)
    assert rough.threshold_tokens == pytest.approx(exact.threshold_tokens, rel=0.1)
    assert rough.throughput.rate == pytest.approx(exact.throughput.rate, rel=0.01)


@pytest.mark.parametrize("bad", [(-1, 1.0, 1.0), (traffic.BUCKETS, 1.0, 1.0), (0, -1.0, 1.0), (0, 1.0, math.nan)])
def test_a_bad_bucket_is_refused(bad: tuple[int, float, float]) -> None:
    with pytest.raises(InvalidValueError, match="bucket"):
        Bucket(*bad)


@given(lengths)
def test_a_combined_distribution_keeps_the_mean_and_fills_its_buckets(sent: list[int]) -> None:
    """Lengths of a bucket lie about their mean, so that none of them changes sides just because others do."""
    window = TrafficWindow(0.0)
    for tokens in sent:
        window.record(tokens, 0.0)
    found = combine([window.buckets(0.0)], 0)
    assert found is not None
    assert found.lengths.mean == pytest.approx(sum(sent) / len(sent), rel=0.02)
    even = TrafficWindow(0.0)
    for tokens in range(1000, 1091):
        even.record(tokens, 0.0)
    spread = combine([even.buckets(0.0)], 0)
    assert spread is not None
    assert len(set(spread.lengths.sample)) > 1000
    assert min(spread.lengths.sample) > traffic.upper_tokens(traffic.bucket_of(1000) - 1)
    assert max(spread.lengths.sample) <= traffic.upper_tokens(traffic.bucket_of(1090))
