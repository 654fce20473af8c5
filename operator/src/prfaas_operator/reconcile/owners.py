"""Who sets the number of a pool's workers, from what the hub's objects say."""

from prfaas_operator import api
from prfaas_operator.actuators import ownership
from prfaas_operator.actuators.ownership import Claims, Ownership
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile import roles
from prfaas_operator.reconcile.context import Context


def owner(context: Context, stored: Stored, model: api.Pool) -> Ownership:
    """Return the owner of a pool's number of workers."""
    ref = stored.ref
    cluster = context.store.model(api.MemberCluster, ref.namespace, model.spec.cluster_ref.name)
    return ownership.decide(
        Claims(
            scaling=model.spec.scaling is not None,
            writers=ownership.writers_of(stored.body["metadata"]),
            autoscalers=context.autoscalers.of(ref),
            fault=context.autoscalers.fault(ref.namespace),
            exchanging_route=next((route.name for route in roles.claiming(context, ref)), None),
            elsewhere=cluster is not None and not cluster[1].spec.hub,
        )
    )
