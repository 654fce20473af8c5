"""PrefillPool and DecodePool: workers in a member cluster."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from prfaas_core import compatibility
from prfaas_core.errors import CoreError
from prfaas_operator import api
from prfaas_operator.actuators.ownership import Ownership
from prfaas_operator.api.conditions import ConditionType, Reason
from prfaas_operator.api.inference_route import Placement
from prfaas_operator.children.config_map import build_profile
from prfaas_operator.children.deployment import PoolWorkload, build_pool_deployment, revision, selector_text
from prfaas_operator.children.disruption_budget import build_disruption_budget
from prfaas_operator.children.merging import TemplateError
from prfaas_operator.children.router import RouterWorkload
from prfaas_operator.children.service import build_headless_service
from prfaas_operator.children.service_account import build_service_account
from prfaas_operator.clusters.resources import DEPLOYMENT
from prfaas_operator.events import EventType
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile import deletion, draining, owners, placement, roles
from prfaas_operator.reconcile.children import ChildError
from prfaas_operator.reconcile.context import Context, now
from prfaas_operator.reconcile.sizing import role_of, scaled_pool, workers_of
from prfaas_operator.scaling import schedule
from prfaas_operator.scaling.views import ScalingView
from prfaas_operator.status import Conditions, is_true, previous

RETRY_S = 5.0
SETTLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Fault:
    """What keeps a pool from being what its spec says."""

    reason: Reason
    message: str
    stalled: bool  # nothing will change by itself


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of a pool at the end of a reconciliation."""

    desired_replicas: int | None
    revision: str | None
    deployment: dict[str, Any] | None  # as the cache has it
    step: draining.Drain | None
    fault: Fault | None
    scaling: ScalingView | None
    ownership: Ownership


async def reconcile(context: Context, stored: Stored) -> float | None:
    """Bring a pool's children to what its spec says, and its status to what is there."""
    if stored.deleting:
        return await deletion.finish(context, stored, deletion.cluster_of(stored))
    if await context.add_finalizer(stored):
        return 0.0
    model = stored.model
    if not isinstance(model, api.Pool):
        await _report_unreadable(context, stored)
        return None
    ref = stored.ref
    member = context.member(ref.namespace, model.spec.cluster_ref.name)
    if member is not None and not (member.settled and context.is_kept(api.MemberCluster, ref.namespace, member.name)):
        # Right after a start nothing is known of the cluster; what the status says stays until something is. And a
        # MemberCluster without the finalizer could be gone before what is made in its cluster is removed again.
        return SETTLE_S
    desired: int | None = None
    wanted_revision: str | None = None
    fault: Fault | None = None
    scaling: ScalingView | None = None
    step: draining.Drain | None = None
    again_s: float | None = None
    try:
        workload = _workload(context, stored, model)
        desired = workload.replicas
        context.metrics.desired_replicas.labels(ref.namespace, ref.kind, ref.name).set(desired)
        bodies = build_children(workload, model.spec.pod_disruption_budget.max_unavailable)
        wanted_revision = revision(bodies[-1])
        if member is None:
            raise ChildError(Reason.CLUSTER_NOT_FOUND, _no_cluster(model), retry=False)
        if member.health.reachable is False:
            raise ChildError(Reason.CLUSTER_UNREACHABLE, member.health.message, retry=True)
        step = draining.next_step(
            context, stored, model, member, workers_of(model, ref.namespace), desired, wanted_revision
        )
        bodies[-1]["spec"]["replicas"] = step.replicas
        await context.children.apply(member, stored.uid, bodies)
        if member.listed:
            await context.children.prune(member, stored.uid, bodies)
        await draining.take(context, stored, member, step)
    except ChildError as error:
        fault = Fault(error.reason, error.message, stalled=not error.retry)
        again_s = RETRY_S if error.retry else None
    except TemplateError as error:
        fault = Fault(Reason.INVALID_SPEC, str(error), stalled=True)
    if model.spec.scaling is not None:
        scaling = context.scaler.view(ref)
        unreadable = schedule.in_force(model.spec.scaling.schedules, now()).fault
        if unreadable and fault is None:
            fault = Fault(Reason.INVALID_SPEC, f"spec.{unreadable}", stalled=True)
    observation = Observation(
        desired_replicas=desired,
        revision=wanted_revision,
        deployment=member.cache.get(DEPLOYMENT, ref.name) if member is not None else None,
        step=step,
        fault=fault,
        scaling=scaling,
        ownership=owners.owner(context, stored, model),
    )
    status = pool_status(stored, model, observation)
    if await context.write_status(stored, status):
        _announce(context, stored, model, status)
    return again_s


def build_children(workload: PoolWorkload, max_unavailable: int | str) -> list[dict[str, Any]]:
    """Return a pool's children, the Deployment last: its pods need the others."""
    owner, role = workload.owner, workload.role
    return [
        build_service_account(owner, owner.name, role),
        build_profile(owner, role, workload.profile_spec),
        build_headless_service(owner, role, workload.http_port),
        build_disruption_budget(owner, owner.name, role, max_unavailable),
        build_pool_deployment(workload),
    ]


def desired_replicas(context: Context, stored: Stored, model: api.Pool) -> int:
    """Return the number of workers that a pool asks for."""
    if model.spec.replicas is not None:
        return model.spec.replicas + roles.converted(context, stored.ref)
    member = context.member(stored.ref.namespace, model.spec.cluster_ref.name)
    scaled = scaled_pool(context, member, stored)
    return context.scaler.replicas(scaled) if scaled is not None else 0


def pool_status(stored: Stored, model: api.Pool, seen: Observation) -> api.PoolStatus:
    """Return the status of a pool. Numbers that cannot be seen stay as they were."""
    ref, before = stored.ref, model.status
    conditions = Conditions(stored.generation, now())
    replicas, ready, updated = before.replicas, before.ready_replicas, before.updated_replicas
    if seen.deployment is not None:
        numbers = seen.deployment.get("status") or {}
        replicas = int(numbers.get("replicas", 0))
        ready = int(numbers.get("readyReplicas", 0))
        updated = int(numbers.get("updatedReplicas", 0))
        if seen.step is not None and seen.step.usable is not None:
            # Those that get no new work are there, but nobody can count on them.
            ready = min(ready, seen.step.usable)
    _conclude(conditions, seen, replicas, ready, updated)
    if model.spec.scaling is None:
        message = "spec.replicas sets the number of workers"
        if seen.desired_replicas is not None and seen.desired_replicas != model.spec.replicas:
            message += f", and {seen.desired_replicas} is what roles make of {model.spec.replicas}; see the route"
        conditions.set(ConditionType.SCALING, False, Reason.FIXED_REPLICAS, message)
    elif seen.scaling is not None:
        conditions.set(ConditionType.SCALING, seen.scaling.active, seen.scaling.reason, seen.scaling.message)
    else:
        conditions.set(ConditionType.SCALING, None, Reason.PENDING, "no decision was taken yet")
    owned = seen.ownership
    conditions.set(ConditionType.REPLICAS_OWNED, owned.owned, owned.reason, owned.message)
    autoscaling = None
    if model.spec.scaling is not None:
        autoscaling = seen.scaling.status if seen.scaling is not None else before.autoscaling
    return api.PoolStatus(
        observed_generation=stored.generation,
        conditions=conditions.merge(previous(model)),
        replicas=replicas,
        ready_replicas=ready,
        updated_replicas=updated,
        desired_replicas=seen.desired_replicas if seen.desired_replicas is not None else before.desired_replicas,
        selector=selector_text(role_of(model), ref.name),
        revision=seen.revision if seen.revision is not None else before.revision,
        autoscaling=autoscaling,
    )


def _conclude(
    conditions: Conditions, seen: Observation, replicas: int | None, ready: int | None, updated: int | None
) -> None:
    if seen.fault is not None:
        unknown = seen.fault.reason is Reason.CLUSTER_UNREACHABLE
        conditions.conclude(
            ready=None if unknown else False,
            reason=seen.fault.reason,
            message=seen.fault.message + ("; the last known state is kept" if unknown else ""),
            reconciling=not seen.fault.stalled,
            stalled=seen.fault.stalled,
        )
        return
    desired, deployment = seen.desired_replicas or 0, seen.deployment
    if deployment is None or replicas is None or ready is None or updated is None:
        conditions.conclude(
            ready=False, reason=Reason.PROGRESSING, message="the Deployment is being made", reconciling=True
        )
        return
    observed = int((deployment.get("status") or {}).get("observedGeneration", 0))
    progress = f"{ready} of {desired} workers are ready, {updated} of the newest revision"
    if _progress_stalled(deployment):
        conditions.conclude(ready=False, reason=Reason.ROLLOUT_STALLED, message=progress, stalled=True)
    elif observed < int(deployment["metadata"].get("generation", 0)) or updated < desired or replicas > updated:
        conditions.conclude(ready=False, reason=Reason.ROLLING_OUT, message=progress, reconciling=True)
    elif ready < desired:
        conditions.conclude(ready=False, reason=Reason.REPLICAS_UNAVAILABLE, message=progress, reconciling=True)
    elif seen.step is not None and seen.step.message:
        message = f"{_are_ready(ready)}; {seen.step.message}"
        conditions.conclude(ready=True, reason=Reason.DRAINING, message=message, reconciling=True)
    elif desired == 0:
        conditions.conclude(ready=True, reason=Reason.SCALED_TO_ZERO, message="no workers are asked for")
    else:
        conditions.conclude(ready=True, reason=Reason.AVAILABLE, message=_are_ready(ready))


def _are_ready(workers: int) -> str:
    return "1 worker is ready" if workers == 1 else f"{workers} workers are ready"


def _progress_stalled(deployment: dict[str, Any]) -> bool:
    return any(
        found["type"] == "Progressing" and found["status"] == "False"
        for found in (deployment.get("status") or {}).get("conditions", ())
    )


def _workload(context: Context, stored: Stored, model: api.Pool) -> PoolWorkload:
    ref, spec = stored.ref, model.spec
    profile = context.store.model(api.ModelProfile, ref.namespace, spec.profile_ref.name)
    if profile is None:
        raise ChildError(
            Reason.PROFILE_NOT_FOUND,
            f"spec.profileRef.name: no ModelProfile {spec.profile_ref.name} in namespace {ref.namespace}; make it",
            retry=False,
        )
    profile_spec = profile[0].body["spec"]
    try:
        fingerprint = compatibility.kv_fingerprint(profile_spec)
    except CoreError as error:
        raise ChildError(Reason.INVALID_SPEC, f"ModelProfile {spec.profile_ref.name}: {error}", retry=False) from error
    return PoolWorkload(
        owner=stored.owner,
        role=role_of(model),
        replicas=desired_replicas(context, stored, model),
        template=_plain(spec.template),
        profile_spec=profile_spec,
        kv_fingerprint=fingerprint,
        http_port=spec.ports.http,
        kv_port=spec.ports.kv,
        drain_s=spec.drain.timeout_seconds,
        sidecar=sidecar(context, stored) if isinstance(model, api.DecodePool) else None,
    )


def sidecar(context: Context, decode: Stored) -> RouterWorkload | None:
    """Return the router that a decode pool's pods carry: of the oldest route with placement Sidecar that names the pool.

    One that is about to be Front is carried until its own routers are ready.
    """
    routes = [
        (stored, route)
        for stored, route in context.store.models(api.InferenceRoute, decode.ref.namespace)
        if route.spec.decode_pool_ref.name == decode.ref.name
        and not stored.deleting
        and Placement.SIDECAR in (route.spec.router.placement, placement.observed(context, stored, route))
    ]
    if not routes or not isinstance(decode.model, api.DecodePool):
        return None
    stored, route = min(routes, key=lambda item: (item[0].body["metadata"]["creationTimestamp"], item[0].ref.name))
    return router_workload(context, stored, route, decode.model, Placement.SIDECAR)


def router_workload(
    context: Context, stored: Stored, route: api.InferenceRoute, decode: api.DecodePool, place: Placement
) -> RouterWorkload:
    """Return the routers of a route in one of the two placements."""
    router = route.spec.router
    beside = place is Placement.SIDECAR
    return RouterWorkload(
        owner=stored.owner,
        cluster=decode.spec.cluster_ref.name,
        operator_address=context.options.advertise_address,
        container=_plain(router.container),
        replicas=router.replicas,
        sidecar_of=decode.metadata.name if beside else None,
    )


async def _report_unreadable(context: Context, stored: Stored) -> None:
    conditions = Conditions(stored.generation, now())
    conditions.conclude(ready=False, reason=Reason.INVALID_SPEC, message=stored.fault, stalled=True)
    status = api.PoolStatus(observed_generation=stored.generation, conditions=conditions.merge(()))
    await context.write_status(stored, status)


def _announce(context: Context, stored: Stored, before: api.Pool, after: api.PoolStatus) -> None:
    """Tell of a change that a person would want to read in `kubectl describe`."""
    owned, had = after.condition(ConditionType.REPLICAS_OWNED), before.status.condition(ConditionType.REPLICAS_OWNED)
    if owned is not None and owned.reason == Reason.OWNERS_CONFLICT and (had is None or had.message != owned.message):
        context.events.record(stored, EventType.WARNING, owned.reason, owned.message)
    ready, was = after.condition(ConditionType.READY), before.status.condition(ConditionType.READY)
    if ready is None or (was is not None and was.reason == ready.reason):
        return
    healthy = is_true(after.conditions, ConditionType.READY) or is_true(after.conditions, ConditionType.RECONCILING)
    context.events.record(stored, EventType.NORMAL if healthy else EventType.WARNING, ready.reason, ready.message)


def _no_cluster(model: api.Pool) -> str:
    name, namespace = model.spec.cluster_ref.name, model.metadata.namespace
    return f"spec.clusterRef.name: no MemberCluster {name} in namespace {namespace}; make it, or name another"


def _plain(model: BaseModel) -> dict[str, Any]:
    """Return a foreign type as it was given, with nothing added."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
