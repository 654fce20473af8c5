"""KVLink: what crosses it, and whether that leaves room."""

from prfaas_core import planner
from prfaas_core.link_capacity import Belief, LinkState
from prfaas_operator import api
from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.kv_link import Bandwidth, LinkCapacity
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile.context import Context, now
from prfaas_operator.scaling.capacities import nominal_bps
from prfaas_operator.scaling.links import Reading
from prfaas_operator.status import Conditions, previous

# A status is for people; figures that change less than this are not written again.
_NOTABLE = 0.02
# A link that is not slow is measured on few and small transfers; its figure wavers.
_NOTABLE_CAPACITY = 0.5


async def reconcile(context: Context, stored: Stored) -> float | None:
    """Report the use of a link."""
    link = stored.model
    if stored.deleting:
        return None
    conditions = Conditions(stored.generation, now())
    if not isinstance(link, api.KVLink):
        conditions.conclude(ready=False, reason=Reason.INVALID_SPEC, message=stored.fault, stalled=True)
        await context.write_status(
            stored, api.KVLinkStatus(observed_generation=stored.generation, conditions=conditions.merge(()))
        )
        return None
    missing = [
        name
        for name in (link.spec.from_cluster_ref.name, link.spec.to_cluster_ref.name)
        if context.store.model(api.MemberCluster, stored.ref.namespace, name) is None
    ]
    belief = context.capacities.believed(stored.ref, link)
    status = link_status(stored, link, missing, context.links.reading(stored.ref), belief)
    if await context.write_status(stored, status) and status.bandwidth is not link.status.bandwidth:
        # Routes take the rule from here, and the watch tells of no change that the operator has made itself.
        context.touch(stored.ref)
    return None


def link_status(
    stored: Stored, link: api.KVLink, missing: list[str], reading: Reading | None, belief: Belief
) -> api.KVLinkStatus:
    """Return the status of a link. What cannot be measured stays as it was, and the condition says so."""
    conditions, before = Conditions(stored.generation, now()), link.status
    used_bps, bytes_total = before.used_bps, before.bytes_total
    if missing:
        conditions.conclude(
            ready=False, reason=Reason.CLUSTER_NOT_FOUND, message=f"no MemberCluster {', '.join(missing)}; make it",
            stalled=True,
        )  # fmt: skip
    elif reading is None:
        conditions.conclude(
            ready=None, reason=Reason.PENDING, message="the link was not measured yet", reconciling=True
        )
    elif reading.used_bps is None:
        reason = reading.reason or Reason.SIGNAL_MISSING
        conditions.conclude(ready=None, reason=reason, message=f"{reading.message}; the last known use is kept")
    else:
        conditions.conclude(ready=True, reason=Reason.AVAILABLE, message="the use of the link is measured")
    if reading is not None:
        if reading.used_bps is not None and _notable(used_bps, reading.used_bps):
            used_bps = float(f"{reading.used_bps:.6g}")
        if _notable(bytes_total, reading.bytes_total):
            bytes_total = reading.bytes_total
    utilisation = None if used_bps is None else float(f"{used_bps / belief.bps:.4g}")
    was_scarce = before.bandwidth is not Bandwidth.ABUNDANT
    known = utilisation if reading is not None and reading.used_bps is not None else None
    scarce = planner.scarce(known, was_scarce)
    return api.KVLinkStatus(
        observed_generation=stored.generation,
        conditions=conditions.merge(previous(link)),
        used_bps=used_bps,
        utilisation=utilisation,
        capacity=_capacity(before.capacity, belief, nominal_bps(link)),
        bytes_total=bytes_total,
        cost_total=None if bytes_total is None else float(f"{bytes_total / 1e9 * link.spec.cost_per_gb:.6g}"),
        bandwidth=Bandwidth.SCARCE if scarce else Bandwidth.ABUNDANT,
    )


_CAPACITY = {
    LinkState.UNMEASURED: "too little has crossed the link lately to measure it; {nominal} may be used by its spec",
    LinkState.NOMINAL: "routers find that the link carries what its spec says, {nominal}",
    LinkState.SLOW: "routers measure {measured} where {nominal} may be used; plans use {usable}",
    LinkState.HELD: "routers measured {measured} where {nominal} may be used, and nothing has crossed the link since; plans keep to {usable}",
    LinkState.PROBING: "routers measured {measured} where {nominal} may be used, and nothing has crossed the link for a while; plans try {usable}",
}  # fmt: skip


def _capacity(before: LinkCapacity | None, belief: Belief, nominal: float) -> LinkCapacity:
    measured = belief.measured_bps
    if measured is not None and before is not None and before.state is belief.state is LinkState.NOMINAL:
        known = before.measured_bps
        if known is not None and abs(known - measured) <= _NOTABLE_CAPACITY * max(known, measured):
            measured = known
    message = _CAPACITY[belief.state].format(
        nominal=_rate(nominal), usable=_rate(belief.bps), measured=_rate(measured or 0.0)
    )
    return LinkCapacity(
        state=belief.state,
        usable_bps=float(f"{belief.bps:.6g}"),
        measured_bps=None if measured is None else float(f"{measured:.3g}"),
        message=message,
    )


def _rate(bps: float) -> str:
    return f"{bps / 1e9:.3g} Gbit/s" if bps >= 1e9 else f"{bps / 1e6:.3g} Mbit/s"


def _notable(before: float | None, after: float) -> bool:
    return before is None or abs(after - before) > _NOTABLE * max(abs(before), abs(after))
