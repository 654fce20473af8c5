"""Which pools' KV crosses which link, as the routes say."""

from prfaas_core.profiles import Curve
from prfaas_operator import api
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile.context import Context
from prfaas_operator.reconcile.sizing import profile_of, workers_of
from prfaas_operator.scaling.links import MeteredLink
from prfaas_operator.scaling.queries import Workers


def metered_links(context: Context) -> list[MeteredLink]:
    """Return every link with the pools at its ends that have workers.

    Those that are scaled to zero move nothing, and nobody is there who would say so; a link of which nothing is known would keep
    them from being woken.
    """
    found = []
    for ref in context.store.refs((api.KVLink.__name__,)):
        stored = context.store.get(ref)
        if stored is not None and isinstance(stored.model, api.KVLink) and not stored.deleting:
            found.append(metered(context, stored, stored.model, working=True))
    return found


def metered(context: Context, stored: Stored, link: api.KVLink, *, working: bool = False) -> MeteredLink:
    """Return a link with the pools at its ends, or only with those that have workers or should."""
    namespace = stored.ref.namespace
    source, target = link.spec.from_cluster_ref.name, link.spec.to_cluster_ref.name
    decode: set[Workers] = set()
    behind: dict[Workers, Curve] = {}
    others: dict[Workers, Curve] = {}
    for _, route in context.store.models(api.InferenceRoute, namespace):
        spec = route.spec
        sink = context.store.model(api.DecodePool, namespace, spec.decode_pool_ref.name)
        if sink is None or sink[1].spec.cluster_ref.name != target:
            continue
        if _counts(sink[1], working=working):
            decode.add(workers_of(sink[1], namespace))
        names = [reference.name for reference in spec.remote_prefill_pool_refs]
        if spec.local_prefill_pool_ref is not None:
            names.append(spec.local_prefill_pool_ref.name)
        for name in names:
            pool = context.store.model(api.PrefillPool, namespace, name)
            profile = profile_of(context, pool[1], namespace) if pool is not None else None
            if pool is None or profile is None or not _counts(pool[1], working=working):
                continue
            side = behind if pool[1].spec.cluster_ref.name == source else others
            side[workers_of(pool[1], namespace)] = profile.kv_bytes
    return MeteredLink(
        ref=stored.ref,
        decode=tuple(decode),
        behind=tuple(behind.items()),
        others=tuple(others.items()),
        bytes_before=link.status.bytes_total or 0,
    )


def decode_pools(context: Context) -> list[Workers]:
    """Return the workers of every decode pool."""
    found = []
    for ref in context.store.refs((api.DecodePool.__name__,)):
        stored = context.store.get(ref)
        if stored is not None and isinstance(stored.model, api.DecodePool) and not stored.deleting:
            found.append(workers_of(stored.model, ref.namespace))
    return found


def _counts(pool: api.Pool, *, working: bool) -> bool:
    # A pool that was just made has no workers either, but asks for some.
    return not working or (pool.status.desired_replicas, pool.status.replicas) != (0, 0)
