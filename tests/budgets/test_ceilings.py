"""What budgets leave to a pool, as pools decide one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from prfaas_core.autoscaling import Ceiling, ScalingReason
from prfaas_operator.objects import Ref
from prfaas_operator.scaling.budgets import Book, BudgetedPool, Budgets, Limit

GPUS, LINK = "east/accelerators", "east/bit/s of link west-to-east"
A, B, FIXED = Ref("PrefillPool", "t", "a"), Ref("PrefillPool", "t", "b"), Ref("DecodePool", "t", "c")


def pool(*, priority: int = 0, least: int = 1, most: int = 9, replicas: int = 1, cost: float = 8) -> BudgetedPool:
    return BudgetedPool(priority, replicas, least, most, {GPUS: cost})


@dataclass
class World:
    """The budgets of one namespace, and who was told."""

    limits: dict[str, Limit] = field(default_factory=lambda: {GPUS: Limit("east", "accelerators", 64)})
    pools: dict[Ref, BudgetedPool] = field(default_factory=lambda: {A: pool(), B: pool()})
    told: list[Ref] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budgets = Budgets(book=self.book, on_change=self.told.append)

    def book(self, namespace: str) -> Book | None:
        return Book(dict(self.limits), dict(self.pools)) if namespace == "t" else None

    def decide(self, ref: Ref, wanted: int) -> int:
        """Decide as the autoscaler does, and return the replicas."""
        least = self.pools[ref].least
        replicas = max(min([wanted, *(ceiling.replicas for ceiling in self.budgets.ceilings(ref))]), least)
        self.budgets.decided(ref, replicas, wanted)
        return replicas


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the clock by which books are read again."""
    now = [1000.0]
    monkeypatch.setattr("prfaas_operator.scaling.budgets.time.monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_two_pools_that_grow_in_one_round_share_what_is_free() -> None:
    world = World()
    assert [world.decide(A, 9), world.decide(B, 9)] == [7, 1]
    # From the next round on each leaves the other what it is known to want.
    assert [world.decide(A, 9), world.decide(B, 9)] == [7, 1]
    world = World()
    world.budgets.decided(B, 1, 9)
    assert [world.decide(A, 9), world.decide(B, 9)] == [4, 4]


def test_a_pool_leaves_what_a_higher_priority_wants() -> None:
    world = World(pools={A: pool(), B: pool(priority=1)})
    world.budgets.decided(B, 1, 5)
    assert world.decide(A, 9) == 3
    assert world.decide(B, 5) == 5


def test_a_ceiling_says_which_budget_and_how_much() -> None:
    world = World(pools={A: pool(replicas=2), FIXED: pool(least=5, most=5, replicas=5)})
    assert world.budgets.ceilings(A) == (
        Ceiling(
            3,
            ScalingReason.BUDGET_CEILING,
            "budget east grants 3 replicas: 56 of 64 accelerators are in use, and a worker takes 8",
        ),
    )
    assert world.budgets.ceilings(FIXED) == ()
    assert world.budgets.ceilings(Ref("PrefillPool", "other", "a")) == ()
    world.limits[GPUS] = Limit("east", "accelerators", 1000)
    assert World(limits=world.limits, pools=world.pools).budgets.ceilings(A) == ()


def test_what_still_drains_is_free_for_its_own_pool_only() -> None:
    """A shrank from 5 to 2, and three of its workers finish what they have; there are 8 workers' worth."""
    draining = {A: replace(pool(replicas=2), existing=5), B: replace(pool(replicas=3), existing=3)}
    world = World(pools=draining)
    assert world.decide(B, 9) == 3
    (ceiling,) = world.budgets.ceilings(B)
    assert "64 of 64 accelerators are in use (24 of them by workers that leave)" in ceiling.message
    world = World(pools=draining)
    assert world.decide(A, 9) == 5
    # They are gone, and free for whoever wants them.
    world = World(pools={A: replace(pool(replicas=2), existing=2), B: replace(pool(replicas=3), existing=3)})
    assert world.decide(B, 9) == 6


def test_nobody_shrinks_because_others_drain() -> None:
    """The limit was lowered to 4 workers' worth, and A does its part; what it still drains takes nothing away from B."""
    limits = {GPUS: Limit("east", "accelerators", 32)}
    world = World(
        limits=limits, pools={A: replace(pool(replicas=2), existing=6), B: replace(pool(replicas=2), existing=2)}
    )
    assert world.decide(B, 2) == 2
    (ceiling,) = world.budgets.ceilings(B)
    assert (ceiling.replicas, ceiling.hard) == (2, False)


def test_a_rollouts_extra_worker_counts() -> None:
    world = World(pools={FIXED: replace(pool(least=5, most=5, replicas=5), existing=6), A: replace(pool(), existing=1)})
    assert world.decide(A, 9) == 2
    balance = world.budgets.balance("t")
    assert balance is not None
    assert balance.book.used(GPUS, balance.has) == (64, 8)


def test_only_a_budget_that_was_lowered_takes_away(clock: Callable[[float], None]) -> None:
    world = World()
    assert [world.decide(A, 4), world.decide(B, 4)] == [4, 4]
    (ceiling,) = world.budgets.ceilings(B)
    assert not ceiling.hard
    world.limits[GPUS] = Limit("east", "accelerators", 40)
    clock(2)
    (ceiling,) = world.budgets.ceilings(B)
    assert (ceiling.replicas, ceiling.hard) == (2, True)
    assert [world.decide(A, 4), world.decide(B, 4)] == [3, 2]


def test_a_link_takes_nothing_away_however_full_it_is() -> None:
    link = {LINK: Limit("east", "bit/s of link west-to-east", 10e9, measured=True)}
    busy = replace(pool(replicas=4), costs={LINK: 4e9})
    (ceiling,) = World(limits=link, pools={A: busy}).budgets.ceilings(A)
    assert (ceiling.replicas, ceiling.hard) == (4, False)
    quiet = replace(pool(replicas=4), costs={LINK: 1.5e9})
    (ceiling,) = World(limits=link, pools={A: quiet}).budgets.ceilings(A)
    assert ceiling.replicas == 6


def test_what_costs_nobody_knows_how_much_holds() -> None:
    unknown = replace(
        pool(replicas=3), costs={}, unknown={GPUS: "ModelProfile p gives no accelerator.costPerHour; set it"}
    )
    (ceiling,) = World(pools={A: unknown}).budgets.ceilings(A)
    assert (ceiling.replicas, ceiling.hard) == (3, False)
    assert ceiling.message == "budget east holds 3 replicas: ModelProfile p gives no accelerator.costPerHour; set it"


def test_a_budget_hears_when_pools_ask_for_something_else() -> None:
    world = World()
    for _ in range(2):
        world.budgets.decided(A, 2, 3)
    assert world.told == [Ref("Budget", "t", "east")]
    world.budgets.decided(A, 2, None)
    assert len(world.told) == 2
    balance = world.budgets.balance("t")
    assert balance is not None
    assert (balance.has[A], balance.wanted[A]) == (2, 2)


def test_the_first_budget_of_a_namespace_is_heeded_as_soon_as_it_is_looked_at() -> None:
    world = World(limits={})
    found: list[Book | None] = [None]
    budgets = Budgets(book=lambda _: found[0], on_change=world.told.append)
    assert budgets.ceilings(A) == ()
    found[0] = Book({GPUS: Limit("east", "accelerators", 8)}, {A: pool()})
    assert budgets.balance("t") is not None
    assert [ceiling.replicas for ceiling in budgets.ceilings(A)] == [1]
