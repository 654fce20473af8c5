"""The end of an object: its children first, and if their cluster is away, not for ever."""

from datetime import timedelta

import structlog

from prfaas_operator import api
from prfaas_operator.api.conditions import ConditionType, Reason
from prfaas_operator.clusters.api import ApiError
from prfaas_operator.clusters.member import Member
from prfaas_operator.events import EventType
from prfaas_operator.ledger import Orphan
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile.context import FINALIZER, Context, deletion_age_s, now
from prfaas_operator.status import Conditions, previous

_log = structlog.get_logger(__name__)

_AGAIN_S = 1.0
# What is waited for in a deletion that goes as it should; only a longer one is worth a word.
_USUAL_S = 1.0
_KSTATUS = {ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED}


def cluster_of(pool: Stored) -> str:
    """Return the name of a pool's MemberCluster, also when the pool cannot be read as a model."""
    return str(pool.body["spec"]["clusterRef"]["name"])


async def finish(context: Context, stored: Stored, cluster: str | None) -> float | None:
    """Remove an object's children from a cluster and let the object go.

    While that cannot be done, the object's condition says why. After the deadline the object goes all the same, and the
    ledger remembers what it left.
    """
    if FINALIZER not in (stored.body["metadata"].get("finalizers") or ()):
        return None
    ref = stored.ref
    if cluster is None:
        await context.release(stored)
        return None
    member = context.member(ref.namespace, cluster)
    trouble = f"no MemberCluster {cluster} is known"
    if member is not None and member.api is not None and _usable(member):
        try:
            remaining = await context.children.remove(member.api, ref.namespace, stored.uid)
            if remaining == 0:
                await context.release(stored)
                return None
            trouble = f"{remaining} children are still there"
        except ApiError as error:
            member.poke()
            trouble = str(error)
    elif member is not None:
        trouble = member.health.message
    age_s = deletion_age_s(stored)
    left_s = context.options.deletion_deadline_s - age_s
    if left_s > 0:
        _log.info("deletion waits", object=str(ref), cluster=cluster, why=trouble, gives_up_in_s=round(left_s))
        if age_s > _USUAL_S:
            await _report(context, stored, cluster, trouble)
        return min(_AGAIN_S, left_s)
    await context.ledger.add(
        Orphan(stored.uid, ref.kind, ref.namespace, ref.name, cluster, now().isoformat(timespec="seconds"))
    )
    context.metrics.orphans.set(len(context.ledger))
    _log.warning("deletion given up, children may be left", object=str(ref), cluster=cluster, why=trouble)
    context.events.record(
        stored, EventType.WARNING, Reason.DELETING,
        f"let go with children left in cluster {cluster}, to be removed when it answers: {trouble}",
    )  # fmt: skip
    await context.release(stored)
    return None


def _usable(member: Member) -> bool:
    """Return whether calls to a cluster have a chance.

    The Secret goes first when a whole namespace is deleted; the credentials that it held are still good.
    """
    return member.health.reachable is not False or member.health.reason is Reason.SECRET_NOT_FOUND


async def _report(context: Context, stored: Stored, cluster: str, trouble: str) -> None:
    """Say in the conditions of an object, and once in an Event, what its deletion waits for."""
    model = stored.model
    if not isinstance(model, api.Pool | api.InferenceRoute):
        return
    gives_up = now() + timedelta(seconds=context.options.deletion_deadline_s - deletion_age_s(stored))
    conditions = Conditions(stored.generation, now())
    conditions.conclude(
        ready=False, reason=Reason.DELETING, reconciling=True,
        message=f"waits for cluster {cluster}, not beyond {gives_up:%Y-%m-%dT%H:%M:%SZ}: {trouble}",
    )  # fmt: skip
    others = [found for found in previous(model) if found.type not in _KSTATUS]
    merged = (*conditions.merge(previous(model)), *others)
    was = model.status.condition(ConditionType.READY)
    status = model.status.model_copy(update={"conditions": merged})
    if await context.write_status(stored, status) and (was is None or was.reason != Reason.DELETING):
        ready = status.condition(ConditionType.READY)
        context.events.record(
            stored, EventType.WARNING, Reason.DELETING, ready.message if ready is not None else trouble
        )


async def sweep(context: Context, namespace: str, cluster: str) -> bool:
    """Remove what deleted objects left in a cluster that answers again; return whether nothing is left."""
    member = context.member(namespace, cluster)
    if member is None or member.api is None or member.health.reachable is not True:
        return not context.ledger.of(namespace, cluster)
    for orphan in context.ledger.of(namespace, cluster):
        if await context.children.remove(member.api, namespace, orphan.uid) == 0:
            await context.ledger.remove(orphan)
            _log.info("orphan removed", kind=orphan.kind, namespace=namespace, name=orphan.name, cluster=cluster)
    context.metrics.orphans.set(len(context.ledger))
    return not context.ledger.of(namespace, cluster)
