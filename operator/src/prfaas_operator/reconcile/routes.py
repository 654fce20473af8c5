"""InferenceRoute: the routers, what they are told, and whether they have it."""

from collections.abc import Mapping
from typing import Any

from prfaas_operator import api
from prfaas_operator.api.conditions import ConditionType, Reason
from prfaas_operator.api.inference_route import Placement
from prfaas_operator.children.config_map import build_router_files
from prfaas_operator.children.deployment import build_router_deployment
from prfaas_operator.children.disruption_budget import build_disruption_budget
from prfaas_operator.children.merging import TemplateError
from prfaas_operator.children.metadata import identity_labels
from prfaas_operator.children.router import RouterWorkload, router_name
from prfaas_operator.children.service import build_router_service
from prfaas_operator.children.service_account import build_service_account
from prfaas_operator.clusters.resources import DEPLOYMENT
from prfaas_operator.configuration import snapshot as snapshots
from prfaas_operator.configuration import threshold as thresholds
from prfaas_operator.configuration.publisher import REMEMBER_S, RouterReport
from prfaas_operator.configuration.snapshot import RouteView
from prfaas_operator.events import EventType
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile import deletion, placement, planning, pools
from prfaas_operator.reconcile.children import ChildError
from prfaas_operator.reconcile.context import Context
from prfaas_operator.reconcile.resolution import Pool, ResolutionError, Resolved, bandwidth, resolve
from prfaas_operator.reconcile.route_status import RouterPods, route_status

RETRY_S = 5.0
# The short-term loop: with traffic, the threshold is looked at so often.
REPLAN_S = 5.0
# While routers move to another placement.
MOVING_S = 1.0


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
        threshold = planning.threshold(context, stored, route, resolved)
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
    if again_s is None and context.publisher.traffic(ref) is not None:
        again_s = REPLAN_S
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


def _unsettled(context: Context, resolved: Resolved) -> bool:
    """Return whether a cluster of the route was neither read nor found to be away yet.

    Right after a start this keeps the first snapshot from being made of clusters that would be read a moment later.
    """
    for pool in resolved.pools():
        member = context.member(pool.view.namespace, pool.view.cluster)
        if member is not None and not member.settled:
            return True
    return False


async def _publish(
    context: Context, stored: Stored, route: api.InferenceRoute, resolved: Resolved, threshold: thresholds.Threshold
) -> None:
    ref = stored.ref
    view = RouteView(
        namespace=ref.namespace,
        name=ref.name,
        spec=route.spec,
        threshold_tokens=threshold.tokens,
        bandwidth=bandwidth(route, resolved),
        decode=resolved.decode.view,
        local_prefill=resolved.local.view if resolved.local is not None else None,
        remote_prefill=tuple((remote.pool.view, remote.link_view) for remote in resolved.remote),
        prices=threshold.prices,
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
    serving = placement.observed(context, stored, route)
    if serving is not route.spec.router.placement:
        # Pods say when they are ready to their pool, and not to the route.
        context.queue.add_after(stored.ref, MOVING_S)
    if carried is None and placement.carries(member, decode.view.name):
        context.queue.add(decode.stored.ref)
    front = Placement.FRONT in (serving, route.spec.router.placement)
    workload = pools.router_workload(
        context, stored, route, decode.model, Placement.FRONT if front else Placement.SIDECAR
    )
    selector = identity_labels("router", stored.ref.name)
    if serving is Placement.SIDECAR:
        selector = placement.sidecars(member, decode.view.name, decode.stored.uid)
    bodies = build_children(workload, route, context.ca_pem(), selector)
    await context.children.apply(member, stored.uid, bodies)
    if member.listed:
        await context.children.prune(member, stored.uid, bodies)


def build_children(
    workload: RouterWorkload, route: api.InferenceRoute, ca_pem: str, selector: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return a route's children, the Deployment last: its pods need the others. The Service leads to the pods that `selector` selects."""
    owner, name, service = workload.owner, workload.name, route.spec.router.service
    bodies = [
        build_router_files(owner, name, ca_pem),
        build_router_service(
            owner, name, selector, type_=service.type.value, port=service.port, cluster_ip=service.cluster_ip
        ),
    ]
    if workload.sidecar_of is None:
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
        pods=_routers(context, stored, route, resolved),
        roles=planning.roles_view(context, stored, route),
        plan=planning.plan(context, stored, route, resolved, threshold),
    )
    _count(context, stored, status)
    if await context.write_status(stored, status):
        _announce(context, stored, route, status)


def _routers(
    context: Context, stored: Stored, route: api.InferenceRoute | None, resolved: Resolved | None
) -> RouterPods:
    if route is None or resolved is None:
        return RouterPods(0, None)
    decode = resolved.decode
    if route.spec.router.placement is Placement.SIDECAR:
        return RouterPods(decode.desired, decode.ready)
    member = context.member(stored.ref.namespace, decode.view.cluster)
    if member is None or not member.cache.listed((DEPLOYMENT,)):
        return RouterPods(route.spec.router.replicas, None)
    deployment = member.cache.get(DEPLOYMENT, router_name(stored.ref.name))
    ready = int(((deployment or {}).get("status") or {}).get("readyReplicas", 0))
    return RouterPods(route.spec.router.replicas, ready)


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
