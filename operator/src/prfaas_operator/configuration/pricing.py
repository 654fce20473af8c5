"""The prices of a snapshot, from profiles and the threshold: what the finish-time policy is told before rates are measured.

Local requests are taken to be half as long as the threshold and remote ones twice as long, and every worker and link to be
as busy as prices reckon with at most (`prfaas_core.routing.prices.prior`). Within a factor of a few prices hardly matter; what
matters is that at the threshold both sides cost the same.
"""

from __future__ import annotations

from prfaas_core.profiles import Profile
from prfaas_core.routing import prices
from prfaas_protocol import configuration_pb2 as pb


def apply(snapshot: pb.Snapshot, local: Profile, remote: tuple[Profile, ...]) -> None:
    """Set the prices of a snapshot whose pools and threshold are set.

    `local` is the profile of whatever prefills in the decode cluster, `remote` those of the remote pools in their order.
    """
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
