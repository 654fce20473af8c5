"""The token bucket never lets more through than its rate and one burst, and loses nothing to a late waker."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_local.link.bucket import TokenBucket

BURST_S = 0.01
Takes = list[tuple[float, int]]
takes = st.lists(
    st.tuples(st.floats(0, 0.05, allow_subnormal=False), st.integers(1, 100_000)), min_size=1, max_size=60
)  # fmt: skip


@settings(deadline=None)
@given(rate_bps=st.floats(1e4, 1e10), steps=takes)
def test_no_interval_carries_more_than_rate_and_burst(rate_bps: float, steps: Takes) -> None:
    bucket = TokenBucket(rate_bps, BURST_S, 0.0)
    now_s, taken = 0.0, list[tuple[float, int]]()
    for step_s, size_bytes in steps:
        now_s += step_s
        if bucket.wait_s(now_s) == 0:
            bucket.take(size_bytes, now_s)
            taken.append((now_s, size_bytes))
    for start in range(len(taken)):
        bits = 0.0
        for end_s, size_bytes in taken[start:]:
            # The last take may be as big as it wants: it is what `wait_s` then waits for.
            assert bits <= rate_bps * (end_s - taken[start][0] + BURST_S) * (1 + 1e-9) + 1e-6
            bits += 8 * size_bytes


@settings(deadline=None)
@given(rate_bps=st.floats(1e4, 1e10), late=st.lists(st.floats(0, 0.99 * BURST_S), min_size=1, max_size=50))
def test_a_waker_late_by_less_than_the_burst_loses_nothing(rate_bps: float, late: list[float]) -> None:
    bucket = TokenBucket(rate_bps, BURST_S, 0.0)
    now_s = total_bytes = 0.0
    turn_bytes = int(rate_bps * BURST_S / 8 / 10)
    for late_s in late:
        now_s += bucket.wait_s(now_s) + late_s
        while bucket.wait_s(now_s) == 0:
            bucket.take(turn_bytes, now_s)
            total_bytes += turn_bytes
    assert 8 * total_bytes >= rate_bps * now_s * (1 - 1e-9)


@settings(deadline=None)
@given(rates=st.lists(st.floats(1e4, 1e10), min_size=2, max_size=5), size_bytes=st.integers(1, 10**7))
def test_what_is_owed_is_paid_at_the_new_rate(rates: list[float], size_bytes: int) -> None:
    bucket = TokenBucket(rates[0], BURST_S, 0.0)
    bucket.take(size_bytes, BURST_S)
    owed_bits = bucket.wait_s(BURST_S) * rates[0]
    for rate_bps in rates[1:]:
        bucket.set_rate(rate_bps, BURST_S)
        assert math.isclose(bucket.wait_s(BURST_S) * rate_bps, owed_bits, rel_tol=1e-6, abs_tol=1e-3)


def test_nothing_is_saved_up_beyond_the_burst() -> None:
    bucket = TokenBucket(8e6, BURST_S, 0.0)
    count = 0
    while bucket.wait_s(1000.0) == 0:
        bucket.take(1000, 1000.0)
        count += 1
    assert count == 11
