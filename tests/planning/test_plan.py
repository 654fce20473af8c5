"""Plans answer goals: rates, service levels and costs, against brute force where it can be had."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_core import errors, model, planner
from prfaas_core.case_study import H20, H200, LENGTHS, PRFAAS
from prfaas_core.lengths import Lengths
from prfaas_core.planning import assignment, latency, sizing
from prfaas_core.planning.demand import Demand
from prfaas_core.planning.fleet import Bounds, DecodeCluster, Fleet, InstancePool, Link
from prfaas_core.planning.plan import (
    MaximiseRate,
    MinimiseCost,
    MinimiseTtft,
    ServiceLevel,
    UnreachableServiceLevelError,
    plan,
)
from prfaas_core.planning.sizing import UnreachableRateError


def fleet(local=(3, 3), decode=(5, 5), remote=(4, 4), gbps=100.0, role_total=None, prices=(16, 32), per_gb=0.0):
    cluster = DecodeCluster(
        "east",
        LENGTHS,
        1024,
        InstancePool("decode", H20, Bounds(*decode), prices[0]),
        InstancePool("local", H20, Bounds(*local), prices[0]),
        role_total,
    )
    west = InstancePool("west", H200, Bounds(*remote), prices[1])
    return Fleet((cluster,), (west,), (Link("west", "east", gbps * 1e9, cost_per_gb=per_gb),))


def test_the_case_study_with_true_means():
    found = plan(fleet(role_total=8), MaximiseRate())
    assert (found.counts["west"], found.counts["local"], found.counts["decode"]) == (4, 3, 5)
    searched = planner.best_roles(PRFAAS, LENGTHS, averaging=model.Averaging.TRUE_MEAN)
    assert found.rate == pytest.approx(searched.throughput.rate, rel=2e-3)
    assert found.clusters[0].threshold_tokens == pytest.approx(searched.threshold_tokens, abs=200)
    assert {one.name for one in found.explanation.binding} == {"west", "local"}
    assert [pool for _, _, pool in found.clusters[0].intervals] == ["local", "west"]


@pytest.mark.parametrize("gbps", [2, 4, 8, 12])
def test_roles_on_a_slow_link_are_those_of_the_exhaustive_search(gbps):
    found = plan(fleet(role_total=8, gbps=gbps), MaximiseRate(), moves=0)
    deployment = replace(PRFAAS, link_bps=gbps * 1e9)
    searched = planner.best_roles(deployment, LENGTHS, range(2000, 131_100, 400), model.Averaging.TRUE_MEAN)
    assert found.rate >= searched.throughput.rate * (1 - 1e-3)
    assert found.counts["local"] == searched.deployment.local_instances


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(100, 120_000), min_size=2, max_size=20), st.integers(3, 9), st.sampled_from([1.0, 5.0, 50.0])
)
def test_roles_are_the_best_of_all(sample, total, gbps):
    lengths = Lengths.of(sample)
    one = fleet(role_total=total, gbps=gbps)
    one = replace(one, clusters=(replace(one.clusters[0], lengths=lengths),))
    demand = Demand.of(one)
    best = max(
        sizing.carried(demand, {"west": 4, "local": count, "decode": total - count}).rate for count in range(1, total)
    )
    assert sizing.largest(demand).rate == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("rate", [1.0, 2.2])
def test_the_cost_is_near_the_best_of_all_counts(rate):
    one = fleet(local=(0, 5), decode=(1, 3), remote=(0, 3), per_gb=0.02)
    found = plan(one, MinimiseCost(rate))
    demand = Demand.of(one)
    costs = []
    for west, local, decode in itertools.product(range(4), range(6), range(1, 4)):
        counts = {"west": west, "local": local, "decode": decode}
        try:
            carried = sizing.carried(demand, counts)
        except errors.InvalidValueError:
            continue
        if carried.rate >= rate:
            costs.append(
                sizing.cost_per_hour(demand, counts, sizing._settled(demand, counts, rate, carried.limit), rate)
            )
    assert found.capacity >= rate * (1 - 1e-9)
    assert found.cost_bound <= min(costs) * (1 + 1e-9)
    assert found.cost_per_hour <= min(costs) * 1.1


def test_bytes_that_cost_stay_at_home():
    cheap, dear = (plan(fleet(per_gb=price, gbps=100), MinimiseCost(1.0)) for price in (0.0, 0.05))
    used = [
        next(one.used for one in found.explanation.resources if one.kind.value == "link") for found in (cheap, dear)
    ]
    assert used[1] < used[0]


def test_a_service_level_lowers_the_rate_and_is_kept():
    free = plan(fleet(), MaximiseRate())
    found = plan(fleet(), MaximiseRate(ServiceLevel(10.0, 0.9)))
    assert free.latency.mean_s == math.inf
    assert found.rate < free.rate
    assert found.latency.quantile(0.9) <= 10.0
    tighter = plan(fleet(), MaximiseRate(ServiceLevel(6.0, 0.9)))
    assert tighter.rate < found.rate


def test_a_service_level_needs_more_instances_than_the_rate_alone():
    one = fleet(local=(1, 20), decode=(1, 20), remote=(0, 20))
    bare, kept = plan(one, MinimiseCost(4.0)), plan(one, MinimiseCost(4.0, slo=ServiceLevel(6.0)))
    assert kept.latency.quantile(0.9) <= 6.0 < bare.latency.quantile(0.9)
    assert kept.cost_per_hour > bare.cost_per_hour


def test_the_shortest_ttft_is_shorter_than_that_of_the_fastest_assignment():
    demand = Demand.of(fleet())
    counts = demand.fleet.most()
    fastest = assignment.fastest(demand, counts)
    for rate in (0.5, 1.5, 2.8):
        found = latency.shortest(demand, fastest, counts, rate)
        before, after = (latency.latency(demand, one, counts, rate).mean_s for one in (fastest, found))
        assert after < before


def test_an_idle_fleet_prefills_everything_where_it_is_fastest():
    found = plan(fleet(), MinimiseTtft(0.01))
    assert found.clusters[0].threshold_tokens < 700
    assert found.latency.mean_s == pytest.approx(LENGTHS.mean_of(H200.prefill_s), rel=0.01)
    assert found.latency.quantile(0.9) == pytest.approx(3.51, abs=0.06)


def test_moves_say_what_they_give():
    found = plan(fleet(), MaximiseRate())
    assert found.moves
    by_name = {move.what: move for move in found.moves}
    more = plan(fleet(remote=(5, 5)), MaximiseRate())
    assert by_name["one more instance of west (H200)"].rate == pytest.approx(more.rate, rel=1e-6)
    assert by_name["one more instance of west (H200)"].cost_per_hour == 32
    west = next(one for one in found.explanation.resources if one.name == "west")
    assert by_name["one more instance of west (H200)"].gain == pytest.approx(west.rps_per_unit, rel=0.15)


def test_a_slow_link_binds_and_its_price_says_so():
    found = plan(fleet(gbps=8), MaximiseRate())
    names = {one.name for one in found.explanation.binding}
    assert names == {"west -> east", "local"}
    link = next(one for one in found.explanation.resources if one.name == "west -> east")
    more = plan(fleet(gbps=8.1), MaximiseRate())
    assert (more.rate - found.rate) / 0.1 == pytest.approx(link.rps_per_unit, rel=0.1)
    west = next(one for one in found.explanation.resources if one.name == "west")
    assert west.rps_per_unit == 0
    assert west.slack > 0.5


def test_decode_that_binds_is_named_and_prefill_is_worth_nothing():
    found = plan(fleet(decode=(2, 2)), MaximiseRate())
    assert [one.name for one in found.explanation.binding] == ["decode"]
    assert found.rate == pytest.approx(2 * 0.78125)
    assert found.explanation.binding[0].rps_per_unit == pytest.approx(0.78125)


def test_decode_clusters_share_a_remote_pool():
    east = fleet().clusters[0]
    north = replace(
        east,
        name="north",
        decode=replace(east.decode, name="north decode"),
        local=InstancePool("north local", H20, Bounds(3, 3)),
    )
    west = fleet().pools[0]
    links = (Link("west", "east", 100e9), Link("west", "north", 100e9))
    found = plan(Fleet((east, north), (west,), links), MaximiseRate())
    alone = plan(Fleet((east,), (west,), links[:1]), MaximiseRate())
    # Twice the local instances and the same remote ones: more than one cluster, less than two.
    assert alone.rate < found.rate < 2 * alone.rate
    assert found.clusters[0].threshold_tokens == pytest.approx(found.clusters[1].threshold_tokens, rel=0.05)


def test_fifty_pools_in_a_second_of_a_slow_machine():
    """The plan is exact; the time is generous, and the benchmark has the real one."""
    east = replace(fleet().clusters[0], decode=InstancePool("decode", H20, Bounds(50, 50)))
    pools = tuple(
        InstancePool(f"p{i}", replace(H200, prefill_s=H200.prefill_s.scaled(0.5 + i / 25)), Bounds(1, 1 + i % 4))
        for i in range(50)
    )
    links = tuple(Link(one.name, "east", (1 + i % 7) * 2e9) for i, one in enumerate(pools))
    found = plan(Fleet((east,), pools, links), MaximiseRate())
    assert found.gap < 1e-6
    assert found.rate <= 50 * 0.78125 * (1 + 1e-9)


def test_plans_are_the_same_every_time():
    one = fleet(local=(1, 9), decode=(1, 9), remote=(0, 9))
    goal = MinimiseCost(3.0, 0.9, ServiceLevel(8.0))
    assert plan(one, goal) == plan(one, goal)


def test_more_than_the_bounds_allow_is_refused_with_what_they_allow():
    with pytest.raises(UnreachableRateError, match=r"rate: 100 requests/s cannot be carried, at most 3\.1") as raised:
        plan(fleet(), MinimiseCost(100))
    assert raised.value.reachable == pytest.approx(3.165, rel=1e-3)
    with pytest.raises(UnreachableRateError):
        plan(fleet(), MinimiseTtft(100))
    with pytest.raises(UnreachableServiceLevelError, match=r"slo\.ttft_s: 1 s at the 0\.9 quantile cannot be kept"):
        plan(fleet(), MaximiseRate(ServiceLevel(1.0)))
    with pytest.raises(UnreachableServiceLevelError):
        plan(fleet(), MinimiseCost(1.0, slo=ServiceLevel(1.0)))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Bounds(2, 1), "maximum"),
        (lambda: Bounds(-1, 1), "minimum"),
        (lambda: Link("a", "b", -1.0), "a -> b.capacity_bps"),
        (lambda: Link("a", "b", math.nan), "a -> b.capacity_bps"),
        (lambda: Link("a", "b", 1.0, share=0), "a -> b.share"),
        (lambda: Link("a", "b", 1.0, share=1.1), "a -> b.share"),
        (lambda: Link("a", "b", 1.0, cost_per_gb=-1), "a -> b.cost_per_gb"),
        (lambda: InstancePool("a", H20, Bounds(1, 1), -1.0), "a.price_per_hour"),
        (lambda: InstancePool("", H20, Bounds(1, 1)), "name"),
        (lambda: replace(fleet().clusters[0], output_tokens=0), "east.output_tokens"),
        (lambda: replace(fleet().clusters[0], weight=0), "east.weight"),
        (lambda: replace(fleet().clusters[0], role_total=1), "east.role_total"),
        (lambda: replace(fleet().clusters[0], role_total=4, local=None), "east.role_total"),
        (lambda: Fleet(()), "clusters"),
        (lambda: Fleet(fleet().clusters * 2), "clusters"),
        (lambda: replace(fleet(), links=fleet().links * 2), "links"),
        (lambda: replace(fleet(), links=(Link("nope", "east", 1.0),)), "links.pool"),
        (lambda: replace(fleet(), links=(Link("west", "nope", 1.0),)), "links.cluster"),
        (lambda: MinimiseTtft(0), "rate"),
        (lambda: MinimiseCost(math.nan), "rate"),
        (lambda: MinimiseCost(1, utilisation=1.5), "utilisation"),
        (lambda: ServiceLevel(0), "slo.ttft_s"),
        (lambda: ServiceLevel(1, 1.0), "slo.quantile"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_of_its_field(make, field):
    with pytest.raises(errors.InvalidValueError) as raised:
        make()
    assert raised.value.field == field
    assert raised.value.remedy


def test_a_fleet_that_cannot_decode_is_refused():
    with pytest.raises(errors.InvalidValueError, match="decode with"):
        plan(fleet(decode=(0, 0)), MaximiseRate())


@pytest.mark.parametrize(("remote", "gbps"), [((0, 0), 100.0), ((4, 4), 0.0)])
def test_without_a_way_across_the_plan_is_local(remote, gbps):
    found = plan(fleet(remote=remote, gbps=gbps), MaximiseRate())
    assert found.rate == pytest.approx(3 / LENGTHS.mean_of(H20.prefill_s), rel=1e-6)
    assert found.clusters[0].threshold_tokens > LENGTHS.sample[-1]


def test_equal_lengths_can_be_planned_for():
    one = fleet()
    one = replace(one, clusters=(replace(one.clusters[0], lengths=Lengths.of([20_000.0] * 50)),))
    found = plan(one, MaximiseRate())
    expected = 3 / H20.prefill_s(20_000) + 4 / H200.prefill_s(20_000)
    assert found.rate == pytest.approx(min(expected, 5 * 0.78125), rel=1e-6)


def test_a_threshold_alone_carries_what_the_model_says():
    rate = sizing.at_thresholds(fleet(), fleet().most(), {"east": 15_000})
    expected = model.throughput(replace(PRFAAS), LENGTHS, 15_000, model.Averaging.TRUE_MEAN).rate
    assert rate == pytest.approx(expected, rel=1e-6)
    assert sizing.at_thresholds(fleet(), {**fleet().most(), "local": 0}, {"east": 15_000}) == 0.0


@pytest.mark.parametrize("slo", [None, ServiceLevel(8.0)])
@pytest.mark.parametrize("utilisation", [0.6, 1.0])
def test_no_plan_costs_less_than_its_bound(utilisation, slo):
    one = fleet(local=(0, 9), decode=(1, 9), remote=(0, 9), per_gb=0.05)
    found = plan(one, MinimiseCost(2.0, utilisation, slo), moves=0)
    assert 0 < found.cost_bound <= found.cost_per_hour * (1 + 1e-9)
    assert found.capacity >= 2.0 / utilisation * (1 - 1e-9)
