"""MemberCluster: contact with a cluster, and what was left behind in it."""

from collections.abc import Sequence
from datetime import datetime

from prfaas_operator import api
from prfaas_operator.api.conditions import ConditionType, Reason
from prfaas_operator.clusters.member import Health
from prfaas_operator.events import EventType
from prfaas_operator.objects import POOL_KINDS, Ref, Stored
from prfaas_operator.reconcile import deletion
from prfaas_operator.reconcile.context import Context, now
from prfaas_operator.status import Conditions, previous

_SWEEP_AGAIN_S = 2.0


async def reconcile(context: Context, stored: Stored) -> float | None:
    """Keep contact with a cluster, report whether it answers, and clean up after deleted objects there."""
    ref = stored.ref
    if stored.deleting:
        return await _finish(context, stored)
    if await context.add_finalizer(stored):
        return 0.0
    model = stored.model
    if not isinstance(model, api.MemberCluster):
        conditions = Conditions(stored.generation, now())
        conditions.conclude(ready=False, reason=Reason.INVALID_SPEC, message=stored.fault, stalled=True)
        await context.write_status(
            stored, api.MemberClusterStatus(observed_generation=stored.generation, conditions=conditions.merge(()))
        )
        return None
    member = context.fleet.ensure(ref.namespace, ref.name, model.spec)
    clean = await deletion.sweep(context, ref.namespace, ref.name)
    health = member.health
    if health.reachable is not None:
        context.metrics.member_reachable.labels(ref.namespace, ref.name).set(1 if health.reachable else 0)
    status = cluster_status(stored, model, health, context.options.probe_heartbeat_s)
    if await context.write_status(stored, status):
        _announce(context, stored, model, status)
    return _SWEEP_AGAIN_S if not clean and health.reachable else context.options.probe_heartbeat_s


def cluster_status(
    stored: Stored, model: api.MemberCluster, health: Health, heartbeat_s: float
) -> api.MemberClusterStatus:
    """Return the status of a cluster. The time of the probe is written now and then, not at each probe."""
    conditions = Conditions(stored.generation, now())
    before = model.status
    if health.reachable is None:
        conditions.set(ConditionType.REACHABLE, None, Reason.PENDING, health.message)
        conditions.conclude(ready=None, reason=Reason.PENDING, message=health.message, reconciling=True)
    else:
        conditions.set(ConditionType.REACHABLE, health.reachable, health.reason, health.message)
        wants_help = health.reason in (Reason.SECRET_NOT_FOUND, Reason.KUBECONFIG_INVALID, Reason.CREDENTIALS_REFUSED)
        conditions.conclude(
            ready=health.reachable,
            reason=Reason.AVAILABLE if health.reachable else health.reason,
            message=health.message,
            reconciling=not health.reachable and not wants_help,
            stalled=wants_help,
        )
    return api.MemberClusterStatus(
        observed_generation=stored.generation,
        conditions=conditions.merge(previous(model)),
        reachable=health.reachable if health.reachable is not None else before.reachable,
        version=health.version or before.version,
        last_probe_time=_probe_time(before, health, heartbeat_s),
    )


def _probe_time(before: api.MemberClusterStatus, health: Health, heartbeat_s: float) -> datetime | None:
    probed, written = health.probed_at, before.last_probe_time
    if probed is None:
        return written
    probed = probed.replace(microsecond=0)
    fresh = written is not None and (probed - written).total_seconds() < heartbeat_s
    return written if fresh and before.reachable == health.reachable else probed


async def _finish(context: Context, stored: Stored) -> float | None:
    """Let a MemberCluster go once nothing needs it to be cleaned up."""
    ref = stored.ref
    users = _users(context, ref)
    if users:
        model = stored.model
        if isinstance(model, api.MemberCluster):
            # Its pools can only be cleaned up through it, also when they are deleted in the same breath.
            health = context.fleet.ensure(ref.namespace, ref.name, model.spec).health
            status = cluster_status(stored, model, health, context.options.probe_heartbeat_s)
            conditions = Conditions(stored.generation, now())
            for found in status.conditions:
                if found.type == ConditionType.REACHABLE:
                    conditions.set(ConditionType.REACHABLE, health.reachable, health.reason, found.message)
            names = ", ".join(str(user) for user in users[:5])
            conditions.conclude(
                ready=False, reason=Reason.DELETING, message=f"waits until these are deleted: {names}", reconciling=True
            )
            merged = status.model_copy(update={"conditions": conditions.merge(previous(model))})
            await context.write_status(stored, merged)
        return None
    clean = await deletion.sweep(context, ref.namespace, ref.name)
    member = context.member(ref.namespace, ref.name)
    if not clean and member is not None and member.health.reachable:
        return _SWEEP_AGAIN_S
    if not clean:
        names = ", ".join(f"{orphan.kind} {orphan.name}" for orphan in context.ledger.of(ref.namespace, ref.name)[:5])
        context.events.record(
            stored, EventType.WARNING, Reason.DELETING, f"the cluster is let go with children of {names} left in it"
        )
    await context.release(stored)
    return None


def _users(context: Context, ref: Ref) -> Sequence[Ref]:
    """Return the objects with children in a cluster."""
    found = set()
    for pool in context.store.refs(POOL_KINDS):
        stored = context.store.get(pool)
        # By what was written and not by the model: a pool that cannot be read any more still has children.
        if pool.namespace == ref.namespace and stored is not None and deletion.cluster_of(stored) == ref.name:
            found.add(pool)
    for route in context.store.refs((api.InferenceRoute.__name__,)):
        if route.namespace != ref.namespace:
            continue
        # The decode pool may be gone before its route; the last snapshot still says where the routers are.
        newest = context.publisher.newest(route)
        if newest is None or newest.decode.cluster == ref.name:
            found.add(route)
    return sorted(found)


def _announce(context: Context, stored: Stored, before: api.MemberCluster, after: api.MemberClusterStatus) -> None:
    if before.status.reachable == after.reachable:
        return
    reachable = after.condition(ConditionType.REACHABLE)
    if reachable is not None:
        type_ = EventType.NORMAL if after.reachable else EventType.WARNING
        context.events.record(stored, type_, reachable.reason, reachable.message)
