"""How fast a pool may change: stabilisation windows and policies, as the HorizontalPodAutoscaler applies them.

Source: the documentation of `behavior` in autoscaling/v2, and `pkg/controller/podautoscaler/horizontal.go` of Kubernetes,
whose order is kept: stabilise first, then limit the rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from prfaas_core.autoscaling.settings import Policy, PolicyType, Rules, SelectPolicy, Settings


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A number of replicas that was wanted at a time."""

    at_s: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Change:
    """Replicas that were added, or taken away (below 0), at a time."""

    at_s: float
    replicas: int


def stabilized(replicas: int, wanted: int, before: Iterable[Recommendation], settings: Settings, now_s: float) -> int:
    """Return what to follow, coming from `replicas`: the most cautious of `wanted` and of the recommendations before it."""
    entries = tuple(before)
    up = min((entry.replicas for entry in entries if now_s - entry.at_s < settings.up.window_s), default=wanted)
    down = max((entry.replicas for entry in entries if now_s - entry.at_s < settings.down.window_s), default=wanted)
    return min(max(replicas, min(up, wanted)), max(down, wanted))


def limited(replicas: int, wanted: int, changes: Iterable[Change], settings: Settings, now_s: float) -> int:
    """Return how far from `replicas` towards `wanted` the policies let a pool go now."""
    recent = tuple(changes)
    if wanted > replicas:
        return min(wanted, max(replicas, _limit(replicas, recent, settings.up, now_s, grows=True)))
    if wanted < replicas:
        return max(wanted, min(replicas, _limit(replicas, recent, settings.down, now_s, grows=False)))
    return replicas


def longest_s(settings: Settings) -> tuple[float, float]:
    """Return for how long recommendations and changes matter."""
    windows = max(settings.up.window_s, settings.down.window_s)
    periods = (policy.period_s for rules in (settings.up, settings.down) for policy in rules.policies)
    return windows, max(periods, default=0.0)


def _limit(replicas: int, changes: tuple[Change, ...], rules: Rules, now_s: float, *, grows: bool) -> int:
    if rules.select is SelectPolicy.DISABLED:
        return replicas
    if not rules.policies:
        return 2**31 if grows else 0
    found = [_allowed(replicas, changes, policy, now_s, grows=grows) for policy in rules.policies]
    widest = (rules.select is SelectPolicy.MAX) == grows
    return max(found) if widest else min(found)


def _allowed(replicas: int, changes: tuple[Change, ...], policy: Policy, now_s: float, *, grows: bool) -> int:
    before = max(0, replicas - sum(change.replicas for change in changes if now_s - change.at_s < policy.period_s))
    if policy.type is PolicyType.PODS:
        return before + policy.value if grows else before - policy.value
    if grows:
        return math.ceil(before * (1 + policy.value / 100))
    return math.floor(before * (1 - policy.value / 100))
