"""The totals of signals over pools, for other people's actuators: read when somebody asks, with or without `spec.scaling`.

What is asked of Prometheus, and what makes an answer one that cannot be trusted, is the same as for the autoscaler of PrfaaS.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from prfaas_core import autoscaling
from prfaas_core.autoscaling import Reading, SignalName, TargetType
from prfaas_operator import api
from prfaas_operator.actuators.pool_metrics import Total, Unknown
from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.scaling import Scaling, Signal
from prfaas_operator.objects import Ref
from prfaas_operator.reconcile import sizing
from prfaas_operator.reconcile.context import Context
from prfaas_operator.scaling.pools import ScaledPool
from prfaas_operator.scaling.views import Measured

# Several actuators may ask for the same, and each of them more than once.
_KEPT_S: Final = 2.0


class SignalTotals:
    """Reads totals by way of `measure`, as the autoscaler does; what was read is kept for a moment."""

    def __init__(self, context: Context, measure: Callable[[ScaledPool], Awaitable[tuple[Measured, ...]]]) -> None:
        self._context = context
        self._measure = measure
        self._kept: dict[tuple[Ref, SignalName], tuple[float, Total | Unknown]] = {}

    async def total(self, pool: Ref, signal: SignalName) -> Total | Unknown:
        """Return the total of a built-in signal over the workers of a pool."""
        now_s = time.monotonic()
        self._kept = {key: kept for key, kept in self._kept.items() if now_s - kept[0] < _KEPT_S}
        if (pool, signal) not in self._kept:
            self._kept[pool, signal] = now_s, await self._read(pool, signal)
        at_s, found = self._kept[pool, signal]
        return replace(found, age_s=found.age_s + now_s - at_s) if isinstance(found, Total) else found

    async def _read(self, ref: Ref, name: SignalName) -> Total | Unknown:
        stored = self._context.store.get(ref)
        if stored is None or not isinstance(stored.model, api.Pool):
            return Unknown(Reason.POOL_NOT_FOUND, f"{ref} cannot be read")
        model = stored.model
        own = sizing.signals_of(self._context, model, ref.namespace)
        signal = next((item for item in own if item.name is name), Signal(name=name, target_value=1.0))
        member = self._context.member(ref.namespace, model.spec.cluster_ref.name)
        scaling = Scaling(max_replicas=1, signals=(signal,))
        pool = sizing.observed_pool(self._context, member, stored, model, scaling)
        if pool.ready_replicas is None:
            return Unknown(
                Reason.CLUSTER_UNREACHABLE, f"the cluster of {ref.name} does not say how many workers are ready"
            )
        if pool.ready_replicas == 0:
            return Unknown(Reason.REPLICAS_UNAVAILABLE, f"no worker of {ref.name} is ready, so none can be measured")
        # Guards come after the signals of the spec.
        reading = (await self._measure(pool))[0].reading
        return _total(reading, pool.ready_replicas)


def _total(reading: Reading, workers: int) -> Total | Unknown:
    fault = autoscaling.distrust(reading, autoscaling.STALE_AFTER_S)
    if reading.value is None or fault is not None:
        return Unknown(fault or Reason.SIGNAL_MISSING, reading.message or f"{reading.name} is {reading.value}")
    over = 1 if reading.target_type is TargetType.AVERAGE_VALUE else workers
    return Total(reading.value * over, reading.age_s, round(reading.window_s) or None)
