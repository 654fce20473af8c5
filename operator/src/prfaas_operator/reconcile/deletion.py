"""The end of an object: its children first, and if their cluster is away, not for ever."""

import structlog

from prfaas_operator.clusters.api import ApiError
from prfaas_operator.ledger import Orphan
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile.context import FINALIZER, Context, deletion_age_s, now

_log = structlog.get_logger(__name__)

_AGAIN_S = 1.0


async def finish(context: Context, stored: Stored, cluster: str | None) -> float | None:
    """Remove an object's children from a cluster and let the object go.

    After the deadline the object goes all the same, and the ledger remembers what it left.
    """
    if FINALIZER not in (stored.body["metadata"].get("finalizers") or ()):
        return None
    ref = stored.ref
    if cluster is None:
        await context.release(stored)
        return None
    member = context.member(ref.namespace, cluster)
    trouble = f"no MemberCluster {cluster} is known"
    if member is not None and member.api is not None and member.health.reachable is not False:
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
    left_s = context.options.deletion_deadline_s - deletion_age_s(stored)
    if left_s > 0:
        _log.info("deletion waits", object=str(ref), cluster=cluster, why=trouble, gives_up_in_s=round(left_s))
        return min(_AGAIN_S, left_s)
    await context.ledger.add(
        Orphan(stored.uid, ref.kind, ref.namespace, ref.name, cluster, now().isoformat(timespec="seconds"))
    )
    context.metrics.orphans.set(len(context.ledger))
    _log.warning("deletion given up, children may be left", object=str(ref), cluster=cluster, why=trouble)
    await context.release(stored)
    return None


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
