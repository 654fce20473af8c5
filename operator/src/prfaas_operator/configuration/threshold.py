"""The threshold of a route: the number in its spec, or the best one for what the route has.

`Auto` takes the planner's best assignment (`prfaas_core.planning`) of the lengths of the paper's case study, a prior until
routers report the lengths they see, for the numbers of workers that the pools ask for, each remote pool with its own profile
and link. Asking, not readiness, decides: a pod that restarts must not move the threshold, and routers pass over workers that
are not there. The prediction beside it is for the workers that are ready.
"""

import functools
import math
from dataclasses import dataclass
from typing import Self

from prfaas_core.case_study import LENGTHS
from prfaas_core.errors import CoreError
from prfaas_core.lengths import Lengths
from prfaas_core.planning import assignment, explanation, sizing
from prfaas_core.planning.demand import Demand
from prfaas_core.planning.fleet import Bounds, DecodeCluster, Fleet, InstancePool, Link
from prfaas_core.profiles import Profile
from prfaas_operator.api.inference_route import ThresholdSource
from prfaas_operator.api.scalars import MAX_TOKENS

# Mean length of the answers in the paper's case study (section 4.1).
OUTPUT_TOKENS = 1024
_FIRST_TOKENS, _POINTS = 128, 20_000

_ROUTE, _DECODE, _LOCAL = "route", "decode", "local prefill"


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
    Without a local prefill pool the decode workers prefill too.
    """
    if isinstance(wanted, int):
        return Threshold(
            wanted, ThresholdSource.FIXED, "set in spec.policy.threshold", _predicted(decode, local, remote, wanted)
        )
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
    sizes = _Sizes.of(decode, local, remote, ready=False)
    try:
        tokens, rate, bound_by = _best(sizes)
    except CoreError as error:
        tokens = before if before is not None else decode.profile.max_model_len_tokens
        return Threshold(tokens, ThresholdSource.HELD, f"no threshold can be computed: {error}", None)
    tokens = min(tokens, MAX_TOKENS)
    prefills = sizes.local[1] if sizes.local is not None else 0
    why = (
        f"highest rate, {rate:.3g} requests/s, for {sum(count for _, count, _ in sizes.remote)} remote, "
        f"{prefills} local and {sizes.decode[1]} decode workers; bound by {bound_by}"
    )
    return Threshold(tokens, ThresholdSource.COMPUTED, why, _predicted(decode, local, remote, tokens))


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Profiles and numbers of workers, and what each remote pool's link may carry, bit/s: all that a threshold depends on."""

    decode: tuple[Profile, int]
    local: tuple[Profile, int] | None
    remote: tuple[tuple[Profile, int, float], ...]

    @classmethod
    def of(cls, decode: Side, local: Side | None, remote: tuple[tuple[Side, float], ...], *, ready: bool) -> Self:
        def count(side: Side) -> int:
            return (side.ready or 0) if ready else side.desired

        return cls(
            (decode.profile, count(decode)),
            (local.profile, count(local)) if local is not None else None,
            tuple((side.profile, count(side), capacity_bps) for side, capacity_bps in remote),
        )

    def fleet(self) -> Fleet:
        """Return the fleet of one route."""
        profile = self.local[0] if self.local is not None else self.decode[0]
        cluster = DecodeCluster(
            name=_ROUTE,
            lengths=_lengths(profile.max_model_len_tokens),
            output_tokens=OUTPUT_TOKENS,
            decode=InstancePool(_DECODE, self.decode[0], Bounds.exactly(self.decode[1])),
            local=InstancePool(_LOCAL, self.local[0], Bounds.exactly(self.local[1]))
            if self.local is not None
            else None,
        )
        pools = tuple(
            InstancePool(f"remote {index}", profile, Bounds.exactly(count))
            for index, (profile, count, _) in enumerate(self.remote)
        )
        links = tuple(
            Link(pool.name, _ROUTE, capacity_bps) for pool, (_, _, capacity_bps) in zip(pools, self.remote, strict=True)
        )
        return Fleet((cluster,), pools, links)


@functools.lru_cache(maxsize=64)
def _best(sizes: _Sizes) -> tuple[int, float, str]:
    """Return the best threshold, its rate and what binds; it takes some 10 ms, and is asked again at every change of any pod."""
    fleet = sizes.fleet()
    demand = Demand.of(fleet)
    found = sizing.carried(demand, fleet.most())
    binding = explanation.explain(demand, found, found.rate).binding
    names = {_bound(resource) for resource in binding}
    tokens = assignment.threshold_tokens(demand.clusters[0], found.assignment.parts[0])
    return tokens, found.rate, " and ".join(sorted(names)) or "several limits at once"


def _bound(resource: explanation.Resource) -> str:
    if resource.kind is explanation.Kind.LINK:
        return "the link"
    if resource.name in (_DECODE, _LOCAL):
        return resource.name
    return "remote prefill"


def _predicted(decode: Side, local: Side | None, remote: tuple[tuple[Side, float], ...], tokens: int) -> float | None:
    sides = [decode, *([local] if local is not None else []), *(side for side, _ in remote)]
    if any(side.ready is None for side in sides):
        return None
    try:
        rate = _carried(_Sizes.of(decode, local, remote, ready=True), tokens)
    except CoreError:
        return None
    return float(f"{rate:.4g}") if math.isfinite(rate) else None


@functools.lru_cache(maxsize=64)
def _carried(sizes: _Sizes, tokens: int) -> float:
    fleet = sizes.fleet()
    return sizing.at_thresholds(fleet, fleet.most(), {_ROUTE: tokens})


@functools.lru_cache(maxsize=8)
def _lengths(max_tokens: int) -> Lengths:
    if max_tokens >= LENGTHS.sample[-1]:
        return LENGTHS
    low = min(_FIRST_TOKENS, max_tokens / 2)
    return Lengths.log_normal(mu=9.90, sigma=1.00, low=low, high=max_tokens, points=_POINTS)
