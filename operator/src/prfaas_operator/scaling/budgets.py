"""What budgets leave to each pool.

Use is planned: what pools ask for counts, and not which pods there are. Pools decide one after the other, each right after it
asked for its ceiling, so two of them never take the same free accelerator; and one that decides early in a round leaves
what pools of a higher priority wanted the last time.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from prfaas_core.autoscaling import Ceiling, ScalingReason
from prfaas_core.autoscaling.budget import Allocation, Request, allocate
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
    """

    priority: int
    replicas: int
    least: int
    most: int
    costs: Mapping[str, float]
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def fixed(self) -> bool:
        return self.least == self.most == self.replicas


@dataclass(frozen=True, slots=True)
class Book:
    """The budgets of one namespace and their pools, by key and reference."""

    limits: Mapping[str, Limit]
    pools: Mapping[Ref, BudgetedPool]


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
        return tuple(sorted({*self.allocation.grants[str(ref)].short, *self.book.pools[ref].unknown}))


class Budgets:
    """Says how many replicas budgets leave to a pool.

    `book` returns the budgets of a namespace, None if it has none; `on_change` hears which Budget has something new to
    say.
    """

    def __init__(self, *, book: Callable[[str], Book | None], on_change: Callable[[Ref], None]) -> None:
        self._read = book
        self._on_change = on_change
        self._books: dict[str, tuple[float, Book | None]] = {}
        self._asked: dict[Ref, tuple[int, int]] = {}

    def ceilings(self, ref: Ref) -> tuple[Ceiling, ...]:
        """Return the most that a pool may have: as if it wanted all it can have, and the others what they wanted last."""
        book = self._book(ref.namespace)
        pool = book.pools.get(ref) if book is not None else None
        if book is None or pool is None or pool.fixed:
            return ()
        found = self._balance(book, everything=ref)
        short = found.short(ref)
        if not short:
            return ()
        has, granted = found.has[ref], found.granted(ref)
        message = "; ".join(_described(found, ref, key) for key in short)
        return (Ceiling(granted, ScalingReason.BUDGET_CEILING, message, hard=granted < has),)

    def decided(self, ref: Ref, replicas: int, wanted: int | None) -> None:
        """Take a decision on a pool: what it asks for, and what it would without ceilings; None where it just holds."""
        asked = (replicas, replicas if wanted is None else wanted)
        if self._asked.get(ref) == asked:
            return
        self._asked[ref] = asked
        book = self._book(ref.namespace)
        pool = book.pools.get(ref) if book is not None else None
        if book is not None and pool is not None:
            for name in {book.limits[key].budget for key in (*pool.costs, *pool.unknown)}:
                self._on_change(Ref("Budget", ref.namespace, name))

    def balance(self, namespace: str) -> Balance | None:
        """Return what is used and wanted of a namespace's budgets; None if it has none."""
        self._books.pop(namespace, None)
        book = self._book(namespace)
        return self._balance(book) if book is not None else None

    def _book(self, namespace: str) -> Book | None:
        now_s = time.monotonic()
        read_at_s, book = self._books.get(namespace, (float("-inf"), None))
        if now_s - read_at_s > _BOOK_AGE_S:
            book = self._read(namespace)
            self._books[namespace] = (now_s, book)
        return book

    def _balance(self, book: Book, everything: Ref | None = None) -> Balance:
        has: dict[Ref, int] = {}
        wanted: dict[Ref, int] = {}
        requests = []
        for ref, pool in book.pools.items():
            has[ref], wanted[ref] = pool.replicas, pool.replicas
            if not pool.fixed:
                has[ref], wanted[ref] = self._asked.get(ref, (pool.replicas, pool.replicas))
                wanted[ref] = pool.most if ref == everything else min(max(wanted[ref], pool.least), pool.most)
            # What nobody can reckon with does not grow.
            asked = max(has[ref], pool.least) if pool.unknown else wanted[ref]
            requests.append(Request(str(ref), pool.priority, has[ref], pool.least, asked, pool.costs))
        limits = {}
        for key, limit in book.limits.items():
            running = sum(max(request.has, request.least) * request.costs.get(key, 0.0) for request in requests)
            limits[key] = max(limit.limit, running) if limit.measured else limit.limit
        return Balance(book, has, wanted, allocate(requests, limits))


def _described(found: Balance, ref: Ref, key: str) -> str:
    limit, pool = found.book.limits[key], found.book.pools[ref]
    if key in pool.unknown:
        return f"budget {limit.budget} holds {found.has[ref]} replicas: {pool.unknown[key]}"
    used = sum(found.has[other] * item.costs.get(key, 0.0) for other, item in found.book.pools.items())
    return (
        f"budget {limit.budget} grants {found.granted(ref)} replicas: {used:.4g} of {limit.limit:.4g} {limit.resource} "
        f"are in use, and a worker takes {pool.costs[key]:.4g}"
    )
