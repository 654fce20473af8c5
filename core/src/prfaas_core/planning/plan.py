"""The answer to a goal: how many of which, what goes where, what it costs, what binds, and what would help next."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeAlias

from prfaas_core import errors
from prfaas_core.planning import latency, sizing
from prfaas_core.planning.assignment import Assignment, Parts, off_threshold, threshold_tokens
from prfaas_core.planning.demand import ClusterDemand, Demand
from prfaas_core.planning.explanation import Explanation, Move, explain, next_moves
from prfaas_core.planning.fleet import Counts, Fleet
from prfaas_core.planning.latency import Latency
from prfaas_core.planning.sizing import Sizing

_HALVINGS = 6
_COST_HALVINGS = 4
_TRIAL_STEPS = 25


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """A quantile of the time to first token that must not be longer."""

    ttft_s: float
    quantile: float = 0.9

    def __post_init__(self) -> None:
        errors.positive("slo.ttft_s", self.ttft_s)
        if not 0 < errors.finite("slo.quantile", self.quantile) < 1:
            raise errors.InvalidValueError("slo.quantile", self.quantile, "give a number between 0 and 1")


@dataclass(frozen=True, slots=True)
class MaximiseRate:
    """The highest rate, with all instances that the bounds allow; with `slo`, the highest at which it holds."""

    slo: ServiceLevel | None = None


@dataclass(frozen=True, slots=True)
class MinimiseTtft:
    """The shortest time to first token at a rate, with all instances that the bounds allow."""

    rate: float

    def __post_init__(self) -> None:
        errors.positive("rate", self.rate)


@dataclass(frozen=True, slots=True)
class MinimiseCost:
    """The least money at a rate.

    Attributes:
        utilisation: the part of what the fleet carries that the rate may be, at most 1; queues need it below 1.
        slo: holds at the rate; the fleet grows beyond `utilisation` until it does.
    """

    rate: float
    utilisation: float = 1.0
    slo: ServiceLevel | None = None

    def __post_init__(self) -> None:
        errors.positive("rate", self.rate)
        if errors.positive("utilisation", self.utilisation) > 1:
            raise errors.InvalidValueError("utilisation", self.utilisation, "give at most 1")


Goal: TypeAlias = MaximiseRate | MinimiseTtft | MinimiseCost


class UnreachableServiceLevelError(errors.CoreError, ValueError):
    """No choice within the bounds keeps the service level."""

    def __init__(self, slo: ServiceLevel, reachable_s: float) -> None:
        self.slo, self.reachable_s = slo, reachable_s
        super().__init__(
            f"slo.ttft_s: {slo.ttft_s:g} s at the {slo.quantile:g} quantile cannot be kept, at best {reachable_s:.3g} s; "
            "relax it, or allow more or faster instances"
        )


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What one decode cluster's router does.

    Attributes:
        threshold_tokens: uncached lengths above it go to remote pools.
        intervals: `(from, to, pool)` of lengths in tokens and the pool that takes most of them.
        off_threshold: fraction of the requests that the plan sends the other way than the threshold would.
    """

    name: str
    threshold_tokens: int
    intervals: tuple[tuple[int, int, str], ...]
    off_threshold: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan.

    Attributes:
        rate: requests/s that were asked for, or the highest.
        capacity: the most that the fleet carries.
        counts: by pool.
        latency: time to first token at `rate`; endless where the rate is all that the fleet carries.
        cost_per_hour: of instances and bytes at `rate`.
        cost_bound: no plan costs less; 0 where cost was not asked for, or instances have no prices.
        gap: relative distance of the rate to the best assignment's, at most.
    """

    goal: Goal
    rate: float
    capacity: float
    counts: Counts
    clusters: tuple[ClusterPlan, ...]
    latency: Latency
    cost_per_hour: float
    cost_bound: float
    explanation: Explanation
    moves: tuple[Move, ...]
    assignment: Assignment
    gap: float


def plan(fleet: Fleet, goal: Goal, *, arrival_scv: float = 1.0, moves: int = 4) -> Plan:
    """Return the plan for a goal.

    Args:
        arrival_scv: squared coefficient of variation of the times between arrivals; 1 is Poisson.
        moves: how many next-best moves to work out.

    Raises:
        UnreachableRateError, UnreachableServiceLevelError: the bounds do not allow it; the message says what they do.
        InvalidValueError: a cluster has nothing to prefill with.
    """
    errors.non_negative("arrival_scv", arrival_scv)
    demand = Demand.of(fleet)
    most = sizing.largest(demand)
    if most.rate <= 0:
        raise errors.InvalidValueError("fleet", most.rate, "give every cluster at least one instance to decode with")
    match goal:
        case MaximiseRate(slo=None):
            found, rate = sizing.smallest(demand, most.rate, most), most.rate
        case MaximiseRate(slo=ServiceLevel() as slo):
            found, rate = _highest(demand, most, slo, arrival_scv)
        case MinimiseTtft(rate=rate):
            if rate > most.rate:
                raise sizing.UnreachableRateError(rate, most.rate)
            found = replace(
                most, assignment=latency.shortest(demand, most.limit, most.counts, rate, arrival_scv=arrival_scv)
            )
        case MinimiseCost(rate=rate):
            found = _least(demand, most, goal, arrival_scv)
    explanation = explain(demand, found, rate)
    return Plan(
        goal=goal,
        rate=rate,
        capacity=found.rate,
        counts=dict(found.counts),
        clusters=tuple(
            ClusterPlan(
                name=cluster.cluster.name,
                threshold_tokens=threshold_tokens(cluster, parts),
                intervals=_intervals(cluster, parts),
                off_threshold=off_threshold(cluster, parts),
            )
            for cluster, parts in zip(demand.clusters, found.assignment.parts, strict=True)
        ),
        latency=latency.latency(demand, found.assignment, found.counts, rate, arrival_scv=arrival_scv),
        cost_per_hour=sizing.cost_per_hour(demand, found.counts, found.assignment, rate),
        cost_bound=found.cost_bound if isinstance(goal, MinimiseCost) else 0.0,
        explanation=explanation,
        moves=next_moves(demand, found, explanation, moves),
        assignment=found.assignment,
        gap=found.assignment.gap,
    )


def _highest(demand: Demand, most: Sizing, slo: ServiceLevel, arrival_scv: float) -> tuple[Sizing, float]:
    """Return the highest rate at which the service level holds, by bisection, with the assignment for it."""

    def at(rate: float) -> tuple[Assignment, float]:
        found = latency.shortest(
            demand, most.limit, most.counts, rate, arrival_scv=arrival_scv, most_steps=_TRIAL_STEPS
        )
        seen = latency.latency(demand, found, most.counts, rate, arrival_scv=arrival_scv)
        return found, seen.quantile(slo.quantile)

    low, high = 0.0, most.rate
    best: Assignment | None = None
    reached_s = math.inf
    for _ in range(_HALVINGS + 1):
        rate = (low + high) / 2
        found, reached_s = at(rate)
        if reached_s <= slo.ttft_s:
            low, best = rate, found
        else:
            high = rate
    if best is None:
        raise UnreachableServiceLevelError(slo, reached_s)
    return replace(most, assignment=best), low


def _least(demand: Demand, most: Sizing, goal: MinimiseCost, arrival_scv: float) -> Sizing:
    """Return the least counts for the rate, with as much to spare as utilisation and service level ask for."""
    planned = goal.rate / goal.utilisation
    found = sizing.smallest(demand, planned, most, traffic=goal.rate)
    if goal.slo is None:
        return found

    def fitted(candidate: Sizing) -> tuple[Sizing, float]:
        run = latency.shortest(
            demand,
            candidate.limit,
            candidate.counts,
            goal.rate,
            arrival_scv=arrival_scv,
            most_steps=_TRIAL_STEPS,
        )
        seen = latency.latency(demand, run, candidate.counts, goal.rate, arrival_scv=arrival_scv)
        return replace(candidate, assignment=run), seen.quantile(goal.slo.quantile) if goal.slo else 0.0

    fit, reached_s = fitted(found)
    if reached_s <= goal.slo.ttft_s:
        return fit
    best, reached_s = fitted(most)
    if reached_s > goal.slo.ttft_s:
        raise UnreachableServiceLevelError(goal.slo, reached_s)
    low, high = planned, most.rate
    for _ in range(_COST_HALVINGS):
        middle = (low + high) / 2
        fit, reached_s = fitted(sizing.smallest(demand, middle, most, traffic=goal.rate, rough=True))
        if reached_s <= goal.slo.ttft_s:
            high, best = middle, fit
        else:
            low = middle
    return replace(best, cost_bound=found.cost_bound)


def _intervals(cluster: ClusterDemand, parts: Parts) -> tuple[tuple[int, int, str], ...]:
    """Return neighbouring bins that mostly go the same way, as one interval of lengths."""
    sample = cluster.cluster.lengths.sample
    names = [cluster.ways[max(part, key=lambda item: item[1])[0]].pool.name for part in parts]
    found: list[tuple[int, int, str]] = []
    for name, bins in groupby(range(len(names)), key=names.__getitem__):
        first, *others = bins
        last = others[-1] if others else first
        end = min(cluster.cuts[last + 1], len(sample) - 1)
        found.append((int(sample[cluster.cuts[first]]), int(sample[end]), name))
    return tuple(found)
