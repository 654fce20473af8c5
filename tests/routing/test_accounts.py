"""Backlogs in seconds, measured links, and prices."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core import errors
from prfaas_core.routing import Worker, backlog, prices
from prfaas_core.routing.backlog import LinkMeter


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 5)), min_size=1, max_size=20))
def test_a_backlog_ends_when_the_work_does(requests: list[tuple[float, float]]) -> None:
    """With exact estimates, the account says at any time what a server in order of arrival would say."""
    worker, now_s, free_s = Worker("w", 0, 0), 0.0, 0.0
    ends: list[tuple[float, float]] = []
    for gap_s, work_s in requests:
        now_s += gap_s
        for end_s, done_s in [entry for entry in ends if entry[0] <= now_s]:
            backlog.release(worker, end_s, done_s)
            ends.remove((end_s, done_s))
        backlog.assign(worker, now_s, work_s)
        free_s = max(free_s, now_s) + work_s
        ends.append((free_s, work_s))
        assert worker.busy_until_s == pytest.approx(free_s)
    for end_s, done_s in ends:
        backlog.release(worker, end_s, done_s)
    assert worker.pending_s == 0
    assert worker.busy_until_s == pytest.approx(free_s)


def test_a_late_end_moves_what_waits_behind_it() -> None:
    worker = Worker("w", 0, 0)
    backlog.assign(worker, 0.0, 1.0)
    backlog.assign(worker, 0.0, 2.0)
    backlog.release(worker, 5.0, 1.0)
    assert worker.busy_until_s == 7.0


def test_a_link_is_what_it_should_be_until_transfers_clearly_say_less() -> None:
    meter, now_s = LinkMeter(8e9), 0.0
    assert meter.capacity_bps(now_s) == 8e9
    for seconds in (1.1, 0.9, 1.2):
        meter.start(now_s, 1.0)
        now_s += seconds
        meter.finish(now_s, 1.0, 1e9)
    assert meter.capacity_bps(now_s) == 8e9
    seen = []
    for _ in range(15):
        meter.start(now_s, 1.0)
        now_s += 5.0
        meter.finish(now_s, 1.0, 1e9)
        seen.append(meter.capacity_bps(now_s))
    assert all(after <= before for before, after in pairwise(seen))
    assert seen[-1] == pytest.approx(8e9 / 5, rel=0.3)
    assert meter.capacity_bps(now_s + 300.0) == 8e9


def test_a_transfer_that_does_not_end_lowers_the_estimate() -> None:
    meter = LinkMeter(8e9)
    meter.start(0.0, 1.0)
    assert meter.capacity_bps(1.0) == 8e9
    assert meter.capacity_bps(30.0) < 1e9


def test_a_push_that_ends_with_its_prefill_says_nothing() -> None:
    meter, now_s = LinkMeter(8e9), 0.0
    for _ in range(20):
        meter.start(now_s, 3.0)
        now_s += 3.0
        meter.finish(now_s, 3.0, 1e8, saturated=False)
    assert meter.capacity_bps(now_s) == 8e9


def test_prices_rise_with_load_and_stop_rising() -> None:
    values = [prices.price(rho / 2.0, 1, rho) for rho in (0.0, 0.3, 0.6, prices.MOST_LOADED)]
    assert values == sorted(values)
    assert prices.price(1.0, 1, 0.99) == prices.price(1.0, 1, 5.0) == pytest.approx(1 / (1 - prices.MOST_LOADED))
    assert prices.prior(2.0) == pytest.approx(prices.price(prices.MOST_LOADED / 2.0, 1, prices.MOST_LOADED))


def test_the_base_price_is_the_price_at_the_mean_backlog() -> None:
    """For one worker Sakasegawa's wait is exact: rho / (1 - rho) of a service time."""
    assert prices.base_price(3.0, 2.0, 1, 0.5) == pytest.approx(3.0 * 2.0)


@pytest.mark.parametrize("binds", [True, False])
def test_at_the_threshold_both_sides_cost_the_same(binds: bool) -> None:
    remote, link = prices.across(5.0, local_s=3.0, remote_s=1.2, link_s=0.4, link_binds=binds)
    assert remote * 1.2 + link * 0.4 == pytest.approx(15.0)
    assert (link if binds else remote) > 0
    assert (remote if binds else link) == 0


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_bad_numbers_are_refused(bad: float) -> None:
    for make in (
        lambda: prices.price(bad, 1, 0.5),
        lambda: prices.price(1, 1, bad),
        lambda: prices.prior(bad),
        lambda: LinkMeter(bad),
    ):
        with pytest.raises(errors.InvalidValueError):
            make()
