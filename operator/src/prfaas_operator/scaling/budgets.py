"""What budgets leave to each pool.

What pools ask for counts, whether or not its pods are there yet, and so do workers that are still there though nobody asks for
them: they drain, or a rollout replaces them. Those are in the way of other pools only; their own may take them back. Pools decide
one after the other, each right after it asked for its ceiling, so two of them never take the same free accelerator; and one that
decides early in a round leaves what pools of a higher priority wanted the last time.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from prfaas_core.autoscaling import Ceiling, ScalingReason
from prfaas_core.autoscaling.budget import Allocation, Grant, Request, allocate
from prfaas_operator.objects import Ref

# Prices and links change slowly. What pools ask for, which does not, is always that of now.
_BOOK_AGE_S = 1.0


@dataclass(frozen=True, slots=True)
class Limit:
    """One resource of a budget.

    Attributes:
        resource: its name, for people.
        limit: how much there is.
        measured: what a replica takes is measured and wavers, so it takes nothing away from a pool.
    """

    budget: str
    resource: str
    limit: float
    measured: bool = False


@dataclass(frozen=True, slots=True)
class BudgetedPool:
    """A pool as budgets see it.

    Attributes:
        replicas: asked for, as long as the autoscaler does not say otherwise.
        least, most: its bounds; both are `replicas` where that is fixed.
        costs: of one replica, by the key of the limit.
        unknown: why what a replica takes is not known, by the key of the limit.
        existing: workers that there are.
    """

    priority: int
    replicas: int
    least: int
    most: int
    costs: Mapping[str, float]
    unknown: Mapping[str, str] = field(default_factory=dict)
    existing: int = 0

    @property
    def fixed(self) -> bool:
        return self.least == self.most == self.replicas


@dataclass(frozen=True, slots=True)
class Book:
    """The budgets of one namespace and their pools, by key and reference."""

    limits: Mapping[str, Limit]
    pools: Mapping[Ref, BudgetedPool]

    def left(self, key: str, has: Mapping[Ref, int], besides: Ref | None = None) -> float:
        """Return what workers take of a limit that nobody asks for any more, those of one pool left out.

        What is measured has them in it.
        """
        if self.limits[key].measured:
            return 0.0
        return sum(
            max(0, pool.existing - has[ref]) * pool.costs.get(key, 0.0)
            for ref, pool in self.pools.items()
            if ref != besides
        )

    def used(self, key: str, has: Mapping[Ref, int]) -> tuple[float, float]:
        """Return what is used of a limit, and how much of that by workers that nobody asks for any more."""
        left = self.left(key, has)
        return left + sum(has[ref] * pool.costs.get(key, 0.0) for ref, pool in self.pools.items()), left


@dataclass(frozen=True, slots=True)
class Balance:
    """What pools have and want of a book, and what they may have."""

    book: Book
    has: Mapping[Ref, int]
    wanted: Mapping[Ref, int]
    allocation: Allocation

    def granted(self, ref: Ref) -> int:
        return self.allocation.grants[str(ref)].replicas

    def short(self, ref: Ref) -> tuple[str, ...]:
        """Return the keys of the limits that hold a pool back, and of those for which its cost is not known."""
        return _short(self.allocation.grants[str(ref)], self.book.pools[ref])


@dataclass(slots=True)
class _Account:
    """A book with what pools ask for.

    Attributes:
        demand: of each limit, if every pool had what it wants.
    """

    book: Book
    requests: dict[Ref, Request] = field(default_factory=dict)
    demand: dict[str, float] = field(default_factory=dict)

    def enter(self, ref: Ref, request: Request) -> None:
        before = self.requests.get(ref)
        for sign, item in ((-1, before), (1, request)):
            if item is not None:
                for key, cost in item.costs.items():
                    self.demand[key] = self.demand.get(key, 0.0) + sign * cost * max(item.has, item.least, item.wanted)
        self.requests[ref] = request

    @property
    def has(self) -> Mapping[Ref, int]:
        return {ref: request.has for ref, request in self.requests.items()}

    def holds(self, ref: Ref, request: Request) -> bool:
        """Return whether there is enough for everybody, with one pool's request in the place of the one that is known."""
        before, has = self.requests[ref], self.has
        more = max(request.wanted, request.has, request.least) - max(before.wanted, before.has, before.least)
        return all(
            self.demand[key] + more * cost + self.book.left(key, has, besides=ref) <= self.book.limits[key].limit
            for key, cost in request.costs.items()
        )

    def allocate(self, requests: Mapping[Ref, Request], for_: Ref | None = None) -> Allocation:
        """Return what every pool may have; what workers take that leave is free for their own pool only."""
        has, limits = self.has, {}
        for key, limit in self.book.limits.items():
            running = sum(max(item.has, item.least) * item.costs.get(key, 0.0) for item in requests.values())
            # Only a limit that was lowered takes workers away, and not that others still drain.
            kept = running if limit.measured else min(running, limit.limit)
            limits[key] = max(limit.limit - self.book.left(key, has, besides=for_), kept)
        return allocate(requests.values(), limits)


class Budgets:
    """Says how many replicas budgets leave to a pool.

    `book` returns the budgets of a namespace, None if it has none; `on_change` hears which Budget has something new to
    say.
    """

    def __init__(self, *, book: Callable[[str], Book | None], on_change: Callable[[Ref], None]) -> None:
        self._read = book
        self._on_change = on_change
        self._accounts: dict[str, tuple[float, _Account | None]] = {}
        self._asked: dict[Ref, tuple[int, int]] = {}

    def ceilings(self, ref: Ref) -> tuple[Ceiling, ...]:
        """Return the most that a pool may have: as if it wanted all it can have, and the others what they wanted last."""
        account = self._account(ref.namespace)
        pool = account.book.pools.get(ref) if account is not None else None
        if account is None or pool is None or pool.fixed:
            return ()
        request = account.requests[ref]
        if not pool.unknown:
            request = replace(request, wanted=max(pool.most, request.wanted))
            if account.holds(ref, request):
                return ()
        grant = account.allocate({**account.requests, ref: request}, for_=ref).grants[str(ref)]
        short = _short(grant, pool)
        if not short:
            return ()
        message = "; ".join(_described(account, ref, grant.replicas, key) for key in short)
        return (Ceiling(grant.replicas, ScalingReason.BUDGET_CEILING, message, hard=grant.replicas < request.has),)

    def decided(self, ref: Ref, replicas: int, wanted: int | None) -> None:
        """Take a decision on a pool: what it asks for, and what it would without ceilings; None where it just holds."""
        account = self._account(ref.namespace)
        pool = account.book.pools.get(ref) if account is not None else None
        asked = (replicas, replicas if wanted is None else wanted)
        if account is None or pool is None or self._asked.get(ref) == asked:
            return
        self._asked[ref] = asked
        account.enter(ref, self._request(ref, pool))
        for name in {account.book.limits[key].budget for key in (*pool.costs, *pool.unknown)}:
            self._on_change(Ref("Budget", ref.namespace, name))

    def balance(self, namespace: str) -> Balance | None:
        """Return what is used and wanted of a namespace's budgets; None if it has none."""
        self._accounts.pop(namespace, None)
        account = self._account(namespace)
        if account is None:
            return None
        has, wanted = {}, {}
        for ref, pool in account.book.pools.items():
            has[ref], wanted[ref] = self._numbers(ref, pool)
        return Balance(account.book, has, wanted, account.allocate(account.requests))

    def _account(self, namespace: str) -> _Account | None:
        now_s, known = time.monotonic(), self._accounts.get(namespace)
        # A namespace without budgets costs nothing: of its first one `balance` is asked.
        if known is not None and (known[1] is None or now_s - known[0] <= _BOOK_AGE_S):
            return known[1]
        book, account = self._read(namespace), None
        if book is not None:
            account = _Account(book)
            for gone in [ref for ref in self._asked if ref.namespace == namespace and ref not in book.pools]:
                del self._asked[gone]
            for ref, pool in book.pools.items():
                account.enter(ref, self._request(ref, pool))
        self._accounts[namespace] = (now_s, account)
        return account

    def _request(self, ref: Ref, pool: BudgetedPool) -> Request:
        has, wanted = self._numbers(ref, pool)
        # What nobody can reckon with does not grow.
        wanted = max(has, pool.least) if pool.unknown else wanted
        return Request(str(ref), pool.priority, has, pool.least, wanted, pool.costs)

    def _numbers(self, ref: Ref, pool: BudgetedPool) -> tuple[int, int]:
        """Return what a pool has and wants."""
        if pool.fixed:
            return pool.replicas, pool.replicas
        has, wanted = self._asked.get(ref, (pool.replicas, pool.replicas))
        return has, min(max(wanted, pool.least), pool.most)


def _short(grant: Grant, pool: BudgetedPool) -> tuple[str, ...]:
    return tuple(sorted({*grant.short, *pool.unknown}))


def _described(account: _Account, ref: Ref, granted: int, key: str) -> str:
    limit, pool = account.book.limits[key], account.book.pools[ref]
    if key in pool.unknown:
        return f"budget {limit.budget} holds {granted} replicas: {pool.unknown[key]}"
    used, left = account.book.used(key, account.has)
    leaving = f" ({left:.4g} of them by workers that leave)" if left else ""
    return (
        f"budget {limit.budget} grants {granted} replicas: {used:.4g} of {limit.limit:.4g} {limit.resource} "
        f"are in use{leaving}, and a worker takes {pool.costs[key]:.4g}"
    )
