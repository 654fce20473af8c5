"""The threshold of a route: the number in its spec, or the best one for what the route has.

`Auto` takes the planner's best assignment (`prfaas_core.planning`) of the lengths that routers report, for the numbers of
workers that the pools ask for, each remote pool with its own profile and link. Asking, not readiness, decides: a pod that
restarts must not move the threshold, and routers pass over workers that are not there. A pool that sleeps counts with the
worker that it would wake with, or no request would ever want it. The prediction beside it is for the workers that are ready.

Until routers have seen enough requests the lengths are those of the paper's case study. A threshold that came from measured
lengths is held, and not replaced by one from that prior, when an operator has just started or nobody asks for anything. A new
threshold has to carry `MIN_GAIN` more than the one in force, and more than that while only few requests were seen, so that noise
in what is measured moves nothing.

Where a prefill pool stands beside the decode workers, these do not count in the choice: decode carries what it carries at
every threshold (equation (5) of the paper), and where it binds, prefill sides that are equally busy still give the lowest TTFT.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Self

from prfaas_core.case_study import LENGTHS
from prfaas_core.errors import CoreError
from prfaas_core.lengths import Lengths
from prfaas_core.planning import assignment, explanation, sizing
from prfaas_core.planning.demand import Demand
from prfaas_core.planning.fleet import Bounds, DecodeCluster, Fleet, InstancePool, Link
from prfaas_core.profiles import Profile
from prfaas_core.roles import Split
from prfaas_operator.api.route_plan import ThresholdSource
from prfaas_operator.api.scalars import MAX_TOKENS
from prfaas_operator.configuration import pricing
from prfaas_operator.configuration.pricing import Prices

# Mean length of the answers in the paper's case study (section 4.1).
OUTPUT_TOKENS = 1024
MIN_GAIN = 0.03
# Of n requests a share is known to some 1 / sqrt(n); what it does to the rate is about half of that.
_NOISE = 0.5
# Instances of a decode pool that never binds.
_PLENTY = 1_000_000
_FIRST_TOKENS, _POINTS = 128, 20_000

# No pool of a route has a name with a space in it.
_ROUTE, _DECODE, _LOCAL = "route", "decode of the route", "local prefill"


@dataclass(frozen=True, slots=True)
class Side:
    """Workers of one pool: asked for, and ready; None where the pool's cluster does not say.

    Attributes:
        wakes: with no workers, it gets one as soon as a request wants it.
    """

    profile: Profile
    desired: int
    ready: int | None
    wakes: bool = False

    def count(self, *, ready: bool) -> int:
        """Return how many workers to reckon with."""
        return max((self.ready or 0) if ready else self.desired, int(self.wakes))


@dataclass(frozen=True, slots=True)
class Way:
    """A remote pool and the link to it.

    Attributes:
        capacity_bps: what may be sent over the link.
        line: names the link; pools behind the same one share it. Empty: it is this pool's alone.
        pool: names the pool; empty: after its position.
    """

    side: Side
    capacity_bps: float
    line: str = ""
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Mix:
    """The requests of a route.

    Attributes:
        lengths: their uncached lengths; None when too little was seen.
        output_tokens: mean length of their answers; None when it is not known.
        rate_rps: how many come in a second; None when it is not known.
        requests: from how many of them the lengths are known.
    """

    lengths: Lengths | None = None
    output_tokens: float | None = None
    rate_rps: float | None = None
    requests: float = math.inf


@dataclass(frozen=True, slots=True)
class Before:
    """The threshold in force; `measured` when it came from lengths that routers reported."""

    tokens: int
    measured: bool


@dataclass(frozen=True, slots=True)
class Threshold:
    """The threshold in force and how it came about.

    Attributes:
        requests_per_second: that the model predicts for the ready workers.
        carried_rps: the same for the workers that are asked for.
        gain: how much more prefill it carries than the one before, relative; None where it is the one before.
        prices: that belong to it; None where rates are not measured.
    """

    tokens: int
    source: ThresholdSource
    why: str
    requests_per_second: float | None
    carried_rps: float | None = None
    bound_by: str | None = None
    gain: float | None = None
    prices: Prices | None = None


def choose(
    wanted: int | str,
    *,
    decode: Side,
    local: Side | None,
    remote: tuple[Way, ...],
    before: Before | None,
    mix: Mix,
) -> Threshold:
    """Return the threshold of a route.

    `remote` are the pools that can be used. Without a local prefill pool the decode workers prefill too.
    """
    output_tokens = mix.output_tokens or OUTPUT_TOKENS
    longest = decode.profile.max_model_len_tokens
    lengths = mix.lengths or _prior((local or decode).profile.max_model_len_tokens)
    sizes = _Sizes.of(decode, local, remote, lengths, output_tokens, ready=False)

    def found(tokens: int, source: ThresholdSource, why: str) -> Threshold:
        return Threshold(tokens, source, why, _predicted(decode, local, remote, lengths, output_tokens, tokens))

    def held(why: str) -> Threshold:
        return Threshold(before.tokens if before is not None else longest, ThresholdSource.HELD, why, None)

    if isinstance(wanted, int):
        return found(wanted, ThresholdSource.FIXED, "set in spec.policy.threshold")
    if decode.count(ready=False) == 0:
        return held("the decode pool has no workers")
    if not remote:
        return found(
            longest, ThresholdSource.COMPUTED, "no remote pool can be used, so every prompt is prefilled locally"
        )
    if mix.lengths is None and before is not None and before.measured:
        return held("routers have reported too few requests to go by; the last threshold stays")
    source = ThresholdSource.MEASURED if mix.lengths is not None else ThresholdSource.COMPUTED
    try:
        best = _best(sizes)
        tokens, gain = min(best.tokens, MAX_TOKENS), None
        if before is not None and tokens != before.tokens:
            carried_before = _prefill_rps(sizes, before.tokens)
            least = 1 + MIN_GAIN + _NOISE / math.sqrt(mix.requests)
            if best.prefill_rps < least * carried_before:
                tokens = before.tokens
            else:
                gain = best.prefill_rps / carried_before - 1 if carried_before > 0 else None
        rate = _carried(sizes, tokens)
        prices = None
        if mix.lengths is not None and mix.rate_rps is not None:
            prices = pricing.planned(best.demand, best.sizing, mix.rate_rps)
    except CoreError as error:
        return held(f"no threshold can be computed: {error}")
    kept = "" if tokens == min(best.tokens, MAX_TOKENS) else f"; {best.tokens} would not carry clearly more"
    why = f"{rate:.2g} requests/s {sizes.described()}, {best.bound_by} binds{kept}"
    return replace(found(tokens, source, why), carried_rps=rate, bound_by=best.bound_by, gain=gain, prices=prices)


def split(*, decode: Side, local: Side, remote: tuple[Way, ...], mix: Mix, prefill: tuple[int, int]) -> Split | None:
    """Return how local prefill and decode would best divide their instances, with so many that prefill at least and at most.

    None when the requests are not known.
    """
    if mix.lengths is None or mix.output_tokens is None:
        return None
    sizes = _Sizes.of(decode, local, remote, mix.lengths, mix.output_tokens, ready=False)
    fleet = sizes.fleet()
    total = decode.desired + local.desired
    try:
        exchanging = replace(fleet, clusters=(replace(fleet.clusters[0], role_total=total),))
        demand = Demand.of(exchanging)
        now = sizing.carried(demand, fleet.most())
        best = sizing.largest(demand)
        within = min(max(best.counts[_LOCAL], prefill[0]), prefill[1])
        if within != best.counts[_LOCAL] and 1 <= within < total:
            best = sizing.carried(demand, {**best.counts, _LOCAL: within, _DECODE: total - within})
    except CoreError:
        return None
    return Split(now.rate, best.counts[_LOCAL], best.rate, mix.rate_rps)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Profiles and numbers of workers, and each remote pool's link with what it may carry, bit/s: all that a threshold depends on."""

    decode: tuple[Profile, int]
    local: tuple[Profile, int] | None
    remote: tuple[tuple[Profile, int, float, str, str], ...]
    lengths: Lengths
    output_tokens: float

    @classmethod
    def of(
        cls,
        decode: Side,
        local: Side | None,
        remote: tuple[Way, ...],
        lengths: Lengths,
        output_tokens: float,
        *,
        ready: bool,
    ) -> Self:
        return cls(
            (decode.profile, decode.count(ready=ready)),
            (local.profile, local.count(ready=ready)) if local is not None else None,
            tuple(
                (
                    way.side.profile,
                    way.side.count(ready=ready),
                    way.capacity_bps,
                    way.line,
                    way.pool or f"remote {index}",
                )
                for index, way in enumerate(remote)
            ),
            lengths,
            output_tokens,
        )

    def described(self) -> str:
        """Return the numbers of workers in words."""
        prefills = self.local[1] if self.local is not None else 0
        remote = sum(count for _, count, *_ in self.remote)
        return f"with {remote} remote, {prefills} local and {self.decode[1]} decode workers"

    def unbound(self) -> Self:
        """Return the same with decode that never binds, where prefill has workers of its own."""
        return self if self.local is None else replace(self, decode=(self.decode[0], _PLENTY))

    def fleet(self) -> Fleet:
        """Return the fleet of one route."""
        cluster = DecodeCluster(
            name=_ROUTE,
            lengths=self.lengths,
            output_tokens=self.output_tokens,
            decode=InstancePool(_DECODE, self.decode[0], Bounds.exactly(self.decode[1])),
            local=InstancePool(_LOCAL, self.local[0], Bounds.exactly(self.local[1]))
            if self.local is not None
            else None,
        )
        pools = tuple(InstancePool(name, profile, Bounds.exactly(count)) for profile, count, *_, name in self.remote)
        links = tuple(
            Link(pool.name, _ROUTE, capacity_bps, line=line)
            for pool, (_, _, capacity_bps, line, _) in zip(pools, self.remote, strict=True)
        )
        return Fleet((cluster,), pools, links)


@dataclass(frozen=True, slots=True)
class _Best:
    """The best threshold, what prefill carries at it, what binds the route as a whole, and the prefill side's plan."""

    tokens: int
    prefill_rps: float
    bound_by: str
    demand: Demand
    sizing: sizing.Sizing


@functools.lru_cache(maxsize=64)
def _best(sizes: _Sizes) -> _Best:
    """Search; it takes some 10 ms, and is asked again at every change of any pod."""
    unbound = sizes.unbound().fleet()
    demand = Demand.of(unbound)
    found = sizing.carried(demand, unbound.most())
    tokens = assignment.threshold_tokens(demand.clusters[0], found.assignment.parts[0])
    everything = sizes.fleet()
    whole = Demand.of(everything)
    carried = sizing.carried(whole, everything.most())
    names = {_bound(resource) for resource in explanation.explain(whole, carried, carried.rate).binding}
    return _Best(tokens, found.rate, " and ".join(sorted(names)) or "several limits at once", demand, found)


@functools.lru_cache(maxsize=64)
def _prefill_rps(sizes: _Sizes, tokens: int) -> float:
    fleet = sizes.unbound().fleet()
    return sizing.at_thresholds(fleet, fleet.most(), {_ROUTE: tokens})


def _bound(resource: explanation.Resource) -> str:
    if resource.kind is explanation.Kind.LINK:
        return "the link"
    if resource.name == _LOCAL:
        return "local prefill"
    if resource.name == _DECODE:
        return "decode"
    return "remote prefill"


def _predicted(
    decode: Side,
    local: Side | None,
    remote: tuple[Way, ...],
    lengths: Lengths,
    output_tokens: float,
    tokens: int,
) -> float | None:
    sides = [decode, *([local] if local is not None else []), *(way.side for way in remote)]
    if any(side.ready is None for side in sides):
        return None
    try:
        rate = _carried(_Sizes.of(decode, local, remote, lengths, output_tokens, ready=True), tokens)
    except CoreError:
        return None
    return float(f"{rate:.3g}") if math.isfinite(rate) else None


@functools.lru_cache(maxsize=64)
def _carried(sizes: _Sizes, tokens: int) -> float:
    fleet = sizes.fleet()
    return sizing.at_thresholds(fleet, fleet.most(), {_ROUTE: tokens})


@functools.lru_cache(maxsize=8)
def _prior(max_tokens: int) -> Lengths:
    if max_tokens >= LENGTHS.sample[-1]:
        return LENGTHS
    low = min(_FIRST_TOKENS, max_tokens / 2)
    return Lengths.log_normal(mu=9.90, sigma=1.00, low=low, high=max_tokens, points=_POINTS)
