"""InferenceRoute: the routers, what they are told, and whether they have it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prfaas_core import compatibility
from prfaas_core.errors import CoreError
from prfaas_core.profiles import Profile
from prfaas_operator import api
from prfaas_operator.api.conditions import ConditionType, Reason
from prfaas_operator.api.inference_route import (
    BandwidthMode,
    ConfigurationStatus,
    Placement,
    RouterStatus,
)
from prfaas_operator.api.kv_link import Bandwidth
from prfaas_operator.children.config_map import build_router_files
from prfaas_operator.children.deployment import build_router_deployment
from prfaas_operator.children.disruption_budget import build_disruption_budget
from prfaas_operator.children.merging import TemplateError
from prfaas_operator.children.metadata import identity_labels
from prfaas_operator.children.router import RouterWorkload
from prfaas_operator.children.service import build_router_service
from prfaas_operator.children.service_account import build_service_account
from prfaas_operator.clusters.resources import DEPLOYMENT, POD
from prfaas_operator.configuration import snapshot as snapshots
from prfaas_operator.configuration import threshold as thresholds
from prfaas_operator.configuration.publisher import REMEMBER_S, RouterReport
from prfaas_operator.configuration.snapshot import LinkView, PoolView, RouteView
from prfaas_operator.events import EventType
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile import deletion, pools
from prfaas_operator.reconcile.children import ChildError
from prfaas_operator.reconcile.context import Context, now
from prfaas_operator.status import Conditions, previous

RETRY_S = 5.0


class ResolutionError(Exception):
    """The route cannot be programmed as it is; the routers keep what they have."""

    def __init__(self, reason: Reason, message: str, *, stalled: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.stalled = stalled


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of a route with what belongs to it."""

    stored: Stored
    model: api.Pool
    profile_spec: Mapping[str, Any]
    view: PoolView
    desired: int

    @property
    def ready(self) -> int | None:
        return len(self.view.workers) if self.view.workers is not None else None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A prefill pool that is not part of the configuration, and why."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A route with the pools and links it can use."""

    decode: Pool
    local: Pool | None
    remote: tuple[tuple[Pool, Stored, api.KVLink], ...]
    left_out: tuple[LeftOut, ...]


async def reconcile(context: Context, stored: Stored) -> float | None:
    """Bring a route's routers to what its spec says, publish what they should know, and report who knows it."""
    ref = stored.ref
    if not context.publisher.restored(ref):
        await _restore(context, stored)
    if stored.deleting:
        decode = context.store.model(api.DecodePool, ref.namespace, stored.body["spec"]["decodePoolRef"]["name"])
        cluster = decode[1].spec.cluster_ref.name if decode is not None else _last_cluster(context, stored)
        again_s = await deletion.finish(context, stored, cluster)
        if again_s is None:
            context.publisher.forget(ref)
            await context.archive.drop(stored.uid)
        return again_s
    if await context.add_finalizer(stored):
        return 0.0
    route = stored.model
    if not isinstance(route, api.InferenceRoute):
        await _write(context, stored, None, ResolutionError(Reason.INVALID_SPEC, stored.fault), None, None)
        return None
    again_s = None
    fault: ResolutionError | None = None
    resolved: Resolved | None = None
    threshold: thresholds.Threshold | None = None
    try:
        resolved = resolve(context, stored, route)
        if _unsettled(context, resolved):
            return pools.SETTLE_S
        threshold = _threshold(context, stored, route, resolved)
        await _publish(context, stored, route, resolved, threshold)
        await _apply(context, stored, route, resolved.decode)
    except ResolutionError as error:
        fault = error
    except ChildError as error:
        fault = ResolutionError(error.reason, error.message, stalled=not error.retry)
        again_s = RETRY_S if error.retry else None
    except TemplateError as error:
        fault = ResolutionError(Reason.INVALID_SPEC, str(error))
    await _write(context, stored, route, fault, resolved, threshold)
    return again_s


async def _restore(context: Context, stored: Stored) -> None:
    """Go on from the configuration that was published before this operator started."""
    kept = await context.archive.load(stored.uid)
    before = stored.model.status.configuration if isinstance(stored.model, api.InferenceRoute) else None
    version, reports = 0, []
    if before is not None:
        version = before.version
        reports = [
            RouterReport(router.name, router.cluster, router.version, version if router.message else 0, router.message)
            for router in before.routers
        ]
    context.publisher.restore(stored.ref, kept, version, reports)
    context.queue.add_after(stored.ref, REMEMBER_S)


def resolve(context: Context, stored: Stored, route: api.InferenceRoute) -> Resolved:
    """Return the pools and links of a route that can work together.

    Raises `ResolutionError` when not even decoding is possible; prefill pools that do not fit are left out.
    """
    ref, spec = stored.ref, route.spec
    decode = _pool(context, api.DecodePool, ref.namespace, spec.decode_pool_ref.name, "spec.decodePoolRef")
    if decode.view.profile.model != spec.model:
        raise ResolutionError(
            Reason.MODEL_MISMATCH,
            f"spec.model is {spec.model!r}, and the profile of decode pool {decode.view.name} is for "
            f"{decode.view.profile.model!r}; name a pool of this model",
        )
    left_out: list[LeftOut] = []
    local: Pool | None = None
    if spec.local_prefill_pool_ref is not None:
        try:
            found = _prefill(context, decode, spec.local_prefill_pool_ref.name, "spec.localPrefillPoolRef")
            if found.view.cluster != decode.view.cluster:
                raise ResolutionError(
                    Reason.CLUSTER_MISMATCH,
                    f"local prefill pool {found.view.name} is in cluster {found.view.cluster}, the decode pool in "
                    f"{decode.view.cluster}; make it a remote pool",
                )
            local = found
        except ResolutionError as error:
            left_out.append(LeftOut(error.reason, error.message))
    remote: list[tuple[Pool, Stored, api.KVLink]] = []
    for reference in spec.remote_prefill_pool_refs:
        try:
            found = _prefill(context, decode, reference.name, "spec.remotePrefillPoolRefs")
            link = _link(context, found, decode)
            remote.append((found, *link))
        except ResolutionError as error:
            left_out.append(LeftOut(error.reason, error.message))
    return Resolved(decode, local, tuple(remote), tuple(left_out))


def _prefill(context: Context, decode: Pool, name: str, field: str) -> Pool:
    found = _pool(context, api.PrefillPool, decode.view.namespace, name, field)
    different = compatibility.differences(decode.profile_spec, found.profile_spec)
    if different:
        raise ResolutionError(
            Reason.FINGERPRINTS_DIFFER,
            f"prefill pool {name} cannot hand KV to decode pool {decode.view.name}: "
            + "; ".join(f"{entry.field} is {entry.right!r} there and {entry.left!r} here" for entry in different),
        )
    return found


def _pool(context: Context, kind: type[api.Pool], namespace: str, name: str, field: str) -> Pool:
    found = context.store.model(kind, namespace, name)
    if found is None:
        raise ResolutionError(
            Reason.POOL_NOT_FOUND, f"{field}: no {kind.__name__} {name} in namespace {namespace}; make it"
        )
    stored, model = found
    profile = context.store.model(api.ModelProfile, namespace, model.spec.profile_ref.name)
    if profile is None:
        raise ResolutionError(
            Reason.PROFILE_NOT_FOUND, f"{kind.__name__} {name}: no ModelProfile {model.spec.profile_ref.name}; make it"
        )
    spec = profile[0].body["spec"]
    try:
        core, fingerprint = Profile.from_spec(spec), compatibility.kv_fingerprint(spec)
    except CoreError as error:
        raise ResolutionError(Reason.INVALID_SPEC, f"ModelProfile {model.spec.profile_ref.name}: {error}") from error
    member = context.member(namespace, model.spec.cluster_ref.name)
    workers = None
    if member is not None and member.cache.listed((POD,)):
        workers = snapshots.ready_workers(member.cache.all(POD), stored.uid)
    view = PoolView(
        namespace=namespace,
        name=name,
        cluster=model.spec.cluster_ref.name,
        profile=core,
        connector=str(profile[1].spec.kv.connector.name),
        kv_fingerprint=fingerprint,
        http_port=model.spec.ports.http,
        kv_port=model.spec.ports.kv,
        workers=workers,
    )
    return Pool(stored, model, spec, view, pools.desired_replicas(context, stored, model))


def _link(context: Context, remote: Pool, decode: Pool) -> tuple[Stored, api.KVLink]:
    source, target = remote.view.cluster, decode.view.cluster
    if source == target:
        raise ResolutionError(
            Reason.CLUSTER_MISMATCH,
            f"remote prefill pool {remote.view.name} is in cluster {source}, as the decode pool is; make it the local one",
        )
    links = [
        (stored, link)
        for stored, link in context.store.models(api.KVLink, decode.view.namespace)
        if (link.spec.from_cluster_ref.name, link.spec.to_cluster_ref.name) == (source, target) and not stored.deleting
    ]
    if not links:
        raise ResolutionError(
            Reason.LINK_NOT_FOUND,
            f"remote prefill pool {remote.view.name}: no KVLink leads from cluster {source} to {target}; make one",
        )
    if len(links) > 1:
        names = ", ".join(stored.ref.name for stored, _ in links)
        raise ResolutionError(
            Reason.LINK_AMBIGUOUS, f"KVLinks {names} all lead from cluster {source} to {target}; delete all but one"
        )
    return links[0]


def _unsettled(context: Context, resolved: Resolved) -> bool:
    """Return whether a cluster of the route was neither read nor found to be away yet.

    Right after a start this keeps the first snapshot from being made of clusters that would be read a moment later.
    """
    for pool in (resolved.decode, resolved.local, *(entry[0] for entry in resolved.remote)):
        member = context.member(pool.view.namespace, pool.view.cluster) if pool is not None else None
        if member is not None and not member.settled:
            return True
    return False


def _threshold(context: Context, stored: Stored, route: api.InferenceRoute, resolved: Resolved) -> thresholds.Threshold:
    newest = context.publisher.newest(stored.ref)
    return thresholds.choose(
        route.spec.policy.threshold,
        decode=_side(resolved.decode),
        local=_side(resolved.local) if resolved.local is not None else None,
        remote=tuple(
            (_side(pool), link.spec.capacity_gbps * 1e9 * link.spec.share) for pool, _, link in resolved.remote
        ),
        before=newest.policy.threshold_tokens if newest is not None else None,
    )


def _side(pool: Pool) -> thresholds.Side:
    return thresholds.Side(pool.view.profile, pool.desired, pool.ready)


def bandwidth(route: api.InferenceRoute, links: Sequence[api.KVLink]) -> Bandwidth:
    """Return which rule holds. `Auto` is scarce as soon as one link is, and for links that were not measured yet: a
    wrong guess then costs a cache hit, and not the link."""
    match route.spec.policy.bandwidth:
        case BandwidthMode.SCARCE:
            return Bandwidth.SCARCE
        case BandwidthMode.ABUNDANT:
            return Bandwidth.ABUNDANT
    if links and all(link.status.bandwidth is Bandwidth.ABUNDANT for link in links):
        return Bandwidth.ABUNDANT
    return Bandwidth.SCARCE


async def _publish(
    context: Context, stored: Stored, route: api.InferenceRoute, resolved: Resolved, threshold: thresholds.Threshold
) -> None:
    ref = stored.ref
    view = RouteView(
        namespace=ref.namespace,
        name=ref.name,
        spec=route.spec,
        threshold_tokens=threshold.tokens,
        bandwidth=bandwidth(route, [link for _, _, link in resolved.remote]),
        decode=resolved.decode.view,
        local_prefill=resolved.local.view if resolved.local is not None else None,
        remote_prefill=tuple(
            (
                pool.view,
                LinkView(
                    namespace=ref.namespace,
                    name=link_stored.ref.name,
                    capacity_bps=link.spec.capacity_gbps * 1e9,
                    share=link.spec.share,
                    translation=link.spec.address_translation,
                ),
            )
            for pool, link_stored, link in resolved.remote
        ),
    )
    await context.publisher.publish(ref, snapshots.build(view, context.publisher.newest(ref)))
    context.metrics.configuration_version.labels(ref.namespace, ref.name).set(context.publisher.version(ref))


async def _apply(context: Context, stored: Stored, route: api.InferenceRoute, decode: Pool) -> None:
    member = context.member(stored.ref.namespace, decode.view.cluster)
    if member is None:
        raise ChildError(
            Reason.CLUSTER_NOT_FOUND,
            f"the decode pool's clusterRef: no MemberCluster {decode.view.cluster}; make it",
            retry=False,
        )
    if member.health.reachable is False:
        raise ChildError(Reason.CLUSTER_UNREACHABLE, member.health.message, retry=True)
    assert isinstance(decode.model, api.DecodePool)  # noqa: S101  as it was resolved
    carried = pools.sidecar(context, decode.stored)
    if route.spec.router.placement is Placement.SIDECAR and carried is not None and carried.owner.uid != stored.uid:
        raise ResolutionError(
            Reason.INVALID_SPEC,
            f"spec.router.placement: decode pool {decode.view.name} carries the routers of {carried.owner.name} already; "
            "use Front, or another decode pool",
        )
    workload = pools.router_workload(context, stored, route, decode.model)
    bodies = build_children(workload, route, context.ca_pem())
    await context.children.apply(member, stored.uid, bodies)
    if member.listed:
        await context.children.prune(member, stored.uid, bodies)


def build_children(workload: RouterWorkload, route: api.InferenceRoute, ca_pem: str) -> list[dict[str, Any]]:
    """Return a route's children, the Deployment last: its pods need the others."""
    owner, name, service = workload.owner, workload.name, route.spec.router.service
    beside = workload.sidecar_of
    selector = identity_labels("decode", beside) if beside is not None else identity_labels("router", owner.name)
    bodies = [
        build_router_files(owner, name, ca_pem),
        build_router_service(
            owner, name, selector, type_=service.type.value, port=service.port, cluster_ip=service.cluster_ip
        ),
    ]
    if beside is None:
        bodies += [
            build_service_account(owner, name, "router"),
            build_disruption_budget(owner, name, "router"),
            build_router_deployment(workload),
        ]
    return bodies


async def _write(
    context: Context,
    stored: Stored,
    route: api.InferenceRoute | None,
    fault: ResolutionError | None,
    resolved: Resolved | None,
    threshold: thresholds.Threshold | None,
) -> None:
    status = route_status(
        stored,
        route,
        fault=fault,
        resolved=resolved,
        threshold=threshold,
        version=context.publisher.version(stored.ref),
        reports=context.publisher.reports(stored.ref),
        routers_expected=_expected(context, stored, route, resolved),
    )
    _count(context, stored, status)
    if await context.write_status(stored, status):
        _announce(context, stored, route, status)


def _expected(
    context: Context, stored: Stored, route: api.InferenceRoute | None, resolved: Resolved | None
) -> tuple[int, int | None]:
    """Return how many routers there should be, and how many pods of them are ready (None: unknown)."""
    if route is None or resolved is None:
        return 0, None
    decode = resolved.decode
    if route.spec.router.placement is Placement.SIDECAR:
        return decode.desired, decode.ready
    member = context.member(stored.ref.namespace, decode.view.cluster)
    if member is None or not member.cache.listed((DEPLOYMENT,)):
        return route.spec.router.replicas, None
    deployment = member.cache.get(DEPLOYMENT, f"{stored.ref.name}-router")
    ready = int(((deployment or {}).get("status") or {}).get("readyReplicas", 0))
    return route.spec.router.replicas, ready


def route_status(
    stored: Stored,
    route: api.InferenceRoute | None,
    *,
    fault: ResolutionError | None,
    resolved: Resolved | None,
    threshold: thresholds.Threshold | None,
    version: int,
    reports: Sequence[RouterReport],
    routers_expected: tuple[int, int | None],
) -> api.InferenceRouteStatus:
    """Return the status of a route."""
    before = route.status if route is not None else api.InferenceRouteStatus()
    conditions = Conditions(stored.generation, now())
    expected, routers_ready = routers_expected
    routers = tuple(
        RouterStatus(
            name=report.name,
            cluster=report.cluster,
            version=report.version,
            acknowledged=report.version == version and version > 0,
            message=report.refusal if report.refused_version == version else "",
        )
        for report in reports
    )
    acknowledged = sum(router.acknowledged for router in routers)
    refusals = [router for router in routers if router.message]
    if refusals:
        message = "; ".join(f"{router.name}: {router.message}" for router in refusals)
        programmed, why = (False, Reason.CONFIGURATION_REFUSED), f"version {version} is refused by {message}"
    elif version > 0 and acknowledged >= expected > 0 and acknowledged == len(routers):
        programmed, why = (True, Reason.ROUTERS_ACKNOWLEDGED), f"{acknowledged} routers serve version {version}"
    else:
        programmed, why = (
            (False, Reason.ROUTERS_PENDING),
            f"{acknowledged} of {max(expected, len(routers))} routers serve version {version}",
        )
    conditions.set(ConditionType.PROGRAMMED, *programmed, why)
    _set_compatible(conditions, resolved)
    _conclude(conditions, fault, resolved, routers_ready, programmed=programmed[0], why=(programmed[1], why))
    return api.InferenceRouteStatus(
        observed_generation=stored.generation,
        conditions=conditions.merge(previous(route)),
        threshold_tokens=threshold.tokens if threshold is not None else before.threshold_tokens,
        threshold_source=threshold.source if threshold is not None else before.threshold_source,
        threshold_why=threshold.why if threshold is not None else before.threshold_why,
        bandwidth=(
            bandwidth(route, [link for _, _, link in resolved.remote])
            if route is not None and resolved is not None
            else before.bandwidth
        ),
        predicted_requests_per_second=threshold.requests_per_second if threshold is not None else None,
        configuration=ConfigurationStatus(version=version, routers=routers) if version > 0 or routers else None,
        routers_ready=f"{acknowledged}/{max(expected, len(routers))}",
    )


def _set_compatible(conditions: Conditions, resolved: Resolved | None) -> None:
    if resolved is None:
        conditions.set(ConditionType.COMPATIBLE, None, Reason.PENDING, "the pools could not be compared")
        return
    different = [entry for entry in resolved.left_out if entry.reason is Reason.FINGERPRINTS_DIFFER]
    if different:
        text = "; ".join(entry.message for entry in different)
        conditions.set(ConditionType.COMPATIBLE, False, Reason.FINGERPRINTS_DIFFER, text)
    else:
        text = "all pools in use have one KV fingerprint"
        conditions.set(ConditionType.COMPATIBLE, True, Reason.FINGERPRINTS_EQUAL, text)


def _conclude(
    conditions: Conditions,
    fault: ResolutionError | None,
    resolved: Resolved | None,
    routers_ready: int | None,
    *,
    programmed: bool,
    why: tuple[Reason, str],
) -> None:
    if fault is not None or resolved is None:
        reason = fault.reason if fault is not None else Reason.PENDING
        message = fault.message if fault is not None else "nothing was observed yet"
        stalled = fault is not None and fault.stalled
        unknown = reason is Reason.CLUSTER_UNREACHABLE
        conditions.conclude(
            ready=None if unknown else False,
            reason=reason,
            message=message + ("; routers keep what they have" if unknown else ""),
            reconciling=not stalled,
            stalled=stalled,
        )
        return
    if resolved.left_out:
        message = "; ".join(entry.message for entry in resolved.left_out)
        conditions.conclude(ready=False, reason=resolved.left_out[0].reason, message=message, stalled=True)
    elif not resolved.decode.ready:
        name = resolved.decode.view.name
        conditions.conclude(
            ready=False, reason=Reason.NO_READY_DECODE, message=f"no worker of {name} is ready", reconciling=True
        )
    elif not routers_ready:
        conditions.conclude(ready=False, reason=Reason.NO_READY_ROUTER, message="no router is ready", reconciling=True)
    elif not programmed:
        refused = why[0] is Reason.CONFIGURATION_REFUSED
        conditions.conclude(ready=False, reason=why[0], message=why[1], reconciling=not refused, stalled=refused)
    else:
        conditions.conclude(ready=True, reason=Reason.AVAILABLE, message=why[1])


def _count(context: Context, stored: Stored, status: api.InferenceRouteStatus) -> None:
    routers = status.configuration.routers if status.configuration is not None else ()
    ref, acknowledged = stored.ref, sum(router.acknowledged for router in routers)
    refused = sum(bool(router.message) for router in routers)
    for state, number in (
        ("acknowledged", acknowledged), ("refused", refused), ("pending", len(routers) - acknowledged - refused)
    ):  # fmt: skip
        context.metrics.routers.labels(ref.namespace, ref.name, state).set(number)


def _announce(
    context: Context, stored: Stored, before: api.InferenceRoute | None, after: api.InferenceRouteStatus
) -> None:
    ready = after.condition(ConditionType.READY)
    was = before.status.condition(ConditionType.READY) if before is not None else None
    if ready is None or (was is not None and was.reason == ready.reason):
        return
    stalled = after.condition(ConditionType.STALLED)
    warn = stalled is not None and stalled.status.value == "True"
    context.events.record(stored, EventType.WARNING if warn else EventType.NORMAL, ready.reason, ready.message)


def _last_cluster(context: Context, stored: Stored) -> str | None:
    """Return the cluster of a route whose decode pool is gone: where its last snapshot says that it was."""
    newest = context.publisher.newest(stored.ref)
    return newest.decode.cluster if newest is not None and newest.decode.cluster else None
