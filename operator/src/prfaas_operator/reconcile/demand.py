"""How much requests want a pool, as the autoscaler may rely on it."""

from prfaas_core.demand import Demand
from prfaas_operator import api
from prfaas_operator.api.inference_route import Placement
from prfaas_operator.objects import Ref
from prfaas_operator.reconcile import placement
from prfaas_operator.reconcile.context import Context


def of(context: Context, pool: Ref) -> Demand | None:
    """Return how much requests want a pool; None where that is not known, or would not be without workers.

    The routers of a route with placement Sidecar go with the last decode worker, and then nobody says that it is wanted.
    """
    if pool.kind == api.DecodePool.__name__:
        for stored, route in context.store.models(api.InferenceRoute, pool.namespace):
            if route.spec.decode_pool_ref.name == pool.name and Placement.SIDECAR in (
                route.spec.router.placement, placement.observed(context, stored, route),
            ):  # fmt: skip
                return None
    return context.publisher.demand(pool)
