"""Which threshold, and how many of each role: the paper's exhaustive search of section 3.4.2.

Theta_prfaas / p falls and Theta_pd-p / (1 - p) rises with the share sent across, so over the threshold the rate has one
peak, but the sample's steps and the link's bound put small ripples on it: the search looks at the whole grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from prfaas_core import errors
from prfaas_core.lengths import Lengths
from prfaas_core.model import Averaging, Deployment, Throughput, throughput

GRID_TOKENS = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """The best that was found."""

    deployment: Deployment
    threshold_tokens: int
    throughput: Throughput


@dataclass(frozen=True, slots=True)
class FractionalPlan:
    """The best that could be if roles came in parts, as when decode instances absorb some prefill.

    Attributes:
        rate: requests/s; no whole numbers of the same instances carry more.
        local_instances, decode_instances: the parts.
    """

    rate: float
    threshold_tokens: int
    local_instances: float
    decode_instances: float


def best_threshold(
    deployment: Deployment,
    lengths: Lengths,
    thresholds: Iterable[int] | None = None,
    averaging: Averaging = Averaging.AT_MEAN_LENGTH,
) -> Plan:
    """Return the threshold with the highest rate; of equal ones the longest, which uses the link least.

    Without remote instances, or without a link, everything stays local: the threshold is the longest prompt.
    """
    longest = int(lengths.sample[-1]) + 1
    if deployment.remote_instances == 0 or deployment.link_bps == 0:
        return Plan(deployment, longest, throughput(deployment, lengths, longest, averaging))
    plans = (Plan(deployment, t, throughput(deployment, lengths, t, averaging)) for t in _grid(lengths, thresholds))
    return max(plans, key=lambda plan: (plan.throughput.rate, plan.threshold_tokens))


def best_roles(
    deployment: Deployment,
    lengths: Lengths,
    thresholds: Iterable[int] | None = None,
    averaging: Averaging = Averaging.AT_MEAN_LENGTH,
) -> Plan:
    """Return the best split of the local instances into prefill and decode, each with its best threshold."""
    total = deployment.local_instances + deployment.decode_instances
    if total < 2:
        raise errors.InvalidValueError("local_instances + decode_instances", total, "give at least one for each role")
    grid = tuple(thresholds) if thresholds is not None else None
    plans = (
        best_threshold(
            replace(deployment, local_instances=count, decode_instances=total - count), lengths, grid, averaging
        )
        for count in range(1, total)
    )
    return max(plans, key=lambda plan: (plan.throughput.rate, -plan.deployment.local_instances))


def fractional_roles(
    deployment: Deployment,
    lengths: Lengths,
    thresholds: Iterable[int] | None = None,
    averaging: Averaging = Averaging.AT_MEAN_LENGTH,
) -> FractionalPlan:
    """Return the bound of equation (6) when local instances split into roles without rounding.

    At a threshold one request costs the local cluster (1 - p) T_pd-p(l_short) of prefill and T_decode L_out / BS_max of
    decode, in instance-seconds; the split that wastes none carries N / (the sum of both).
    """
    total = deployment.local_instances + deployment.decode_instances
    if total < 1:
        raise errors.InvalidValueError("local_instances + decode_instances", total, "give at least one instance")
    decode_s = 1 / deployment.local.decode_rps(deployment.output_tokens)
    whole = replace(deployment, local_instances=total, decode_instances=total)

    def at(threshold: int) -> FractionalPlan:
        found = throughput(whole, lengths, threshold, averaging)
        share = found.remote_share
        prefill_s = (1 - share) * total / found.local_rps if share < 1 else 0.0
        rate = total / (prefill_s + decode_s)
        if share > 0:
            rate = min(rate, found.remote_rps / share)
        return FractionalPlan(rate, threshold, rate * prefill_s, total - rate * prefill_s)

    return max(map(at, _grid(lengths, thresholds)), key=lambda plan: (plan.rate, plan.threshold_tokens))


def _grid(lengths: Lengths, thresholds: Iterable[int] | None) -> tuple[int, ...]:
    if thresholds is None:
        # The last step is above the longest prompt: everything local is one of the choices.
        return tuple(range(GRID_TOKENS, int(lengths.sample[-1]) + 1 + GRID_TOKENS, GRID_TOKENS))
    grid = tuple(thresholds)
    if not grid:
        raise errors.InvalidValueError("thresholds", grid, "give at least one threshold")
    return grid


def scarce(utilisation: float | None, was_scarce: bool, *, enter: float = 0.8, leave: float = 0.6) -> bool:
    """Return whether the link counts as scarce, with hysteresis; what is not known stays as it was.

    The paper names the trigger and gives no number: these are ours. `utilisation` is of what PrfaaS may use.
    """
    if utilisation is None:
        return was_scarce
    errors.non_negative("utilisation", utilisation)
    return utilisation >= (leave if was_scarce else enter)
