"""Which pools exchange instances, and how many have changed from prefill to decode."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from prfaas_core.roles import Autoscaler
from prfaas_operator import api
from prfaas_operator.api.route_plan import RolesMode
from prfaas_operator.children.metadata import DRAINING_ANNOTATION
from prfaas_operator.clusters.resources import DEPLOYMENT, POD
from prfaas_operator.objects import Ref, Stored
from prfaas_operator.reconcile import sizing
from prfaas_operator.reconcile.context import Context, now
from prfaas_operator.scaling import schedule

# Of a worker with a fixed number of others; that of a scaled one is `scaling.startupSeconds`, with the same default.
_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """The pools of a route that exchange instances.

    Attributes:
        prefill_replicas, decode_replicas: workers by their specs, or what their autoscalers ask for.
        scaled: both have autoscalers.
        drain_s: for how long a worker that goes may take to finish.
        start_s: that a worker takes to start.
    """

    prefill: Ref
    decode: Ref
    prefill_replicas: int
    decode_replicas: int
    scaled: bool
    drain_s: float
    start_s: float

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
    pools: list[tuple[Stored, api.Pool]] = []
    accelerators: list[tuple[str, str]] = []
    for kind, name in ((api.PrefillPool, local.name), (api.DecodePool, route.spec.decode_pool_ref.name)):
        pool = context.store.model(kind, namespace, name)
        if pool is None:
            raise RefusedError(f"no {kind.__name__} {name}; make it")
        for autoscaler in context.autoscalers.of(pool[0].ref):
            raise RefusedError(f"{kind.__name__} {name} is sized by {autoscaler}; delete that, or set roles.mode Fixed")
        if pool[1].spec.replicas == 0:
            raise RefusedError(f"{kind.__name__} {name} has no replicas; give it at least 1")
        for other in users(context, pool[0].ref):
            if other != stored.ref:
                raise RefusedError(f"{kind.__name__} {name} belongs to the route {other.name} too; give each its own")
        profile = context.store.model(api.ModelProfile, namespace, pool[1].spec.profile_ref.name)
        if profile is None:
            raise RefusedError(f"{kind.__name__} {name}: no ModelProfile {pool[1].spec.profile_ref.name}; make it")
        accelerator = profile[1].spec.accelerator
        accelerators.append((f"{accelerator.count_per_instance} x {accelerator.name}", name))
        pools.append(pool)
    if accelerators[0][0] != accelerators[1][0]:
        raise RefusedError(
            " and ".join(f"{name} runs on {kind}" for kind, name in accelerators)
            + "; instances can be exchanged between equal ones only"
        )
    (prefill, prefill_model), (decode, decode_model) = pools
    scaled = prefill_model.spec.scaling is not None
    if scaled != (decode_model.spec.scaling is not None):
        with_scaling, without = (prefill.ref, decode.ref) if scaled else (decode.ref, prefill.ref)
        raise RefusedError(
            f"{with_scaling.kind} {with_scaling.name} has scaling, and {without.kind} {without.name} has replicas; give "
            "both scaling, or both replicas, or set roles.mode Fixed"
        )
    return Exchange(
        prefill.ref,
        decode.ref,
        _replicas(context, prefill.ref, prefill_model),
        _replicas(context, decode.ref, decode_model),
        scaled,
        float(max(prefill_model.spec.drain.timeout_seconds, decode_model.spec.drain.timeout_seconds)),
        max(_start_s(prefill_model), _start_s(decode_model)),
    )


def scalers(context: Context, exchange: Exchange) -> tuple[Autoscaler, Autoscaler] | None:
    """Return what the autoscalers of prefill and decode say; None where both pools have fixed sizes."""
    if not exchange.scaled:
        return None
    prefill, decode = _scaler(context, exchange.prefill), _scaler(context, exchange.decode)
    return (prefill, decode) if prefill is not None and decode is not None else None


def _scaler(context: Context, ref: Ref) -> Autoscaler | None:
    stored = context.store.get(ref)
    if stored is None or not isinstance(stored.model, api.Pool) or stored.model.spec.scaling is None:
        return None
    scaling, asked = stored.model.spec.scaling, context.scaler.asked(ref)
    changed_age_s, status = math.inf, stored.model.status.autoscaling
    if asked is not None and asked.changed_s is not None:
        changed_age_s = time.monotonic() - asked.changed_s
    elif status is not None and status.last_scale_time is not None:
        changed_age_s = (now() - status.last_scale_time).total_seconds()
    windows_s = max(signal.window_s for signal in sizing.signals_of(context, stored.model, ref.namespace))
    down_s = scaling.behavior.scale_down.stabilization_window_seconds
    floors = (schedule.in_force(scaling.schedules, now()).floor, context.forecasts.floor(ref))
    least = max([scaling.min_replicas, *(floor.replicas for floor in floors if floor is not None)])
    return Autoscaler(
        least=min(least, scaling.max_replicas),
        most=scaling.max_replicas,
        wanted=asked.wanted if asked is not None else None,
        unchanged_s=changed_age_s,
        settle_s=scaling.startup_seconds + windows_s + down_s,
    )


def _replicas(context: Context, ref: Ref, model: api.Pool) -> int:
    if model.spec.replicas is not None:
        return model.spec.replicas
    asked = context.scaler.asked(ref)
    return asked.replicas if asked is not None else model.status.desired_replicas or 0


def _start_s(model: api.Pool) -> float:
    scaling = model.spec.scaling
    return float(scaling.startup_seconds) if scaling is not None else _START_S


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
        if pool in (found.prefill, found.decode) and not found.scaled:
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
    pods = member.cache.owned(POD, stored.uid)
    return (
        int((deployment.get("spec") or {}).get("replicas", 0)) == replicas
        and int(status.get("readyReplicas", 0)) == replicas
        and len(pods) == replicas
        and not any(DRAINING_ANNOTATION in (pod["metadata"].get("annotations") or {}) for pod in pods)
    )
