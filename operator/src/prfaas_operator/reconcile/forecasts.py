"""Which pools' load is predicted, and by which of their signals."""

from prfaas_core.autoscaling import TargetType
from prfaas_operator import api
from prfaas_operator.api.scaling import ForecastMode
from prfaas_operator.objects import POOL_KINDS
from prfaas_operator.reconcile.context import Context
from prfaas_operator.reconcile.sizing import workers_of
from prfaas_operator.scaling.forecast import ForecastedPool


def forecasted_pools(context: Context) -> list[ForecastedPool]:
    """Return every pool with a forecast whose signals were looked at already."""
    found = []
    for ref in context.store.refs(POOL_KINDS):
        stored = context.store.get(ref)
        if stored is None or stored.deleting or not isinstance(stored.model, api.Pool):
            continue
        scaling, view = stored.model.spec.scaling, context.scaler.view(ref)
        if scaling is None or scaling.forecast.mode is ForecastMode.OFF or view is None or not view.status.signals:
            continue
        totals = [
            signal
            for signal in view.status.signals
            if signal.target_type is TargetType.AVERAGE_VALUE and not signal.guard and signal.query
        ]
        found.append(
            ForecastedPool(
                ref=ref,
                workers=workers_of(stored.model, ref.namespace),
                forecast=scaling.forecast,
                query=totals[0].query or "" if totals else "",
                target=totals[0].target_value if totals else 1.0,
                most=scaling.max_replicas,
            )
        )
    return found
