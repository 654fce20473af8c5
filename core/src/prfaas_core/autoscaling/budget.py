"""Who gets what is scarce: accelerators, money per hour, the share of a link.

`allocate` is a function of (requests, limits). Every pool has at least its minimum, and what it has is not taken away, with one
exception: where that is more than a limit allows, because the limit was lowered or a minimum raised, replicas go, those of
the lowest priority first, there of the pool with the most above its minimum, but none below a minimum. If even the minima exceed a limit, it is overrun.

What is free then goes to pools that want to grow: the highest priority first; pools of equal priority take turns, one replica at
a time: next is the pool with the fewest replicas above its minimum, then the first by name. So it does not matter who asked
first. A resource that was too short for a pool's next replica gives nothing to those behind
it. Otherwise pools with small replicas would for ever eat what one with a large replica waits for.

Of two limits on the same resource, the greater never gives a pool less, as long as no other resource binds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prfaas_core import errors

# Costs are sums of fractions; a budget of 0.3 holds three replicas of 0.1.
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Request:
    """What one pool has and wants.

    Attributes:
        pool: a name, once.
        priority: higher first.
        has: replicas that are asked for now.
        least: its minimum.
        wanted: replicas that it would have without a budget.
        costs: of one replica, by resource; a resource that is not among them is not used.
    """

    pool: str
    priority: int
    has: int
    least: int
    wanted: int
    costs: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, number in (("has", self.has), ("least", self.least), ("wanted", self.wanted)):
            errors.count(f"pool {self.pool}: {name}", number)
        for resource, cost in self.costs.items():
            errors.non_negative(f"pool {self.pool}: cost in {resource}", cost)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one pool may have; `short` names the resources for want of which it is fewer than it has or wants."""

    replicas: int
    short: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Allocation:
    """What every pool may have, and what of each resource that takes."""

    grants: Mapping[str, Grant]
    used: Mapping[str, float]


def allocate(requests: Iterable[Request], limits: Mapping[str, float]) -> Allocation:
    """Return what each pool may have.

    Raises:
        InvalidValueError: a limit is not a number of at least 0, or a pool asks twice.
    """
    for resource, limit in limits.items():
        errors.non_negative(f"limit of {resource}", limit)
    order = sorted(requests, key=lambda request: (-request.priority, request.pool))
    state = _State(limits, {request.pool: max(request.has, request.least) for request in order})
    if len(state.replicas) < len(order):
        raise errors.InvalidValueError("requests", [request.pool for request in order], "let each pool ask once")
    for request in order:
        state.take(request, state.replicas[request.pool])
    _shrink(order, state)
    _grow(order, state)
    grants = {
        pool: Grant(replicas, tuple(sorted(state.short.get(pool, ())))) for pool, replicas in state.replicas.items()
    }
    return Allocation(grants, state.used)


@dataclass(slots=True)
class _State:
    limits: Mapping[str, float]
    replicas: dict[str, int]
    used: dict[str, float] = field(default_factory=dict)
    short: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.used = dict.fromkeys(self.limits, 0.0)

    def take(self, request: Request, replicas: int) -> None:
        for resource, cost in request.costs.items():
            if resource in self.used:
                self.used[resource] += replicas * cost

    def give(self, request: Request, replicas: int) -> None:
        self.replicas[request.pool] += replicas
        self.take(request, replicas)

    def above(self, request: Request) -> int:
        """Return how many replicas a pool has above its minimum."""
        return self.replicas[request.pool] - request.least

    def lacks(self, request: Request, replicas: int) -> set[str]:
        """Return the resources that do not hold so many replicas more."""
        return {
            resource
            for resource, cost in request.costs.items()
            if cost > 0
            and (limit := self.limits.get(resource)) is not None
            and self.used[resource] + replicas * cost > limit + _EPSILON * max(1.0, limit)
        }

    def room(self, request: Request) -> int:
        """Return how many replicas more, at least 1, a pool wants and the limits hold."""
        found = request.wanted - self.replicas[request.pool]
        for resource, cost in request.costs.items():
            limit = self.limits.get(resource)
            if cost > 0 and limit is not None:
                left = limit + _EPSILON * max(1.0, limit) - self.used[resource]
                found = min(found, int(min(left / cost, found)))
        return max(found, 1)

    def refuse(self, request: Request, resources: Iterable[str]) -> None:
        self.short.setdefault(request.pool, set()).update(resources)


def _shrink(order: Sequence[Request], state: _State) -> None:
    """Take replicas away until the limits hold, or only minima are left."""
    for turn in _turns(reversed(order)):
        heap = [(-state.above(request), place, request) for place, request in enumerate(turn)]
        heapq.heapify(heap)
        while heap:
            _, place, request = heapq.heappop(heap)
            over = state.lacks(request, 0)
            if not over or state.above(request) == 0:
                continue
            state.give(request, -1)
            state.refuse(request, over)
            heapq.heappush(heap, (-state.above(request), place, request))


def _grow(order: Sequence[Request], state: _State) -> None:
    """Give what is free."""
    # What a pool had to give up is not for another one to take.
    closed = {resource for resources in state.short.values() for resource in resources}
    for turn in _turns(order):
        wanting = [request for request in turn if state.replicas[request.pool] < request.wanted]
        heap = [(state.above(request), place, request) for place, request in enumerate(wanting)]
        heapq.heapify(heap)
        while heap:
            _, place, request = heapq.heappop(heap)
            short = {resource for resource in closed if request.costs.get(resource, 0.0) > 0} | state.lacks(request, 1)
            if short:
                closed |= short
                state.refuse(request, short)
                continue
            # Alone, a pool need not take its turns one by one.
            state.give(request, 1 if heap else state.room(request))
            if state.replicas[request.pool] < request.wanted:
                heapq.heappush(heap, (state.above(request), place, request))


def _turns(order: Iterable[Request]) -> list[list[Request]]:
    """Return the requests in groups of equal priority, in the order that is given."""
    groups: dict[int, list[Request]] = {}
    for request in order:
        groups.setdefault(request.priority, []).append(request)
    return list(groups.values())
