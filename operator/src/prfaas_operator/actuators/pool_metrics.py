"""What other people's actuators can read about a pool: the signals of its side, and what PrfaaS itself would set.

Every metric is a total over the pool's workers, so that whoever divides it by a target for each worker gets a number of
workers: a mean or a quantile is multiplied by the workers that it was taken over. What is not known is an error with a
reason, and never zero, so that whoever reads it holds.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from prfaas_core.autoscaling import DECODE_SIGNALS, PREFILL_SIGNALS, SignalName
from prfaas_operator import api
from prfaas_operator.actuators import quantities
from prfaas_operator.objects import POOL_KINDS, ObjectStore, Ref


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of pools.

    Attributes:
        name: as actuators ask for it.
        kinds: of the pools that have it.
        signal: that it is the total of; None: what the autoscaler of PrfaaS decided.
    """

    name: str
    kinds: tuple[str, ...]
    signal: SignalName | None


@dataclass(frozen=True, slots=True)
class Total:
    """A metric as it was read: over all workers of a pool, and how old the newest of what it was made of is."""

    value: float
    age_s: float = 0.0
    window_s: int | None = None  # that it is averaged over


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why a metric has no value."""

    reason: str
    message: str


class Signals(Protocol):
    """Where the totals of signals come from."""

    async def total(self, pool: Ref, signal: SignalName) -> Total | Unknown:
        """Return the total of a built-in signal over the workers of a pool that has some."""


def _name(signal: SignalName) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", signal.value)
    return f"prfaas-{words.lower()}"


DESIRED_REPLICAS: Final = Metric("prfaas-desired-replicas", POOL_KINDS, None)
METRICS: Final = {
    metric.name: metric
    for metric in (
        *(
            Metric(_name(signal), (kind.__name__,), signal)
            for kind, signals in ((api.PrefillPool, PREFILL_SIGNALS), (api.DecodePool, DECODE_SIGNALS))
            for signal in signals
        ),
        DESIRED_REPLICAS,
    )
}

# Asks for one worker, whatever the target: the least that the HorizontalPodAutoscaler tells from nothing.
_SOMETHING: Final = 0.001


class PoolMetrics:
    """Reads metrics of pools.

    Args:
        signals: of pools that have workers.
        demand: requests that want a pool's workers, as routers report them; None where that is not known.
    """

    def __init__(self, store: ObjectStore, signals: Signals, demand: Callable[[Ref], float | None]) -> None:
        self._store = store
        self._signals = signals
        self._demand = demand

    def pools(self, namespace: str, kinds: tuple[str, ...] = POOL_KINDS) -> dict[Ref, dict[str, str]]:
        """Return the pools of a namespace with the labels by which their metrics are selected."""
        return {
            ref: {"pool": ref.name, "kind": ref.kind, "cluster": stored.model.spec.cluster_ref.name}
            for ref in self._store.refs(kinds)
            if ref.namespace == namespace
            and (stored := self._store.get(ref)) is not None
            and isinstance(stored.model, api.Pool)
        }

    async def read(self, pool: Ref, metric: Metric) -> Total | Unknown:
        """Return a metric of a pool."""
        found = self._pool(pool)
        if found is None:
            return Unknown("PoolNotFound", f"{pool.kind} {pool.namespace}/{pool.name} does not exist; make it")
        if metric.signal is None:
            return _decided(found)
        if found.status.replicas is None:
            return Unknown("Pending", f"how many workers {pool.name} has is not known yet")
        if found.status.replicas == 0:
            demand = self._demand(pool)
            if demand is None:
                return Unknown("DemandUnknown", f"{pool.name} has no workers, and no router reports on requests for it")
            return Total(_SOMETHING if demand > 0 else 0.0)
        total = await self._signals.total(pool, metric.signal)
        if isinstance(total, Total) and not 0 <= total.value <= quantities.MAX:
            return Unknown(
                "SignalImplausible", f"{metric.name} of {pool.name} is {total.value}; it must be a number from 0"
            )
        return total

    async def active(self, pool: Ref, metric: Metric) -> bool | Unknown:
        """Return whether a pool has anything to do, in the routers or in its workers."""
        found = self._pool(pool)
        if found is not None and (self._demand(pool) or 0) > 0:
            return True
        total = await self.read(pool, metric)
        return total.value > 0 if isinstance(total, Total) else total

    def _pool(self, pool: Ref) -> api.Pool | None:
        stored = self._store.get(pool)
        return stored.model if stored is not None and isinstance(stored.model, api.Pool) else None


def _decided(pool: api.Pool) -> Total | Unknown:
    status = pool.status.autoscaling
    if pool.spec.scaling is None:
        return Unknown(
            "FixedReplicas",
            f"{pool.metadata.name} has no spec.scaling, so PrfaaS decides nothing for it; read a signal instead",
        )
    if status is None or status.desired_replicas is None:
        return Unknown("Pending", f"no decision was taken for {pool.metadata.name} yet")
    return Total(float(status.desired_replicas))
