"""How many instances of each pool, and how many of a decode cluster's own for prefill.

Counts are whole numbers, so this is an integer program. It is solved by its linear relaxation, which bounds it, rounding up, and
taking away again what is not needed; `Sizing.cost_bound` says how far the result can be from the best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from prfaas_core import errors
from prfaas_core.planning.assignment import Assignment, Tier, cheapest, fastest, loads
from prfaas_core.planning.demand import ClusterDemand, Demand
from prfaas_core.planning.fleet import Bounds, Counts, DecodeCluster, Fleet

_ROUNDING = 1e-9
_TRIALS = 400
"""Instances times ways up to which rounding tries to take instances away; the time of a plan stays bounded."""


class UnreachableRateError(errors.CoreError, ValueError):
    """No choice within the bounds carries the rate asked for."""

    def __init__(self, rate: float, reachable: float) -> None:
        self.rate, self.reachable = rate, reachable
        super().__init__(
            f"rate: {rate:.4g} requests/s cannot be carried, at most {reachable:.4g}; raise the upper bounds of pools or "
            "the shares of links, or ask for less"
        )


@dataclass(frozen=True, slots=True)
class Sizing:
    """Counts and what they carry.

    Attributes:
        assignment: what runs; `limit` is the one that carries most, and may be the same.
        rate: the most they carry, requests/s: of prefill and decode the lower.
        cost_bound: no counts within the bounds carry the rate asked for at a lower cost an hour, of instances and bytes;
            0 when nothing was asked for, or instances have no prices.
    """

    counts: Counts
    assignment: Assignment
    limit: Assignment
    rate: float
    cost_bound: float = 0.0


def decode_rate(cluster: ClusterDemand, counts: Counts) -> float:
    """Return the rate of the fleet at which the cluster's decode instances are full; infinite where they prefill too."""
    return math.inf if cluster.local_absorbs else counts[cluster.cluster.decode.name] / cluster.decode_s


def carried(demand: Demand, counts: Counts, start: Assignment | None = None) -> Sizing:
    """Return what so many instances carry."""
    return within(demand, counts, fastest(demand, counts, start))


def within(demand: Demand, counts: Counts, limit: Assignment) -> Sizing:
    """Return what is carried when `limit` is the most that the prefill side can do."""
    rate = min(limit.rate, *(decode_rate(cluster, counts) for cluster in demand.clusters))
    return Sizing(dict(counts), limit, limit, rate)


def at_thresholds(fleet: Fleet, counts: Counts, thresholds: Mapping[str, int]) -> float:
    """Return the highest rate when routers have only thresholds, in tokens by cluster, and spread what is longer over the remote
    pools as well as can be.

    Where nothing remote can be used everything stays, as routers do it; a cluster without local prefill then carries nothing.
    """
    usable = {link.cluster for link in fleet.links if link.usable_bps > 0 and counts[link.pool] > 0}
    kept = {name: tokens for name, tokens in thresholds.items() if name in usable}
    demand = Demand.of(fleet, thresholds=kept)
    for cluster in demand.clusters:
        if cluster.split != 0 and counts[cluster.ways[0].pool.name] == 0:
            return 0.0
    return carried(demand, counts).rate


def largest(demand: Demand) -> Sizing:
    """Return the counts that carry most: every upper bound, and the best roles where roles are exchanged."""
    counts = demand.fleet.most()
    exchanging = [cluster for cluster in demand.fleet.clusters if cluster.role_total is not None]
    if not exchanging:
        return carried(demand, counts)
    counts |= _ideal_roles(demand.fleet, exchanging)
    best = carried(demand, counts)
    improved = True
    while improved:
        improved = False
        for cluster in exchanging:
            for step in (1, -1):
                changed = _with_prefill(cluster, best.counts, step)
                found = carried(demand, changed, best.assignment) if changed is not None else None
                if found is not None and found.rate > best.rate * (1 + _ROUNDING):
                    best, improved = found, True
    return best


def _ideal_roles(fleet: Fleet, exchanging: Iterable[DecodeCluster]) -> dict[str, int]:
    """Return the roles nearest to those that a fleet would take whose instances could do both at once."""
    names = {cluster.name for cluster in exchanging}
    merged = Fleet(tuple(_merged(c) if c.name in names else c for c in fleet.clusters), fleet.pools, fleet.links)
    demand = Demand.of(merged)
    assignment = fastest(demand, merged.most())
    busy = loads(demand, assignment.parts).busy_s
    counts = {}
    for cluster in fleet.clusters:
        if cluster.name in names and cluster.local is not None and cluster.role_total is not None:
            ideal = round(assignment.rate * busy.get(cluster.decode.name, 0.0))
            prefill = min(max(ideal, 1), cluster.role_total - 1)
            counts[cluster.local.name], counts[cluster.decode.name] = prefill, cluster.role_total - prefill
    return counts


def _merged(cluster: DecodeCluster) -> DecodeCluster:
    if cluster.local is None or cluster.role_total is None:
        return cluster
    profile = replace(cluster.decode.profile, prefill_s=cluster.local.profile.prefill_s)
    decode = replace(cluster.decode, profile=profile, instances=Bounds.exactly(cluster.role_total))
    return replace(cluster, local=None, role_total=None, decode=decode)


def _with_prefill(cluster: DecodeCluster, counts: Counts, step: int) -> dict[str, int] | None:
    if cluster.local is None or cluster.role_total is None:
        return None
    prefill = counts[cluster.local.name] + step
    if not 1 <= prefill <= cluster.role_total - 1:
        return None
    return {**counts, cluster.local.name: prefill, cluster.decode.name: cluster.role_total - prefill}


def smallest(demand: Demand, rate: float, most: Sizing, *, traffic: float | None = None, rough: bool = False) -> Sizing:
    """Return counts that carry `rate` at a low cost; `most` are upper bounds for them, as of `largest`.

    Without any price, every instance counts the same. `traffic` is the rate whose bytes are paid for, by default `rate`; `rough`
    leaves out what follows rounding up, for searches.

    Raises:
        UnreachableRateError: not even `most` carries it.
    """
    errors.positive("rate", rate)
    sent = traffic if traffic is not None else rate
    if most.rate < rate * (1 - _ROUNDING):
        raise UnreachableRateError(rate, most.rate)
    if all(pool.instances.minimum == pool.instances.maximum for pool in demand.fleet.instance_pools()):
        cost = cost_per_hour(demand, most.counts, most.assignment, sent)
        settled = _settled(demand, most.counts, rate, most.limit)
        return replace(
            most, assignment=settled, cost_bound=min(cost, cost_per_hour(demand, most.counts, settled, sent))
        )
    fleet, upper = demand.fleet, {**most.counts, **_decode_counts(demand, rate, most.counts)}
    prices = instance_prices(fleet)
    absorbing = {cluster.cluster.decode.name for cluster in demand.clusters if cluster.local_absorbs}
    fixed = _fixed(fleet)
    tiers: dict[str, tuple[Tier, ...]] = {}
    minimum: dict[str, int] = {}
    for pool in fleet.instance_pools():
        name, most_of = pool.name, upper[pool.name]
        minimum[name] = most_of if name in fixed else min(pool.instances.minimum, most_of)
        paid = minimum[name] if name not in absorbing else 0
        tiers[name] = (Tier(paid), Tier(most_of - paid, prices[name]))
    found = cheapest(demand, tiers, rate, most.assignment, traffic=sent)
    if found is None:
        # Only reached by rounding: the same counts carried the rate a moment ago.
        raise UnreachableRateError(rate, most.rate)
    used = loads(demand, found.parts).busy_s
    decode = {cluster.cluster.decode.name: cluster.decode_s for cluster in demand.clusters if cluster.local_absorbs}
    needed = {name: rate * (used.get(name, 0.0) + decode.get(name, 0.0)) for name in tiers}
    prefills = {cluster.ways[0].pool.name for cluster in demand.clusters} | {pool.name for pool in fleet.pools}
    counts = dict(upper)
    for name in prefills - fixed:
        counts[name] = min(upper[name], max(minimum[name], math.ceil(needed[name] - _ROUNDING)))
    bound = sum(
        prices[name] * (max(minimum[name], needed[name]) if name in prefills else counts[name]) for name in counts
    ) + link_cost_per_hour(demand, found, sent)
    if not any(pool.price_per_hour for pool in fleet.instance_pools()):
        bound = 0.0  # it counts instances, not money
    final = carried(demand, counts, found)
    if rough:
        return replace(final, cost_bound=bound)
    final = _trimmed(demand, final, minimum, needed, prices, rate)
    return replace(final, assignment=_settled(demand, final.counts, rate, final.limit), cost_bound=bound)


def _fixed(fleet: Fleet) -> set[str]:
    """Return the pools whose counts follow from the decode side's."""
    exchanged = (cluster for cluster in fleet.clusters if cluster.role_total is not None)
    return {cluster.local.name for cluster in exchanged if cluster.local is not None}


def _decode_counts(demand: Demand, rate: float, most: Counts) -> dict[str, int]:
    counts: dict[str, int] = {}
    for found in demand.clusters:
        cluster = found.cluster
        if found.local_absorbs:
            continue
        needed = math.ceil(rate * found.decode_s - _ROUNDING)
        if cluster.role_total is None or cluster.local is None:
            counts[cluster.decode.name] = max(needed, min(cluster.decode.instances.minimum, most[cluster.decode.name]))
    return counts


def _trimmed(
    demand: Demand,
    sizing: Sizing,
    minimum: Counts,
    needed: Mapping[str, float],
    prices: Mapping[str, float],
    rate: float,
) -> Sizing:
    """Take away instances that rounding up left over, the most wasteful first, while the rate is still carried."""
    trials = max(2, _TRIALS // max(len(cluster.ways) for cluster in demand.clusters) ** 2)
    waste = [
        (prices[name] * (amount - sizing.counts[name]), name)
        for name, amount in needed.items()
        if sizing.counts[name] > minimum[name]
    ]
    for _, name in sorted(waste):
        # Dual prices bound the rate without solving again: `rate * price` is the most that an instance can be worth.
        if sizing.limit.rate * (1 - sizing.limit.pool_prices.get(name, 0.0)) < rate * (1 - _ROUNDING):
            continue
        if trials == 0:
            break
        trials -= 1
        try:
            fewer = carried(demand, {**sizing.counts, name: sizing.counts[name] - 1}, sizing.limit)
        except errors.InvalidValueError:
            continue  # it is the last instance that can prefill for some cluster
        if fewer.rate >= rate * (1 - _ROUNDING):
            sizing = fewer
    return sizing


def _settled(demand: Demand, counts: Counts, rate: float, limit: Assignment) -> Assignment:
    """Return the assignment to run: the least dear on the links if they cost and there is a choice, else `limit`."""
    choice = limit.rate > rate * (1 + 1e-6)
    if choice and any(link.cost_per_gb > 0 for link in demand.fleet.links):
        found = cheapest(demand, {name: (Tier(count),) for name, count in counts.items()}, rate, limit)
        if found is not None:
            return found
    return limit


def instance_prices(fleet: Fleet) -> dict[str, float]:
    """Return, by pool, the price of an instance-hour; 1 for all when none has a price."""
    prices = {pool.name: pool.price_per_hour for pool in fleet.instance_pools()}
    return prices if any(prices.values()) else dict.fromkeys(prices, 1.0)


def link_cost_per_hour(demand: Demand, assignment: Assignment, rate: float) -> float:
    """Return what the bytes cost at a rate, an hour."""
    bits = loads(demand, assignment.parts).bits
    return sum(link.cost_per_gb * bits[link.name] / 8e9 * rate * 3600 for link in demand.fleet.lines())


def cost_per_hour(demand: Demand, counts: Counts, assignment: Assignment, rate: float) -> float:
    """Return what instances and bytes cost, an hour."""
    instances = sum(pool.price_per_hour * counts[pool.name] for pool in demand.fleet.instance_pools())
    return instances + link_cost_per_hour(demand, assignment, rate)
