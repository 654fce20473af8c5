"""The threshold of a route: the number in its spec, or the best one for what the route has.

`Auto` searches with the model of the paper (section 3.4.2) over the lengths of its case study, a prior until routers report
the lengths they see, for the numbers of workers that the pools ask for. Asking, not readiness, decides: a pod that
restarts must not move the threshold, and routers pass over workers that are not there. The prediction beside it is for the
workers that are ready.
"""

import functools
import math
from dataclasses import dataclass

from prfaas_core import planner
from prfaas_core.case_study import LENGTHS
from prfaas_core.errors import CoreError
from prfaas_core.lengths import Lengths
from prfaas_core.model import Bound, Deployment, throughput
from prfaas_core.profiles import Profile
from prfaas_operator.api.inference_route import ThresholdSource
from prfaas_operator.api.scalars import MAX_TOKENS

# Mean length of the answers in the paper's case study (section 4.1).
OUTPUT_TOKENS = 1024
_FIRST_TOKENS, _POINTS = 128, 20_000

_BOUNDS = {
    Bound.REMOTE_PREFILL: "remote prefill",
    Bound.LINK: "the link",
    Bound.LOCAL_PREFILL: "local prefill",
    Bound.DECODE: "decode",
}


@dataclass(frozen=True, slots=True)
class Side:
    """Workers of one pool: asked for, and ready; None where the pool's cluster does not say."""

    profile: Profile
    desired: int
    ready: int | None


@dataclass(frozen=True, slots=True)
class Threshold:
    """The threshold in force and how it came about."""

    tokens: int
    source: ThresholdSource
    why: str
    requests_per_second: float | None  # that the model predicts for the ready workers


def choose(
    wanted: int | str,
    *,
    decode: Side,
    local: Side | None,
    remote: tuple[tuple[Side, float], ...],
    before: int | None,
) -> Threshold:
    """Return the threshold of a route.

    `remote` are the pools that can be used, each with what its link may carry, bit/s. `before` is the threshold in force.
    Without a local prefill pool the decode workers prefill, and count for both.
    """
    deployment = _deployment(decode, local, remote, ready=False)
    if isinstance(wanted, int):
        predicted = _predicted(decode, local, remote, wanted)
        return Threshold(wanted, ThresholdSource.FIXED, "set in spec.policy.threshold", predicted)
    if decode.desired == 0:
        tokens = before if before is not None else decode.profile.max_model_len_tokens
        return Threshold(tokens, ThresholdSource.HELD, "the decode pool has no workers", None)
    if not remote:
        return Threshold(
            decode.profile.max_model_len_tokens,
            ThresholdSource.COMPUTED,
            "no remote pool can be used, so every prompt is prefilled locally",
            _predicted(decode, local, remote, decode.profile.max_model_len_tokens),
        )
    try:
        plan = _best(deployment)
    except CoreError as error:
        tokens = before if before is not None else decode.profile.max_model_len_tokens
        return Threshold(tokens, ThresholdSource.HELD, f"no threshold can be computed: {error}", None)
    tokens = min(plan.threshold_tokens, MAX_TOKENS)
    why = (
        f"highest rate, {plan.throughput.rate:.3g} requests/s, for {deployment.remote_instances} remote, "
        f"{deployment.local_instances} local and {deployment.decode_instances} decode workers; "
        f"{_BOUNDS[plan.throughput.bound]} binds"
    )
    return Threshold(tokens, ThresholdSource.COMPUTED, why, _predicted(decode, local, remote, tokens))


def _deployment(decode: Side, local: Side | None, remote: tuple[tuple[Side, float], ...], *, ready: bool) -> Deployment:
    def count(side: Side) -> int:
        return (side.ready or 0) if ready else side.desired

    # The model knows one kind of remote instance. Others count as so many of the kind that has most workers.
    kind = max(remote, key=lambda item: item[0].desired)[0].profile if remote else None
    instances, link_bps = 0.0, 0.0
    for side, capacity_bps in remote:
        if kind is not None:
            instances += count(side) * kind.prefill_s(LENGTHS.mean) / side.profile.prefill_s(LENGTHS.mean)
        link_bps += capacity_bps
    return Deployment(
        local=local.profile if local is not None else decode.profile,
        local_instances=count(local if local is not None else decode),
        decode_instances=count(decode),
        output_tokens=OUTPUT_TOKENS,
        remote=kind,
        remote_instances=round(instances),
        link_bps=link_bps,
    )


def _predicted(decode: Side, local: Side | None, remote: tuple[tuple[Side, float], ...], tokens: int) -> float | None:
    sides = [decode, *([local] if local is not None else []), *(side for side, _ in remote)]
    if any(side.ready is None for side in sides):
        return None
    try:
        deployment = _deployment(decode, local, remote, ready=True)
        rate = throughput(deployment, _lengths(deployment.local.max_model_len_tokens), tokens).rate
    except CoreError:
        return None
    return float(f"{rate:.4g}") if math.isfinite(rate) else None


@functools.lru_cache(maxsize=64)
def _best(deployment: Deployment) -> planner.Plan:
    """Return the best plan; the search takes milliseconds, and is asked again at every change of any pod."""
    return planner.best_threshold(deployment, _lengths(deployment.local.max_model_len_tokens))


@functools.lru_cache(maxsize=8)
def _lengths(max_tokens: int) -> Lengths:
    if max_tokens >= LENGTHS.sample[-1]:
        return LENGTHS
    low = min(_FIRST_TOKENS, max_tokens / 2)
    return Lengths.log_normal(mu=9.90, sigma=1.00, low=low, high=max_tokens, points=_POINTS)
