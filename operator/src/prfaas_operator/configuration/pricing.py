"""The prices of a snapshot: what a second of shared time costs others, for the finish-time policy.

With rates that routers have measured they come from the plan behind the threshold (`planned`): base prices are the planner's
shadow prices, scaled so that local work costs what its queue makes others wait at the measured rate, and prices follow from each
pool's and link's part of that rate. Pools behind one link share its price, as they share the link.

Before that (`apply` without a plan) they come from profiles and the threshold: local requests are taken to be half as long as the
threshold and remote ones twice as long, and every worker and link to be as busy as prices reckon with at most
(`prfaas_core.routing.prices.prior`).

Within a factor of a few prices hardly matter; what matters is that at the threshold both sides cost the same. So `settle` keeps
those that routers have until they are clearly others, and noise in rates makes no new configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prfaas_core.planning import assignment, explanation
from prfaas_core.planning.demand import Demand
from prfaas_core.planning.explanation import Kind
from prfaas_core.planning.fleet import InstancePool
from prfaas_core.planning.sizing import Sizing
from prfaas_core.profiles import Profile
from prfaas_core.routing import prices
from prfaas_protocol import configuration_pb2 as pb

_SAME_PRICE, _SAME_BASE = 1.5, 2.0
"""Factors. A base price grows with about the fourth power of the rate."""


@dataclass(frozen=True, slots=True)
class Price:
    """Of a pool's work or of a link's time; see `Pool.price` and `Pool.base_price` in the protocol."""

    price: float
    base: float


@dataclass(frozen=True, slots=True)
class Prices:
    """Of one route: whatever prefills in the decode cluster, remote pools by name, and links by name."""

    local: Price
    remote: Mapping[str, Price]
    links: Mapping[str, Price]


def planned(demand: Demand, sizing: Sizing, rate_rps: float) -> Prices | None:
    """Return the prices of a plan for one route at a measured rate, requests/s.

    None where local prefill has capacity in abundance, since all others are weighed against it. A remote pool or link that the
    plan leaves idle has the price that it would have at first.
    """
    explained = explanation.explain(demand, sizing, rate_rps)
    loads = assignment.loads(demand, sizing.assignment.parts)
    shadow, link_shadow = dict(explained.pool_prices), dict(explained.link_prices)
    used = {(resource.kind, resource.name): resource for resource in explained.resources}
    local, *remote = demand.clusters[0].ways
    names = [way.pool.name for way in (local, *remote)]
    lines = {way.link.name: way.link for way in remote if way.link is not None}
    here = local.pool.name
    if rate_rps <= 0 or not shadow.get(here) or not loads.requests.get(here):
        return None
    busy = {name: used[Kind.PREFILL, name].utilisation for name in names}
    mean_tokens = demand.clusters[0].cluster.lengths.mean

    def price(pool: InstancePool) -> float:
        requests = loads.requests.get(pool.name, 0.0)
        if requests == 0:
            return prices.prior(pool.profile.prefill_s(mean_tokens))
        return prices.price(rate_rps * requests, sizing.counts[pool.name], busy[pool.name])

    def line_price(line: str) -> float:
        over = [way for way in remote if way.link is not None and way.link.name == line]
        requests = sum(loads.requests.get(way.pool.name, 0.0) for way in over)
        if requests == 0:
            return prices.prior(8 * over[0].pool.profile.kv_bytes(mean_tokens) / lines[line].usable_bps)
        return prices.price(rate_rps * requests, 1, used[Kind.LINK, line].utilisation)

    base = prices.base_price(
        price(local.pool), loads.busy_s[here] / loads.requests[here], sizing.counts[here], max(busy.values())
    )
    unit = base / shadow[here]
    return Prices(
        local=Price(price(local.pool), base),
        remote={way.pool.name: Price(price(way.pool), unit * shadow.get(way.pool.name, 0.0)) for way in remote},
        links={
            line: Price(line_price(line), unit * link_shadow.get(line, 0.0) * link.usable_bps)
            for line, link in lines.items()
            if link.usable_bps > 0
        },
    )


def apply(snapshot: pb.Snapshot, local: Profile, remote: tuple[Profile, ...], plan: Prices | None = None) -> None:
    """Set the prices of a snapshot whose pools and threshold are set.

    `local` is the profile of whatever prefills in the decode cluster, `remote` those of the remote pools in their order.
    """
    entries = snapshot.remote_prefill
    if plan is None or any(
        entry.pool.name not in plan.remote or entry.link.name not in plan.links for entry in entries
    ):
        _apply_prior(snapshot, local, remote)
        return
    for pool in (snapshot.decode, *([snapshot.local_prefill] if snapshot.HasField("local_prefill") else [])):
        pool.price, pool.base_price = plan.local.price, plan.local.base
    for entry in entries:
        work, time = plan.remote[entry.pool.name], plan.links[entry.link.name]
        entry.pool.price, entry.pool.base_price = work.price, work.base
        entry.link.price, entry.link.base_price = time.price, time.base


def settle(snapshot: pb.Snapshot, before: pb.Snapshot | None) -> None:
    """Keep the prices of the snapshot before when the same things have about the same prices."""
    if before is None:
        return
    new, old = list(_priced(snapshot)), list(_priced(before))
    if [name for name, _ in new] != [name for name, _ in old]:
        return
    pairs = [(one, other) for (_, one), (_, other) in zip(new, old, strict=True)]
    if all(
        _same(one.price, other.price, _SAME_PRICE) and _same(one.base_price, other.base_price, _SAME_BASE)
        for one, other in pairs
    ):
        for one, other in pairs:
            one.price, one.base_price = other.price, other.base_price


def _same(one: float, other: float, factor: float) -> bool:
    return one == other or max(one, other) <= factor * min(one, other)


def _priced(snapshot: pb.Snapshot) -> Iterator[tuple[str, pb.Pool | pb.Link]]:
    yield f"{snapshot.policy.threshold_tokens}", snapshot.decode
    if snapshot.HasField("local_prefill"):
        yield snapshot.local_prefill.name, snapshot.local_prefill
    for entry in snapshot.remote_prefill:
        yield entry.pool.name, entry.pool
        yield entry.link.name, entry.link


def _apply_prior(snapshot: pb.Snapshot, local: Profile, remote: tuple[Profile, ...]) -> None:
    longest = snapshot.model.max_model_len_tokens
    tokens = min(max(1, snapshot.policy.threshold_tokens), longest)
    local_s = local.prefill_s(tokens / 2)
    here = snapshot.local_prefill if snapshot.HasField("local_prefill") else snapshot.decode
    price = prices.prior(local_s)
    base = prices.base_price(price, local_s, max(1, len(here.endpoints)), prices.MOST_LOADED)
    for pool in (snapshot.decode, here):
        pool.price, pool.base_price = price, base
    for profile, entry in zip(remote, snapshot.remote_prefill, strict=True):
        typical = min(2 * tokens, longest)
        link_bps = entry.link.capacity_bps * entry.link.share
        remote_s, link_s = profile.prefill_s(tokens), 8 * profile.kv_bytes(tokens) / link_bps
        entry.pool.price = prices.prior(profile.prefill_s(typical))
        entry.link.price = prices.prior(8 * profile.kv_bytes(typical) / link_bps)
        entry.pool.base_price, entry.link.base_price = prices.across(
            base,
            local.prefill_s(tokens),
            remote_s,
            link_s,
            link_binds=link_s * max(1, len(entry.pool.endpoints)) > remote_s,
        )
