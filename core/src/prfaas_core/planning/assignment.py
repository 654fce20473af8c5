"""Which lengths are prefilled where: the assignment with the highest rate, or the lowest cost at a given rate.

With true means the best partition of lengths is a linear program over bins (`linear`). Its dual prices say what a second of
each pool and a bit of each link are worth, and a length goes where `price * T(l) + price * S(l)` is least: intervals, ordered by
comparative advantage. With one remote pool that is the paper's threshold, equation (7), made exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from prfaas_core import errors
from prfaas_core.planning import linear
from prfaas_core.planning.demand import ClusterDemand, Demand, Way
from prfaas_core.planning.fleet import Counts

SECONDS_PER_HOUR = 3600

Parts: TypeAlias = tuple[tuple[tuple[int, float], ...], ...]
"""Of one cluster, by bin: (index of the way, fraction of the bin)."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Instances of a pool at one price; a pool may have some that are paid for anyway, and more for money."""

    instances: float
    price_per_hour: float = 0.0


Tiers = Mapping[str, tuple[Tier, ...]]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where the lengths of each cluster go.

    Attributes:
        parts: by cluster.
        rate: requests/s that the prefill side carries so; infinite when nothing limits it.
        pool_prices: by pool, seconds of the fleet's time for each busy second of an instance; the least dear way of a request
            is the one with the smallest `pool_price * T + link_price * bits`.
        link_prices: by link, the same for each bit.
        gap: the relative distance of the rate, or of the cost, to the optimum, at most.
    """

    parts: tuple[Parts, ...]
    rate: float
    pool_prices: Mapping[str, float]
    link_prices: Mapping[str, float]
    gap: float


@dataclass(frozen=True, slots=True)
class Loads:
    """What an assignment asks of everything, for each request of the fleet.

    Attributes:
        busy_s, busy_s2: by pool, instance-seconds of prefill, and the same of squared prefill times, s^2.
        requests: by pool, the part of all requests that prefills there.
        bits: by link.
    """

    busy_s: Mapping[str, float]
    busy_s2: Mapping[str, float]
    requests: Mapping[str, float]
    bits: Mapping[str, float]

    def towards(self, other: Loads, step: float) -> Loads:
        """Return the loads of a mix: `1 - step` of these and `step` of the others."""

        def mix(one: Mapping[str, float], two: Mapping[str, float]) -> dict[str, float]:
            return {name: (1 - step) * one.get(name, 0.0) + step * two.get(name, 0.0) for name in {**one, **two}}

        return Loads(
            mix(self.busy_s, other.busy_s),
            mix(self.busy_s2, other.busy_s2),
            mix(self.requests, other.requests),
            mix(self.bits, other.bits),
        )


def loads(demand: Demand, parts: tuple[Parts, ...]) -> Loads:
    """Return the loads of clusters' parts."""
    busy_s: dict[str, float] = {}
    busy_s2: dict[str, float] = {}
    requests: dict[str, float] = {}
    bits = {link.name: 0.0 for link in demand.fleet.links}
    for cluster, found in zip(demand.clusters, parts, strict=True):
        sums = [[0.0, 0.0, 0.0, 0.0] for _ in cluster.ways]
        for index, part in enumerate(found):
            for way, fraction in part:
                taken, total = cluster.ways[way], sums[way]
                total[0] += fraction * taken.busy_s[index]
                total[1] += fraction * taken.busy_s2[index]
                total[2] += fraction * cluster.weights[index]
                if taken.link is not None:
                    total[3] += fraction * taken.bits[index]
        for taken, total in zip(cluster.ways, sums, strict=True):
            if total[2] > 0:
                name = taken.pool.name
                busy_s[name] = busy_s.get(name, 0.0) + total[0]
                busy_s2[name] = busy_s2.get(name, 0.0) + total[1]
                requests[name] = requests.get(name, 0.0) + total[2]
            if taken.link is not None:
                bits[taken.link.name] += total[3]
    return Loads(busy_s, busy_s2, requests, bits)


def fastest(demand: Demand, counts: Counts, start: Assignment | None = None) -> Assignment:
    """Return the assignment that carries the highest rate with so many instances; decode is not looked at, except where it
    prefills.

    Raises:
        InvalidValueError: a cluster has nothing to prefill with.
    """
    return _solve(demand, {name: (Tier(count),) for name, count in counts.items()}, None, start)


def cheapest(
    demand: Demand, tiers: Tiers, rate: float, start: Assignment | None = None, *, traffic: float | None = None
) -> Assignment | None:
    """Return the assignment with the lowest cost of tiers and bytes at a rate in requests/s; None: the rate cannot be carried.

    `traffic` is the rate whose bytes are paid for, where it is less than what there has to be room for.
    """
    found = _solve(demand, tiers, errors.positive("rate", rate), start, traffic)
    return None if found.rate < rate * (1 - 1e-9) else found


def threshold_tokens(cluster: ClusterDemand, parts: Parts) -> int:
    """Return the threshold that keeps as much prefill time local as `parts` does, the shortest prompts first."""
    local = cluster.ways[0].busy_s
    left = sum(fraction * local[index] for index, part in enumerate(parts) for way, fraction in part if way == 0)
    sample = cluster.cluster.lengths.sample
    for index, busy_s in enumerate(local):
        if left < busy_s * (1 - 1e-9):
            first, last = cluster.cuts[index], cluster.cuts[index + 1]
            cut = first + round((last - first) * left / busy_s)
            return int(sample[cut - 1]) if cut else 0
        left -= busy_s
    return int(sample[-1]) + 1


def off_threshold(cluster: ClusterDemand, parts: Parts) -> float:
    """Return the fraction of the cluster's requests that one threshold would send the other way than `parts`.

    0 is the rule (remote is better the longer a prompt is). Above 0, some remote pool is better for short prompts than the local
    one, and a router with one threshold carries less than planned.
    """
    threshold = threshold_tokens(cluster, parts)
    cut = cluster.cluster.lengths.index(threshold)
    wrong = 0.0
    for index, part in enumerate(parts):
        first, last = cluster.cuts[index], cluster.cuts[index + 1]
        below = min(1.0, max(0.0, (cut - first) / (last - first)))
        wrong += cluster.weights[index] * abs(below - sum(fraction for way, fraction in part if way == 0))
    return wrong / cluster.share


def _solve(
    demand: Demand, tiers: Tiers, rate: float | None, start: Assignment | None, traffic: float | None = None
) -> Assignment:
    # Most links never bind, and a row for each of them would be most of the work: only links that were overrun get one.
    limited = _likely_limited(demand, tiers)
    if start is not None:
        limited |= start.link_prices.keys()
    while True:
        rows = _Rows(demand, tiers, rate, limited, traffic if traffic is not None else rate)
        program = rows.program()
        found = rows.assignment(linear.solve(program, _first_ways(rows, program, start)))
        bits = loads(demand, found.parts).bits
        cycle_s = 1 / found.rate
        overrun = {
            link.name
            for link in demand.fleet.lines()
            if link.name not in limited and bits[link.name] > link.usable_bps * cycle_s * (1 + 1e-9)
        }
        if not overrun:
            return found
        limited |= overrun
        start = found


def _likely_limited(demand: Demand, tiers: Tiers) -> set[str]:
    """Return the links that would be full before their pool if all lengths went there."""
    found = set()
    for cluster in demand.clusters:
        for way in cluster.ways:
            instances = sum(tier.instances for tier in tiers.get(way.pool.name, ()))
            if way.link is None or way.link.usable_bps == 0 or instances == 0:
                continue
            if sum(way.bits) / way.link.usable_bps > sum(way.busy_s) / instances:
                found.add(way.link.name)
    return found


class _Rows:
    """The rows and columns of the program: pools by tier, and links; each in parts of what there is."""

    def __init__(
        self, demand: Demand, tiers: Tiers, rate: float | None, limited: set[str], traffic: float | None
    ) -> None:
        self._traffic = traffic
        self._limited = limited
        self._demand, self._rate = demand, rate
        self._overrun = 1.0
        self._target = 1 / rate if rate is not None else 0.0
        self.sizes = [len(cluster.weights) for cluster in demand.clusters]
        self._limits: list[float] = []
        self._link_rows: dict[str, int] = {}
        self._owners: list[tuple[str, str, float]] = []
        """By row: ("pool" or "link", name, instances or bit/s)."""
        self.columns: list[list[tuple[int, Tier, int, int]]] = []
        """By cluster: (way, tier, row of the tier, row of the link; -1 for none)."""
        self._constant = {
            cluster.cluster.decode.name: cluster.decode_s for cluster in demand.clusters if cluster.local_absorbs
        }
        tier_rows: dict[str, list[tuple[Tier, int]]] = {}
        for cluster in demand.clusters:
            columns: list[tuple[int, Tier, int, int]] = []
            for index, way in enumerate(cluster.ways):
                name = way.pool.name
                if name not in tier_rows:
                    kept = [tier for tier in tiers.get(name, ()) if tier.instances > 0]
                    tier_rows[name] = [(tier, self._row("pool", name, tier.instances)) for tier in kept]
                if way.link is not None and way.link.usable_bps == 0:
                    continue
                link_row = self._link_row(way) if tier_rows[name] else -1
                columns += [(index, tier, row, link_row) for tier, row in tier_rows[name]]
            if not columns:
                raise errors.InvalidValueError(
                    f"clusters[{cluster.cluster.name}]",
                    "no prefill",
                    "give it a local prefill or decode instance, or a remote pool with instances and a link above 0",
                )
            self.columns.append(columns)

    def _row(self, kind: str, name: str, capacity: float) -> int:
        self._owners.append((kind, name, capacity))
        constant = self._constant.get(name, 0.0) / capacity if kind == "pool" else 0.0
        self._limits.append(self._target - constant)
        return len(self._limits) - 1

    def _link_row(self, way: Way) -> int:
        """Return the row of a way's link, -1 where it has none."""
        if way.link is None or way.link.name not in self._limited:
            return -1
        if way.link.name not in self._link_rows:
            self._link_rows[way.link.name] = self._row("link", way.link.name, way.link.usable_bps)
        return self._link_rows[way.link.name]

    def program(self) -> linear.Program:
        uses: list[list[linear.Entries | None]] = []
        costs: list[list[float]] = []
        for cluster, columns in zip(self._demand.clusters, self.columns, strict=True):
            for index in range(len(cluster.weights)):
                uses.append([])
                costs.append([])
                for way, tier, row, link_row in columns:
                    taken = cluster.ways[way]
                    costs[-1].append(self._cost(taken, tier, index))
                    if not cluster.allows(way, index):
                        uses[-1].append(None)
                        continue
                    entries = [(row, taken.busy_s[index] / tier.instances)]
                    if link_row >= 0 and taken.link is not None:
                        entries.append((link_row, taken.bits[index] / taken.link.usable_bps))
                    uses[-1].append(tuple(entries))
        if self._rate is None:
            return linear.Program(uses, self._limits)
        # Dear enough that no saving outweighs carrying the rate.
        self._overrun = 1e4 * self._rate * (1.0 + sum(map(max, costs)))
        return linear.Program(uses, self._limits, costs, self._overrun)

    def _cost(self, way: Way, tier: Tier, index: int) -> float:
        """Return currency an hour at the rate asked for, were the whole bin to go this way."""
        if self._rate is None or self._traffic is None:
            return 0.0
        cost = tier.price_per_hour * way.busy_s[index] * self._rate
        if way.link is not None:
            cost += way.link.cost_per_gb * way.bits[index] / 8e9 * self._traffic * SECONDS_PER_HOUR
        return cost

    def assignment(self, solution: linear.Solution) -> Assignment:
        parts: list[Parts] = []
        at = 0
        for cluster, columns in zip(self._demand.clusters, self.columns, strict=True):
            found = []
            for fractions in solution.fractions[at : at + len(cluster.weights)]:
                merged: dict[int, float] = {}
                for column, fraction in fractions:
                    way = columns[column][0]
                    merged[way] = merged.get(way, 0.0) + fraction
                found.append(tuple(sorted(merged.items())))
            parts.append(tuple(found))
            at += len(cluster.weights)
        prices: dict[str, dict[str, float]] = {"pool": {}, "link": {}}
        for price, (kind, name, capacity) in zip(solution.prices, self._owners, strict=True):
            # Of several tiers the last one taken is what a further second costs.
            prices[kind][name] = max(prices[kind].get(name, 0.0), price / capacity)
        cycle_s = self._target + solution.excess
        # A plan that costs nothing has nothing to be relative to: its bound is then as good as rounding.
        exact = solution.gap <= 1e-9 * self._overrun * cycle_s
        return Assignment(
            parts=tuple(parts),
            rate=1 / cycle_s if cycle_s > 0 else math.inf,
            pool_prices=prices["pool"],
            link_prices=prices["link"],
            gap=0.0 if exact else solution.gap / abs(solution.value),
        )


def _first_ways(rows: _Rows, program: linear.Program, start: Assignment | None) -> list[int]:
    """Return a good first column for each bin: of an earlier assignment, else the least filled one, longest prompts first."""
    used = [0.0] * len(program.limits)
    chosen: list[int] = []
    at = 0
    for number, columns in enumerate(rows.columns):
        size = rows.sizes[number]
        block: list[int] = [0] * size
        for index in reversed(range(size)):
            earlier = max(start.parts[number][index], key=lambda part: part[1])[0] if start is not None else None
            allowed = [c for c in range(len(columns)) if program.uses[at + index][c] is not None]
            candidates = [c for c in allowed if columns[c][0] == earlier] or allowed

            def fill(column: int, item: int = at + index) -> float:
                return max(used[row] + amount - program.limits[row] for row, amount in program.uses[item][column] or ())

            best = min(candidates, key=fill)
            block[index] = best
            for row, amount in program.uses[at + index][best] or ():
                used[row] += amount
        chosen += block
        at += size
    return chosen
