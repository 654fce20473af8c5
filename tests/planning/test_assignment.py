"""The assignment of lengths is the best there is: against brute force, against the paper's threshold, and by its own bound."""

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_core import errors
from prfaas_core.case_study import H20, H200, LENGTHS
from prfaas_core.lengths import Lengths
from prfaas_core.planning import assignment, linear
from prfaas_core.planning.assignment import Tier
from prfaas_core.planning.demand import Demand
from prfaas_core.planning.fleet import Bounds, DecodeCluster, Fleet, InstancePool, Link
from prfaas_core.profiles import Curve

EXACTLY = Bounds.exactly


def pool(name, profile, count):
    return InstancePool(name, profile, EXACTLY(count))


def case_study(local=3, decode=5, remote=4, gbps=100.0):
    cluster = DecodeCluster("east", LENGTHS, 1024, pool("decode", H20, decode), pool("local", H20, local))
    return Fleet((cluster,), (pool("west", H200, remote),), (Link("west", "east", gbps * 1e9),))


@st.composite
def profiles(draw):
    base = draw(st.floats(0.05, 1.0))
    slope = draw(st.floats(0.001, 0.2))
    curvature = draw(st.floats(0, 1e-3))
    lengths = (500, 2000, 8000, 32_000, 128_000)
    prefill = Curve.through([(n, base + slope * n / 1000 + curvature * (n / 1000) ** 2) for n in lengths], "prefill")
    return replace(H200, prefill_s=prefill)


@st.composite
def fleets(draw, clusters=2, remotes=3):
    sample = draw(st.lists(st.integers(1, 130_000), min_size=2, max_size=12))
    own = tuple(
        DecodeCluster(
            name=f"c{index}",
            lengths=Lengths.of(sample),
            output_tokens=500,
            decode=pool(f"decode {index}", H20, 3),
            local=pool(f"local {index}", draw(profiles()), draw(st.integers(1, 4))),
            weight=draw(st.floats(0.2, 3)),
        )
        for index in range(draw(st.integers(1, clusters)))
    )
    pools = tuple(
        pool(f"r{i}", draw(profiles()), draw(st.integers(0, 4))) for i in range(draw(st.integers(0, remotes)))
    )
    links = tuple(
        Link(far.name, cluster.name, draw(st.sampled_from([0.0, 0.1e9, 1e9, 20e9])))
        for far in pools
        for cluster in own
        if draw(st.booleans())
    )
    return Fleet(own, pools, links)


def uses(demand, parts, counts):
    """The fullest of all pools and links, in seconds for each request of the fleet."""
    asked = assignment.loads(demand, parts)
    pools = (busy / counts[name] for name, busy in asked.busy_s.items())
    usable = {link.name: link.usable_bps for link in demand.fleet.links}
    links = (bits / usable[name] for name, bits in asked.bits.items() if bits > 0)
    return max(itertools.chain(pools, links))


@settings(max_examples=60, deadline=None)
@given(fleets())
def test_the_answer_is_feasible_and_its_own_bound_proves_it_best(fleet):
    demand, counts = Demand.of(fleet, bins=6), fleet.most()
    found = assignment.fastest(demand, counts)
    for cluster, parts in zip(demand.clusters, found.parts, strict=True):
        for part in parts:
            assert sum(fraction for _, fraction in part) == pytest.approx(1)
            assert all(0 <= way < len(cluster.ways) and fraction >= 0 for way, fraction in part)
    assert uses(demand, found.parts, counts) == pytest.approx(1 / found.rate, rel=1e-6)
    # Weak duality, from the prices alone: no assignment is faster than what its cheapest ways cost.
    least = 0.0
    for cluster in demand.clusters:
        for index in range(len(cluster.weights)):
            offers = []
            for way in cluster.ways:
                if counts[way.pool.name] == 0 or (way.link is not None and way.link.usable_bps == 0):
                    continue
                price = found.pool_prices.get(way.pool.name, 0.0) * way.busy_s[index]
                if way.link is not None:
                    price += found.link_prices.get(way.link.name, 0.0) * way.bits[index]
                offers.append(price)
            least += min(offers)
    assert 1 / least == pytest.approx(found.rate, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(fleets(clusters=1, remotes=2))
def test_no_assignment_of_whole_bins_is_faster(fleet):
    demand, counts = Demand.of(fleet, bins=5), fleet.most()
    found = assignment.fastest(demand, counts)
    (cluster,) = demand.clusters
    usable = [
        index
        for index, way in enumerate(cluster.ways)
        if counts[way.pool.name] > 0 and (way.link is None or way.link.usable_bps > 0)
    ]
    best = min(
        uses(demand, (tuple(((way, 1.0),) for way in ways),), counts)
        for ways in itertools.product(usable, repeat=len(cluster.weights))
    )
    assert found.rate >= (1 - 1e-9) / best


@settings(max_examples=30, deadline=None)
@given(fleets(clusters=2, remotes=2), st.floats(0.1, 0.99), st.floats(0.5, 3))
def test_the_cheapest_costs_no_more_than_the_fastest_and_carries_the_rate(fleet, part, price):
    demand, counts = Demand.of(fleet, bins=5), fleet.most()
    fastest = assignment.fastest(demand, counts)
    rate = part * fastest.rate
    prices = {name: price * (1 + index) for index, name in enumerate(counts)}
    found = assignment.cheapest(demand, {name: (Tier(count, prices[name]),) for name, count in counts.items()}, rate)
    assert found is not None
    assert uses(demand, found.parts, counts) <= (1 + 1e-6) / rate

    def cost(parts):
        return sum(prices[name] * busy for name, busy in assignment.loads(demand, parts).busy_s.items())

    assert cost(found.parts) <= cost(fastest.parts) * (1 + 1e-9)
    assert found.gap <= 1e-6


def test_a_rate_above_the_highest_cannot_be_had():
    demand = Demand.of(case_study())
    counts = demand.fleet.most()
    highest = assignment.fastest(demand, counts).rate
    assert assignment.cheapest(demand, {name: (Tier(n),) for name, n in counts.items()}, 1.01 * highest) is None


@pytest.mark.parametrize(("gbps", "rate", "threshold"), [(100, 3.165, 19_730), (8, 2.394, 24_470)])
def test_one_remote_pool_gives_the_papers_threshold(gbps, rate, threshold):
    demand = Demand.of(case_study(gbps=gbps))
    found = assignment.fastest(demand, demand.fleet.most())
    assert found.rate == pytest.approx(rate, rel=1e-3)
    assert assignment.threshold_tokens(demand.clusters[0], found.parts[0]) == pytest.approx(threshold, rel=5e-3)
    assert assignment.off_threshold(demand.clusters[0], found.parts[0]) < 1e-3


def test_the_price_of_a_pool_is_what_one_more_instance_gives():
    demand = Demand.of(case_study(local=30, remote=40, decode=50, gbps=1000))
    counts = demand.fleet.most()
    found = assignment.fastest(demand, counts)
    for name in ("local", "west"):
        more = assignment.fastest(demand, {**counts, name: counts[name] + 1})
        assert more.rate - found.rate == pytest.approx(found.rate * found.pool_prices[name], rel=0.02)


def test_prices_of_everything_that_is_used_add_up_to_the_whole():
    demand = Demand.of(case_study(gbps=8))
    counts = demand.fleet.most()
    found = assignment.fastest(demand, counts)
    pools = sum(counts[name] * price for name, price in found.pool_prices.items())
    links = sum(link.usable_bps * found.link_prices.get(link.name, 0.0) for link in demand.fleet.links)
    assert pools + links == pytest.approx(1)


def test_equal_pools_are_all_used():
    cluster = DecodeCluster("east", LENGTHS, 1024, pool("decode", H20, 50), pool("local", H20, 3))
    pools = tuple(pool(f"west {index}", H200, 1) for index in range(20))
    fleet = Fleet((cluster,), pools, tuple(Link(one.name, "east", 100e9) for one in pools))
    one = Fleet((cluster,), (pool("west", H200, 20),), (Link("west", "east", 2000e9),))
    rates = [
        assignment.fastest(demand, demand.fleet.most()).rate for demand in (Demand.of(fleet, 64), Demand.of(one, 64))
    ]
    assert rates[0] == pytest.approx(rates[1], rel=1e-6)


def test_two_ways_over_one_line_share_it():
    cluster = DecodeCluster("east", LENGTHS, 1024, pool("decode", H20, 50), pool("local", H20, 3))
    pools = (pool("one", H200, 4), pool("two", H200, 4))

    def rate(lines):
        links = tuple(Link(one.name, "east", 8e9, line=line) for one, line in zip(pools, lines, strict=True))
        demand = Demand.of(Fleet((cluster,), pools, links), 64)
        return assignment.fastest(demand, demand.fleet.most()).rate

    alone = Demand.of(Fleet((cluster,), pools[:1], (Link("one", "east", 8e9),)), 64)
    assert rate(("", "")) > rate(("wan", "wan"))
    assert rate(("wan", "wan")) == pytest.approx(assignment.fastest(alone, alone.fleet.most()).rate, rel=1e-3)


def test_a_cluster_with_nothing_to_prefill_with_is_refused():
    demand = Demand.of(case_study(local=0, gbps=0))
    with pytest.raises(errors.InvalidValueError, match=r"clusters\[east\]: 'no prefill'.*give it"):
        assignment.fastest(demand, demand.fleet.most())


def test_zero_local_instances_send_everything_across():
    demand = Demand.of(case_study(local=0))
    found = assignment.fastest(demand, demand.fleet.most())
    assert assignment.threshold_tokens(demand.clusters[0], found.parts[0]) == 0
    assert found.rate == pytest.approx(4 / LENGTHS.mean_of(H200.prefill_s), rel=1e-6)


def test_a_dead_link_keeps_everything_local():
    demand = Demand.of(case_study(gbps=0))
    found = assignment.fastest(demand, demand.fleet.most())
    assert assignment.threshold_tokens(demand.clusters[0], found.parts[0]) > LENGTHS.sample[-1]
    assert found.rate == pytest.approx(3 / LENGTHS.mean_of(H20.prefill_s), rel=1e-6)


def test_a_warm_start_changes_nothing_but_the_way_there():
    demand = Demand.of(case_study(gbps=8))
    counts = demand.fleet.most()
    cold = assignment.fastest(demand, counts)
    other = assignment.fastest(demand, {**counts, "west": 9, "local": 1})
    assert assignment.fastest(demand, counts, other).rate == pytest.approx(cold.rate, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_simplex_proves_what_it_finds(data):
    ways, items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    amount = st.floats(0, 5) | st.sampled_from([0.0, 1.0])
    uses_ = [[((way, data.draw(amount)),) for way in range(ways)] for _ in range(items)]
    limits = [data.draw(st.floats(0, 3)) for _ in range(ways)]
    costs = [[data.draw(st.floats(0, 2)) for _ in range(ways)] for _ in range(items)]
    found = linear.solve(linear.Program(uses_, limits, costs, overrun=1e3), [0] * items)
    used = [0.0] * ways
    for item, fractions in enumerate(found.fractions):
        assert sum(fraction for _, fraction in fractions) == pytest.approx(1)
        for way, fraction in fractions:
            for row, one in uses_[item][way]:
                used[row] += fraction * one
    assert all(use <= limit + found.excess + 1e-6 for use, limit in zip(used, limits, strict=True))
    assert found.gap <= 1e-6 * max(1.0, abs(found.value))
    assert math.isfinite(found.value)
