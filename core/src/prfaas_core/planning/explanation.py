"""What binds a plan, how much the rest has to spare, what more of each would give, and the next-best moves.

The shadow price of a resource is the derivative of the highest rate by it: `rate * dual price`, requests/s for one more instance
or Gbit/s. It holds for a little more; what a whole instance, or another pool, gives is solved again.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

from prfaas_core.planning.assignment import loads
from prfaas_core.planning.demand import Demand
from prfaas_core.planning.fleet import Bounds, Counts, Fleet, InstancePool
from prfaas_core.planning.sizing import Sizing, carried, decode_rate, within

_BINDING = 1e-6
_TRIES = 100


class Kind(enum.StrEnum):
    """What a resource is."""

    PREFILL = "prefill"
    DECODE = "decode"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Resource:
    """One pool or link at the planned rate.

    Attributes:
        capacity: instances, or Gbit/s that PrfaaS may use.
        used: of them, at the planned rate.
        rps_per_unit: requests/s that one more instance or Gbit/s adds to the highest rate.
    """

    kind: Kind
    name: str
    capacity: float
    used: float
    rps_per_unit: float

    @property
    def utilisation(self) -> float:
        """Fraction in use; 0 of nothing."""
        return self.used / self.capacity if self.capacity else 0.0

    @property
    def slack(self) -> float:
        """Instances or Gbit/s to spare."""
        return self.capacity - self.used


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a fleet carries no more.

    Attributes:
        highest_rate: requests/s.
        resources: all pools and links, the most valuable first.
        pool_prices, link_prices: of the assignment with the highest rate, for decisions on single requests: a request of
            length l takes `pool_prices[pool] * T(l) + link_prices[link] * bits(l)` seconds of the fleet's time.
    """

    highest_rate: float
    resources: tuple[Resource, ...]
    pool_prices: tuple[tuple[str, float], ...]
    link_prices: tuple[tuple[str, float], ...]

    @property
    def binding(self) -> tuple[Resource, ...]:
        """What limits the highest rate: all of these together, since lengths can move between prefill pools."""
        return tuple(resource for resource in self.resources if resource.rps_per_unit > 0)


@dataclass(frozen=True, slots=True)
class Move:
    """One change of the fleet and what it gives.

    Attributes:
        what: for people.
        rate: the highest rate after it, requests/s.
        gain: of the rate.
        cost_per_hour: of the instances added.
    """

    what: str
    rate: float
    gain: float
    cost_per_hour: float


def explain(demand: Demand, sizing: Sizing, rate: float) -> Explanation:
    """Return what binds a sizing, and what is in use when it runs at `rate`."""
    counts, limit = sizing.counts, sizing.limit
    decode = {cluster.cluster.decode.name: decode_rate(cluster, counts) for cluster in demand.clusters}
    highest = min(limit.rate, *decode.values())
    prefill_binds = limit.rate <= highest * (1 + _BINDING)
    tightest = [name for name, value in decode.items() if value <= highest * (1 + _BINDING)]
    asked = loads(demand, sizing.assignment.parts)
    busy, bits = asked.busy_s, asked.bits
    absorbing = {cluster.cluster.decode.name: cluster for cluster in demand.clusters if cluster.local_absorbs}
    found = []
    for pool in _prefill_pools(demand):
        name = pool.name
        used = rate * (busy.get(name, 0.0) + (absorbing[name].decode_s if name in absorbing else 0.0))
        price = highest * limit.pool_prices.get(name, 0.0) if prefill_binds else 0.0
        found.append(Resource(Kind.PREFILL, name, counts[name], used, price))
    for cluster in demand.clusters:
        name = cluster.cluster.decode.name
        if name not in absorbing:
            # Where prefill or a second cluster binds as well, more decode alone gives nothing.
            alone = tightest == [name] and not prefill_binds
            price = highest / counts[name] if alone else 0.0
            found.append(Resource(Kind.DECODE, name, counts[name], rate * cluster.decode_s, price))
    for link in demand.fleet.lines():
        price = highest * limit.link_prices.get(link.name, 0.0) * 1e9 if prefill_binds else 0.0
        found.append(Resource(Kind.LINK, link.name, link.usable_bps / 1e9, rate * bits[link.name] / 1e9, price))
    return Explanation(
        highest_rate=highest,
        resources=tuple(sorted(found, key=lambda one: (-one.rps_per_unit, -one.utilisation, one.name))),
        pool_prices=tuple(sorted(limit.pool_prices.items())),
        link_prices=tuple(sorted(limit.link_prices.items())),
    )


def next_moves(demand: Demand, sizing: Sizing, explanation: Explanation, limit: int) -> tuple[Move, ...]:
    """Return the moves that add most to the highest rate, at most `limit`, of those that add anything.

    Tried are one more instance or Gbit/s of what binds, and one more pool like the most valuable remote one; in large fleets only
    the two most valuable, since each try solves the whole assignment again.
    """
    moves = []
    tries = min(limit, max(2, _TRIES // max(len(cluster.ways) for cluster in demand.clusters)))
    prefill = {pool.name for pool in _prefill_pools(demand)}
    for what, cost, fleet, counts in _candidates(demand.fleet, sizing.counts, explanation, tries):
        changed = demand if fleet is demand.fleet else Demand.of(fleet, max(len(c.weights) for c in demand.clusters))
        if fleet is demand.fleet and all(counts[name] == sizing.counts[name] for name in prefill):
            rate = within(demand, counts, sizing.limit).rate  # only decode has changed
        else:
            rate = carried(changed, counts, sizing.limit).rate
        if rate > explanation.highest_rate * (1 + _BINDING):
            moves.append(Move(what, rate, rate - explanation.highest_rate, cost))
    return tuple(sorted(moves, key=lambda move: (-move.gain, move.cost_per_hour, move.what))[:limit])


def _candidates(
    fleet: Fleet, counts: Counts, explanation: Explanation, limit: int
) -> Iterator[tuple[str, float, Fleet, dict[str, int]]]:
    pools = {pool.name: pool for pool in fleet.instance_pools()}
    binding = explanation.binding
    if not binding:
        # Several limits at once: each alone gives nothing, so look at the fullest.
        binding = tuple(sorted(explanation.resources, key=lambda one: (-one.utilisation, one.name)))
    for resource in binding[:limit]:
        if resource.kind is Kind.LINK:
            links = tuple(
                replace(link, capacity_bps=link.capacity_bps + 1e9 / link.share) if link.name == resource.name else link
                for link in fleet.links
            )
            yield f"1 Gbit/s more for {resource.name}", 0.0, replace(fleet, links=links), dict(counts)
        else:
            pool = pools[resource.name]
            more = {**counts, pool.name: counts[pool.name] + 1}
            yield f"one more instance of {pool.name} ({pool.profile.accelerator})", pool.price_per_hour, fleet, more
    remote = {pool.name for pool in fleet.pools}
    best = next((one for one in binding if one.name in remote), None)
    if best is not None:
        yield _second(fleet, counts, pools[best.name])


def _second(fleet: Fleet, counts: Counts, pool: InstancePool) -> tuple[str, float, Fleet, dict[str, int]]:
    name, count = f"{pool.name} (second)", max(1, counts[pool.name])
    links = tuple(replace(link, pool=name, line="") for link in fleet.links if link.pool == pool.name)
    twin = replace(pool, name=name, instances=Bounds.exactly(count))
    larger = replace(fleet, pools=(*fleet.pools, twin), links=(*fleet.links, *links))
    what = f"a second pool like {pool.name} with {count} instances, and its own link"
    return what, count * pool.price_per_hour, larger, {**counts, name: count}


def _prefill_pools(demand: Demand) -> tuple[InstancePool, ...]:
    return (*demand.fleet.pools, *(cluster.ways[0].pool for cluster in demand.clusters))
