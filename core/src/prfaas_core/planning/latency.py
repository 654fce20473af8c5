"""Time to first token of an assignment, with queues, and the assignment that makes it short.

A request of length l waits for an instance of its pool (`waiting`), then prefills for T(l) while its KV crosses the link, layer by
layer, so that the later of both ends it: `TTFT = W + max(T(l), 8 S(l) / ((1 - u) B))`, with u the link's use. A link is taken as
processor sharing, whose transfers last 1 / (1 - u) times as long as alone. Neither the first decode step nor a wait for a decode
slot is in it: at rates that decode carries these are milliseconds.

Within a bin all requests take the bin's mean time, so quantiles are right to the width of a bin.

The search minimises the mean by the method of Frank and Wolfe (Naval Research Logistics Quarterly 3, 1956): a pool's price is the
queueing that one more busy instance of demand causes, each bin moves to its cheapest way, and the step is the best along the line.
The sum of waits is convex in the loads while the spread of service times is held, which is done within a step. A link
counts as one more queue, M/M/1, whose wait is added though prefill may hide it: the search errs towards a link that is less full.
Quantiles follow the mean closely but not strictly: the result is a good assignment for a quantile, not the best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prfaas_core import errors
from prfaas_core.planning.assignment import Assignment, Loads, Parts, loads
from prfaas_core.planning.demand import Demand
from prfaas_core.planning.fleet import Counts
from prfaas_core.planning.waiting import Wait, queued, queued_slope, waiting

_MOST_STEPS, _GAP, _HALVINGS = 100, 0.002, 16


@dataclass(frozen=True, slots=True)
class Latency:
    """Time to first token at a rate.

    Attributes:
        atoms: `(weight, seconds without the wait, wait)` of each bin and way.
    """

    rate: float
    atoms: tuple[tuple[float, float, Wait], ...]

    @property
    def mean_s(self) -> float:
        """E[TTFT]; infinite when some queue grows for ever."""
        return sum(weight * (seconds + wait.mean_s) for weight, seconds, wait in self.atoms)

    def exceeds(self, seconds: float) -> float:
        """Return P(TTFT > seconds)."""
        return sum(weight * wait.exceeds(seconds - service) for weight, service, wait in self.atoms)

    def quantile(self, q: float) -> float:
        """Return the q-quantile, 0 < q < 1; infinite when more than 1 - q of the requests wait for ever."""
        if not 0 < q < 1:
            raise errors.InvalidValueError("q", q, "give a number between 0 and 1")
        endless = sum(weight for weight, service, wait in self.atoms if math.inf in (service, wait.mean_s))
        if endless > 1 - q:
            return math.inf
        low, high = 0.0, 1.0
        while self.exceeds(high) > 1 - q:
            low, high = high, 2 * high
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.exceeds(middle) > 1 - q else (low, middle)
        return high


def latency(
    demand: Demand, assignment: Assignment, counts: Counts, rate: float, *, arrival_scv: float = 1.0
) -> Latency:
    """Return the time to first token of an assignment at `rate` requests/s."""
    asked = loads(demand, assignment.parts)
    free = _decode_free(demand, counts, rate)
    waits = {}
    for name, share in asked.requests.items():
        mean_s = asked.busy_s[name] / share
        scv = max(0.0, asked.busy_s2[name] / share / mean_s**2 - 1)
        waits[name] = waiting(
            free.get(name, counts[name]), rate * share, mean_s, service_scv=scv, arrival_scv=arrival_scv
        )
    slowed = _transfer_factors(demand, asked.bits, rate)
    atoms = []
    for cluster, parts in zip(demand.clusters, assignment.parts, strict=True):
        for index, (weight, part) in enumerate(zip(cluster.weights, parts, strict=True)):
            for way, fraction in part:
                taken = cluster.ways[way]
                service_s = taken.busy_s[index] / weight
                if taken.link is not None:
                    service_s = max(service_s, taken.bits[index] / weight * slowed[taken.link.name])
                atoms.append((weight * fraction, service_s, waits[taken.pool.name]))
    return Latency(rate, tuple(atoms))


def shortest(
    demand: Demand,
    start: Assignment,
    counts: Counts,
    rate: float,
    *,
    arrival_scv: float = 1.0,
    most_steps: int = _MOST_STEPS,
) -> Assignment:
    """Return an assignment with a short mean time to first token at `rate`, found from `start`, which carries that rate.

    The prices of the result are seconds of waiting that a busy second causes to others at this rate.
    """
    errors.positive("rate", rate)
    if start.rate <= rate:
        return start
    parts, now = start.parts, loads(demand, start.parts)
    free = _decode_free(demand, counts, rate)
    servers = {name: free.get(name, count) for name, count in counts.items()}
    prices: dict[str, float] = {}
    link_prices: dict[str, float] = {}
    for _ in range(most_steps):
        spread = {
            name: (arrival_scv + max(0.0, now.busy_s2[name] * now.requests[name] / busy**2 - 1)) / 2
            for name, busy in now.busy_s.items()
            if busy > 0
        }
        prices = {
            name: spread.get(name, 1.0) * queued_slope(count, rate * now.busy_s.get(name, 0.0))
            for name, count in servers.items()
            if count > 0
        }
        link_prices = {
            link.name: queued_slope(1, rate * now.bits[link.name] / link.usable_bps) / link.usable_bps
            for link in demand.fleet.lines()
            if link.usable_bps > 0
        }
        target = _cheapest_ways(demand, prices, link_prices)
        other = loads(demand, target)
        # The fall along the gradient bounds how far the mean is above its least.
        if _cost(now, prices, link_prices) - _cost(other, prices, link_prices) <= _GAP * sum(now.busy_s.values()):
            break
        step = _line_search(demand, now, other, servers, spread, rate)
        if step == 0:
            break
        parts, now = _mix(parts, target, step), now.towards(other, step)
    return Assignment(parts, start.rate, prices, link_prices, 0.0)


def _decode_free(demand: Demand, counts: Counts, rate: float) -> dict[str, int]:
    """Return, where decode instances prefill too, how many of them decoding leaves for it."""
    return {
        cluster.cluster.decode.name: max(0, int(counts[cluster.cluster.decode.name] - rate * cluster.decode_s))
        for cluster in demand.clusters
        if cluster.local_absorbs
    }


def _transfer_factors(demand: Demand, bits: Mapping[str, float], rate: float) -> dict[str, float]:
    """Return, by link, seconds for each bit at this use of it."""
    factors = {}
    for link in demand.fleet.lines():
        left = link.usable_bps - rate * bits[link.name]
        factors[link.name] = 1 / left if left > 0 else math.inf
    return factors


def _cheapest_ways(demand: Demand, prices: Mapping[str, float], link_prices: Mapping[str, float]) -> tuple[Parts, ...]:
    found: list[Parts] = []
    for cluster in demand.clusters:
        offers: list[list[float]] = []
        for way in cluster.ways:
            price = 1 + prices.get(way.pool.name, math.inf)
            offer = [price * busy for busy in way.busy_s]
            if way.link is not None:
                bit_price = link_prices.get(way.link.name, math.inf)
                offer = [own + bit_price * bits for own, bits in zip(offer, way.bits, strict=True)]
            offers.append(offer)
        found.append(tuple(((costs.index(min(costs)), 1.0),) for costs in zip(*offers, strict=True)))
    return tuple(found)


def _cost(asked: Loads, prices: Mapping[str, float], link_prices: Mapping[str, float]) -> float:
    over_links = sum(link_prices[name] * sent for name, sent in asked.bits.items() if sent > 0)
    return sum((1 + prices[name]) * seconds for name, seconds in asked.busy_s.items() if seconds > 0) + over_links


def _line_search(
    demand: Demand,
    now: Loads,
    target: Loads,
    servers: Mapping[str, int],
    spread: Mapping[str, float],
    rate: float,
) -> float:
    """Return the step from `now` towards `target` with the least mean: golden section on a convex function."""
    busy0, busy1, bits0, bits1 = now.busy_s, target.busy_s, now.bits, target.bits
    queues = [
        (servers[name], spread.get(name, 1.0), 1.0, rate * busy0.get(name, 0.0), rate * busy1.get(name, 0.0))
        for name in sorted({*busy0, *busy1})
    ]
    for link in demand.fleet.lines():
        if link.usable_bps > 0:
            scale = rate / link.usable_bps
            queues.append((1, 1.0, 0.0, scale * bits0[link.name], scale * bits1[link.name]))

    def mean(step: float) -> float:
        total = 0.0
        for count, factor, served, before, after in queues:
            load = (1 - step) * before + step * after
            total += served * load + factor * queued(count, load)
        return total

    low, high, ratio = 0.0, 1.0, (math.sqrt(5) - 1) / 2
    for _ in range(_HALVINGS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if mean(left) <= mean(right) else (left, high)
    step = (low + high) / 2
    return step if mean(step) < mean(0.0) else 0.0


def _mix(one: tuple[Parts, ...], other: tuple[Parts, ...], step: float) -> tuple[Parts, ...]:
    mixed: list[Parts] = []
    for first, second in zip(one, other, strict=True):
        merged: list[tuple[tuple[int, float], ...]] = []
        for before, after in zip(first, second, strict=True):
            if before == after:
                merged.append(before)
                continue
            found = {way: (1 - step) * fraction for way, fraction in before}
            for way, fraction in after:
                found[way] = found.get(way, 0.0) + step * fraction
            merged.append(tuple(sorted(found.items())))
        mixed.append(tuple(merged))
    return tuple(mixed)
