"""What the autoscaler is given of a pool: the pool as it is known, and what others say about its size."""

from datetime import timedelta

from prfaas_core.autoscaling import Ceiling, ScalingReason
from prfaas_core.errors import CoreError
from prfaas_core.profiles import Profile
from prfaas_operator import api
from prfaas_operator.api.conditions import ConditionStatus, ConditionType, Reason
from prfaas_operator.api.inference_route import Placement
from prfaas_operator.api.scaling import Scaling, Signal
from prfaas_operator.children.metadata import Role
from prfaas_operator.clusters.member import Member
from prfaas_operator.clusters.resources import DEPLOYMENT
from prfaas_operator.objects import Ref, Stored
from prfaas_operator.reconcile import draining, placement
from prfaas_operator.reconcile.context import Context, now
from prfaas_operator.scaling import schedule, settings
from prfaas_operator.scaling.capacities import nominal_bps
from prfaas_operator.scaling.pools import ScaledPool, Surroundings
from prfaas_operator.scaling.queries import Workers
from prfaas_operator.scaling.views import ScalingView

# Two scrapes of the slowest Prometheus that makes sense here, and the time until it has found the pod.
_UNTIL_SCRAPED = timedelta(seconds=40)


def role_of(model: api.Pool) -> Role:
    """Return which side a pool is on."""
    return "prefill" if isinstance(model, api.PrefillPool) else "decode"


def workers_of(pool: api.Pool, namespace: str) -> Workers:
    """Return the workers of a pool as Prometheus labels them."""
    return Workers(pool.spec.cluster_ref.name, namespace, pool.metadata.name, role_of(pool))


def profile_of(context: Context, pool: api.Pool, namespace: str) -> Profile | None:
    """Return the profile of a pool's workers; None where there is none that can be read."""
    found = context.store.model(api.ModelProfile, namespace, pool.spec.profile_ref.name)
    if found is None:
        return None
    try:
        return Profile.from_spec(found[0].body["spec"])
    except CoreError:
        return None


def signals_of(context: Context, pool: api.Pool, namespace: str) -> tuple[Signal, ...]:
    """Return what a pool is sized by; nothing where its replicas are fixed."""
    if pool.spec.scaling is None:
        return ()
    return settings.signals(pool.spec.scaling, role_of(pool), profile_of(context, pool, namespace))


def scaled_pool(context: Context, member: Member | None, stored: Stored) -> ScaledPool | None:
    """Return a pool as the autoscaler sees it, or None when it has fixed replicas or cannot be read."""
    model = stored.model
    if not isinstance(model, api.Pool) or model.spec.scaling is None:
        return None
    return observed_pool(context, member, stored, model, model.spec.scaling)


def observed_pool(
    context: Context, member: Member | None, stored: Stored, model: api.Pool, scaling: Scaling
) -> ScaledPool:
    """Return a pool as the autoscaler would see it with a given `scaling`."""
    ref = stored.ref
    deployment = member.cache.get(DEPLOYMENT, ref.name) if member is not None else None
    ready = None
    if deployment is not None and member is not None and member.health.reachable:
        ready = int((deployment.get("status") or {}).get("readyReplicas", 0))
        # Those that get no new work carry none of the load that comes.
        ready = max(0, ready - draining.ready_draining(member, stored))
    profile = context.store.model(api.ModelProfile, ref.namespace, model.spec.profile_ref.name)
    return ScaledPool(
        ref=ref,
        scaling=scaling,
        workers=workers_of(model, ref.namespace),
        engine=profile[1].spec.engine.name if profile is not None else None,
        profile=profile_of(context, model, ref.namespace),
        ready_replicas=ready,
        settled_replicas=draining.ready_since(member, stored, now() - _UNTIL_SCRAPED) if member is not None else 0,
        view=_restored(model),
        live_replicas=int(deployment["spec"].get("replicas", 1)) if deployment is not None else None,
    )


def surroundings(context: Context, pool: ScaledPool) -> Surroundings:
    """Return what others say about the size of a pool."""
    floors = (schedule.in_force(pool.scaling.schedules, now()).floor, context.forecasts.floor(pool.ref))
    return Surroundings(
        demand=demand(context, pool.ref),
        floors=(*(floor for floor in floors if floor is not None), *context.roles.floors(pool.ref)),
        ceilings=(
            *_links(context, pool), *context.budgets.ceilings(pool.ref), *context.roles.ceilings(pool.ref),
        ),
        forecast=context.forecasts.view(pool.ref),
    )  # fmt: skip


def demand(context: Context, pool: Ref) -> float | None:
    """Return how much requests want a pool, as `prfaas_core.autoscaling` has it; None while routers do not say.

    Routers with placement Sidecar go with the last decode worker, and then nobody says that it is wanted.
    """
    if pool.kind == api.DecodePool.__name__ and any(
        route.spec.decode_pool_ref.name == pool.name
        and Placement.SIDECAR in (route.spec.router.placement, placement.observed(context, stored, route))
        for stored, route in context.store.models(api.InferenceRoute, pool.namespace)
    ):
        return None
    found = context.publisher.demand(pool)
    return found.strength if found is not None else None


def _restored(model: api.Pool) -> ScalingView | None:
    """Return what a pool's status says about its size."""
    status, condition = model.status.autoscaling, model.status.condition(ConditionType.SCALING)
    if status is None or condition is None or condition.reason not in set(Reason):
        return None
    active = condition.status is ConditionStatus.TRUE
    return ScalingView(status, active, Reason(condition.reason), condition.message)


def _links(context: Context, pool: ScaledPool) -> tuple[Ceiling, ...]:
    """Return the ceiling of each link that the KV of a remote prefill pool crosses.

    More workers behind a link that is full make nothing faster and cost money. What nobody measures stops growth too: it
    could be full.
    """
    namespace, most = pool.ref.namespace, pool.scaling.max_link_utilisation
    if pool.ref.kind != api.PrefillPool.__name__:
        return ()
    sinks = set()
    for _, route in context.store.models(api.InferenceRoute, namespace):
        if pool.ref.name in (reference.name for reference in route.spec.remote_prefill_pool_refs):
            decode = context.store.model(api.DecodePool, namespace, route.spec.decode_pool_ref.name)
            if decode is not None:
                sinks.add(decode[1].spec.cluster_ref.name)
    found = []
    for stored, link in context.store.models(api.KVLink, namespace):
        if link.spec.from_cluster_ref.name == pool.workers.cluster and link.spec.to_cluster_ref.name in sinks:
            found.append(_ceiling(context, stored.ref, link, most))
    return tuple(ceiling for ceiling in found if ceiling is not None)


def _ceiling(context: Context, ref: Ref, link: api.KVLink, most: float) -> Ceiling | None:
    reading = context.links.reading(ref)
    usable_bps = min(context.capacities.believed(ref, link).bps, nominal_bps(link))
    if reading is None or reading.used_bps is None:
        why = reading.message if reading is not None else "it was not measured yet"
        return Ceiling(0, ScalingReason.LINK_CEILING, f"the use of KVLink {ref.name} is not known: {why}")
    utilisation = reading.used_bps / usable_bps
    if utilisation < most:
        return None
    return Ceiling(
        0, ScalingReason.LINK_CEILING,
        f"KVLink {ref.name} is used by {utilisation:.0%} of what it may carry; growth ends at {most:.0%}",
    )  # fmt: skip
