"""What is scarce goes by priority, and what is there stays, unless a limit was lowered below it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_core.autoscaling.budget import Allocation, Request, allocate
from prfaas_core.errors import InvalidValueError

GPUS = "gpus"


def request(pool: str, has: int, wanted: int, *, least: int = 0, priority: int = 0, cost: float = 1.0) -> Request:
    return Request(pool, priority, has, least, wanted, {GPUS: cost})


def granted(requests: list[Request], limit: float) -> dict[str, int]:
    return {pool: grant.replicas for pool, grant in allocate(requests, {GPUS: limit}).grants.items()}


@pytest.mark.parametrize(
    ("requests", "limit", "expected"),
    [
        ([request("a", 2, 4), request("b", 1, 3)], 10, {"a": 4, "b": 3}),
        # Equal priority: turns, for the one with fewer above its minimum, and then by name.
        ([request("a", 2, 9), request("b", 1, 9)], 6, {"a": 3, "b": 3}),
        ([request("a", 2, 9), request("b", 2, 9, least=1)], 7, {"a": 3, "b": 4}),
        ([request("a", 2, 9), request("b", 2, 9)], 5, {"a": 3, "b": 2}),
        # A higher priority has all that is free, and nothing that others run.
        ([request("a", 2, 9), request("b", 1, 9, priority=1)], 6, {"a": 2, "b": 4}),
        # What wants less keeps what it has until it gives it up itself.
        ([request("a", 4, 1), request("b", 1, 9)], 6, {"a": 4, "b": 2}),
        # A lowered limit takes from the lowest priority first, there from the one with most above its minimum, and then from the last name.
        ([request("a", 3, 3, priority=1), request("b", 3, 3, least=1), request("c", 3, 3, least=1)], 6, {"a": 3, "b": 2, "c": 1}),
        ([request("a", 3, 3, priority=1), request("b", 3, 3, least=1), request("c", 3, 3, least=1)], 4, {"a": 2, "b": 1, "c": 1}),
        # Minima are had, whatever the limit.
        ([request("a", 3, 5, least=3), request("b", 2, 2, least=2)], 1, {"a": 3, "b": 2}),
        ([request("a", 0, 5, least=2), request("b", 5, 5)], 5, {"a": 2, "b": 3}),
        # Small replicas do not eat what a large one of a higher priority waits for.
        ([request("large", 0, 1, priority=1, cost=8), request("small", 2, 9)], 9, {"large": 0, "small": 2}),
        ([request("large", 0, 1, priority=1, cost=8), request("small", 2, 9)], 11, {"large": 1, "small": 3}),
        # Tenths add up to what people read.
        ([request("a", 0, 5, cost=0.1)], 0.3, {"a": 3}),
    ],
)  # fmt: skip
def test_allocations(requests: list[Request], limit: float, expected: dict[str, int]) -> None:
    assert granted(requests, limit) == expected


def test_a_grant_names_what_is_short() -> None:
    wants = Request("a", 0, 1, 1, 4, {GPUS: 8, "money": 20})
    idle = Request("b", 0, 1, 1, 4, {"link": 1})
    found = allocate([wants, idle], {GPUS: 24, "money": 40, "link": 100})
    assert found.grants["a"].replicas == 2
    assert found.grants["a"].short == ("money",)
    assert found.grants["b"].replicas == 4
    assert found.grants["b"].short == ()
    assert found.used == {GPUS: 16, "money": 40, "link": 4}


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="limit of gpus"):
        allocate([], {GPUS: math.nan})
    with pytest.raises(InvalidValueError, match="ask once"):
        allocate([request("a", 1, 1), request("a", 2, 2)], {GPUS: 3})
    with pytest.raises(InvalidValueError, match="pool a: cost in gpus"):
        request("a", 1, 1, cost=-1)


@st.composite
def requests(draw: st.DrawFn, resources: tuple[str, ...] = (GPUS,)) -> list[Request]:
    found = []
    for index in range(draw(st.integers(1, 6))):
        least = draw(st.integers(0, 4))
        costs = {name: draw(st.sampled_from([0.0, 0.1, 0.25, 1.0, 3.0, 8.0])) for name in resources}
        has, wanted = draw(st.integers(0, 12)), draw(st.integers(least, 12))
        found.append(Request(f"pool-{index}", draw(st.integers(0, 2)), has, least, wanted, costs))
    return found


def used(asked: list[Request], found: Allocation, resource: str = GPUS) -> float:
    return sum(found.grants[request.pool].replicas * request.costs[resource] for request in asked)


LIMITS = st.floats(0, 150)


@settings(max_examples=300)
@given(requests(("gpus", "money", "link")), LIMITS, LIMITS, LIMITS)
def test_limits_hold_where_minima_fit_and_bounds_hold_always(
    asked: list[Request], gpus: float, money: float, link: float
) -> None:
    limits = {"gpus": gpus, "money": money, "link": link}
    found = allocate(asked, limits)
    for request in asked:
        grant = found.grants[request.pool].replicas
        assert request.least <= grant <= max(request.has, request.wanted)
        if not found.grants[request.pool].short:
            assert grant == max(request.has, request.wanted)
    for resource, limit in limits.items():
        assert found.used[resource] == pytest.approx(used(asked, found, resource))
        minima = sum(request.least * request.costs[resource] for request in asked)
        assert found.used[resource] <= max(limit, minima) + 1e-6


@settings(max_examples=300)
@given(requests(), LIMITS, LIMITS)
def test_a_greater_limit_gives_no_pool_less(asked: list[Request], one: float, other: float) -> None:
    low, high = (granted(asked, limit) for limit in sorted((one, other)))
    assert all(low[pool] <= high[pool] for pool in low)


@settings(max_examples=300)
@given(requests(("gpus", "money")), LIMITS, LIMITS, st.randoms(use_true_random=False))
def test_the_order_of_requests_does_not_matter(
    asked: list[Request], gpus: float, money: float, shuffled: random.Random
) -> None:
    limits, other = {"gpus": gpus, "money": money}, list(asked)
    shuffled.shuffle(other)
    assert allocate(asked, limits) == allocate(other, dict(reversed(limits.items())))


@settings(max_examples=300)
@given(requests(), LIMITS)
def test_nothing_grows_while_a_higher_priority_waits_for_the_same(asked: list[Request], limit: float) -> None:
    found = granted(asked, limit)
    waiting = [request for request in asked if found[request.pool] < request.wanted and request.costs[GPUS] > 0]
    for request in asked:
        if found[request.pool] > max(request.has, request.least) and request.costs[GPUS] > 0:
            assert all(other.priority <= request.priority for other in waiting)


@settings(max_examples=300)
@given(requests(), LIMITS)
def test_nothing_is_taken_unless_what_runs_is_over_the_limit_and_then_from_below(
    asked: list[Request], limit: float
) -> None:
    found = granted(asked, limit)
    lost = [request for request in asked if found[request.pool] < request.has]
    if sum(max(request.has, request.least) * request.costs[GPUS] for request in asked) <= limit:
        assert not lost
    for request in lost:
        below = [other for other in asked if other.priority < request.priority and other.costs[GPUS] > 0]
        assert all(found[other.pool] == other.least for other in below)


@given(requests(), LIMITS)
def test_what_was_granted_stays_and_settles(asked: list[Request], limit: float) -> None:
    """What a lowered limit leaves free goes to those that wait, and that is the end of it."""
    rounds = [granted(asked, limit)]
    for _ in range(2):
        rounds.append(granted([replace(request, has=rounds[-1][request.pool]) for request in asked], limit))
    first, second, third = rounds
    assert all(first[pool] <= second[pool] for pool in first)
    assert second == third
