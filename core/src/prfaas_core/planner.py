"""Which threshold, and how many of each role: the paper's exhaustive search of section 3.4.2.

Theta_prfaas / p falls and Theta_pd-p / (1 - p) rises with the share sent across, so over the threshold the rate has one
peak, but the sample's steps and the link's bound put small ripples on it: the search looks at the whole grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from prfaas_core import errors
from prfaas_core.lengths import Lengths
from prfaas_core.model import Deployment, Throughput, throughput

GRID_TOKENS = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """The best that was found."""

    deployment: Deployment
    threshold_tokens: int
    throughput: Throughput


def best_threshold(deployment: Deployment, lengths: Lengths, thresholds: Iterable[int] | None = None) -> Plan:
    """Return the threshold with the highest rate; of equal ones the longest, which uses the link least.

    Without remote instances, or without a link, everything stays local: the threshold is the longest prompt.
    """
    longest = int(lengths.sample[-1]) + 1
    if deployment.remote_instances == 0 or deployment.link_bps == 0:
        return Plan(deployment, longest, throughput(deployment, lengths, longest))
    grid = thresholds if thresholds is not None else range(GRID_TOKENS, longest + GRID_TOKENS, GRID_TOKENS)
    plans = (Plan(deployment, t, throughput(deployment, lengths, t)) for t in grid)
    return max(plans, key=lambda plan: (plan.throughput.rate, plan.threshold_tokens))


def best_roles(deployment: Deployment, lengths: Lengths, thresholds: Iterable[int] | None = None) -> Plan:
    """Return the best split of the local instances into prefill and decode, each with its best threshold."""
    total = deployment.local_instances + deployment.decode_instances
    if total < 2:
        raise errors.InvalidValueError("local_instances + decode_instances", total, "give at least one for each role")
    grid = tuple(thresholds) if thresholds is not None else None
    plans = (
        best_threshold(replace(deployment, local_instances=count, decode_instances=total - count), lengths, grid)
        for count in range(1, total)
    )
    return max(plans, key=lambda plan: (plan.throughput.rate, -plan.deployment.local_instances))


def scarce(utilisation: float | None, was_scarce: bool, *, enter: float = 0.8, leave: float = 0.6) -> bool:
    """Return whether the link counts as scarce, with hysteresis; what is not known stays as it was.

    The paper names the trigger and gives no number: these are ours. `utilisation` is of what PrfaaS may use.
    """
    if utilisation is None:
        return was_scarce
    errors.non_negative("utilisation", utilisation)
    return utilisation >= (leave if was_scarce else enter)
