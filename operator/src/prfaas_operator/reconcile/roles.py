"""Which pools exchange instances, and how many have changed from prefill to decode."""

from collections.abc import Iterator
from dataclasses import dataclass

from prfaas_operator import api
from prfaas_operator.api.route_plan import RolesMode
from prfaas_operator.children.metadata import DRAINING_ANNOTATION, owner_uid
from prfaas_operator.clusters.resources import DEPLOYMENT, POD
from prfaas_operator.objects import Ref, Stored
from prfaas_operator.reconcile.context import Context


@dataclass(frozen=True, slots=True)
class Exchange:
    """The pools of a route that exchange instances, and their numbers of workers by their specs."""

    prefill: Ref
    decode: Ref
    prefill_replicas: int
    decode_replicas: int

    def bounded(self, to_decode: int) -> int:
        """Return a number of conversions that leaves either pool an instance, whatever was edited since they were made."""
        return min(max(to_decode, 1 - self.decode_replicas), self.prefill_replicas - 1)


class RefusedError(Exception):
    """The pools of a route cannot exchange instances; the message says why, and the way out."""


def exchanging(context: Context, namespace: str) -> Iterator[tuple[Stored, api.InferenceRoute]]:
    """Yield the routes of a namespace with roles `Auto`."""
    for stored, route in context.store.models(api.InferenceRoute, namespace):
        if route.spec.policy.roles.mode is RolesMode.AUTO and not stored.deleting:
            yield stored, route


def exchange(context: Context, stored: Stored, route: api.InferenceRoute) -> Exchange:
    """Return the pools of a route that exchange instances.

    Raises:
        RefusedError: they cannot.
    """
    namespace, local = stored.ref.namespace, route.spec.local_prefill_pool_ref
    if local is None:
        raise RefusedError(
            "spec.localPrefillPoolRef: there is none to exchange instances with; name one, or set roles.mode Fixed"
        )
    found: list[tuple[Ref, int]] = []
    accelerators: list[tuple[str, str]] = []
    for kind, name in ((api.PrefillPool, local.name), (api.DecodePool, route.spec.decode_pool_ref.name)):
        pool = context.store.model(kind, namespace, name)
        if pool is None:
            raise RefusedError(f"no {kind.__name__} {name}; make it")
        model = pool[1]
        for autoscaler in context.autoscalers.of(pool[0].ref):
            raise RefusedError(f"{kind.__name__} {name} is sized by {autoscaler}; delete that, or set roles.mode Fixed")
        replicas = model.spec.replicas
        if replicas is None:
            raise RefusedError(
                f"{kind.__name__} {name} has scaling, which sizes it by itself; give it replicas, or set roles.mode Fixed"
            )
        if replicas == 0:
            raise RefusedError(f"{kind.__name__} {name} has no replicas; give it at least 1")
        for other in users(context, pool[0].ref):
            if other != stored.ref:
                raise RefusedError(f"{kind.__name__} {name} belongs to the route {other.name} too; give each its own")
        profile = context.store.model(api.ModelProfile, namespace, model.spec.profile_ref.name)
        if profile is None:
            raise RefusedError(f"{kind.__name__} {name}: no ModelProfile {model.spec.profile_ref.name}; make it")
        accelerator = profile[1].spec.accelerator
        accelerators.append((f"{accelerator.count_per_instance} x {accelerator.name}", name))
        found.append((pool[0].ref, replicas))
    if accelerators[0][0] != accelerators[1][0]:
        raise RefusedError(
            " and ".join(f"{name} runs on {kind}" for kind, name in accelerators)
            + "; instances can be exchanged between equal ones only"
        )
    (prefill, prefill_replicas), (decode, decode_replicas) = found
    return Exchange(prefill, decode, prefill_replicas, decode_replicas)


def claiming(context: Context, pool: Ref) -> Iterator[Ref]:
    """Yield the routes with roles `Auto` whose instances a pool has, also where they cannot change roles."""
    for stored, route in exchanging(context, pool.namespace):
        local = route.spec.local_prefill_pool_ref
        prefill = Ref(api.PrefillPool.__name__, pool.namespace, local.name) if local is not None else None
        if pool in (prefill, Ref(api.DecodePool.__name__, pool.namespace, route.spec.decode_pool_ref.name)):
            yield stored.ref


def users(context: Context, pool: Ref) -> Iterator[Ref]:
    """Yield the routes that name a pool."""
    for stored, route in context.store.models(api.InferenceRoute, pool.namespace):
        spec = route.spec
        prefill = [reference.name for reference in spec.remote_prefill_pool_refs]
        if spec.local_prefill_pool_ref is not None:
            prefill.append(spec.local_prefill_pool_ref.name)
        names = [spec.decode_pool_ref.name] if pool.kind == api.DecodePool.__name__ else prefill
        if pool.name in names:
            yield stored.ref


def converted(context: Context, pool: Ref) -> int:
    """Return by how many workers a pool's number differs from that of its spec, since they have changed roles."""
    for stored, route in exchanging(context, pool.namespace):
        try:
            found = exchange(context, stored, route)
        except RefusedError:
            continue
        if pool in (found.prefill, found.decode):
            to_decode = found.bounded(context.roles.to_decode(stored.ref, route.status.roles))
            return to_decode if pool == found.decode else -to_decode
    return 0


def settled(context: Context, pool: Ref, replicas: int) -> bool:
    """Return whether exactly so many workers of a pool are there and ready: none is starting, and none is on its way out."""
    stored = context.store.get(pool)
    if stored is None or not isinstance(stored.model, api.Pool):
        return False
    member = context.member(pool.namespace, stored.model.spec.cluster_ref.name)
    if member is None or not member.health.reachable or not member.cache.listed((POD, DEPLOYMENT)):
        return False
    deployment = member.cache.get(DEPLOYMENT, pool.name) or {}
    status = deployment.get("status") or {}
    pods = [pod for pod in member.cache.all(POD) if owner_uid(pod) == stored.uid]
    return (
        int((deployment.get("spec") or {}).get("replicas", 0)) == replicas
        and int(status.get("readyReplicas", 0)) == replicas
        and len(pods) == replicas
        and not any(DRAINING_ANNOTATION in (pod["metadata"].get("annotations") or {}) for pod in pods)
    )
