"""Which Prometheus knows the workers of a cluster: its MemberCluster's own, or else the operator's."""

from __future__ import annotations

from collections.abc import Callable

from prfaas_operator.api.prometheus import PrometheusAccess
from prfaas_operator.clusters.api import ClusterApi
from prfaas_operator.scaling.prometheus.access import PrometheusFiles, SecretAccess
from prfaas_operator.scaling.prometheus.client import Prometheus
from prfaas_operator.scaling.prometheus.results import Fault, Sample, Series, Vector
from prfaas_operator.scaling.queries import Workers

# Returns `spec.prometheus` of a MemberCluster, by namespace and name; None when there is none.
SpecOf = Callable[[str, str], PrometheusAccess | None]


class Servers:
    """Every Prometheus that the operator asks. Each has threads of its own, so that one that hangs delays no other."""

    def __init__(self, files: PrometheusFiles, hub: ClusterApi, spec_of: SpecOf) -> None:
        self._own = Prometheus(files)
        self._hub = hub
        self._spec_of = spec_of
        self._of_members: dict[tuple[str, str], Prometheus] = {}

    def of(self, namespace: str, cluster: str) -> Prometheus:
        """Return the Prometheus to ask about workers in a member cluster."""
        key = (namespace, cluster)
        if self._spec_of(*key) is None:
            self.forget(*key)
            return self._own
        found = self._of_members.get(key)
        if found is None:
            source = SecretAccess(self._hub, namespace, lambda: self._spec_of(*key))
            found = self._of_members[key] = Prometheus(source)
        return found

    async def ask(self, workers: Workers, query: str) -> Sample:
        """Ask the Prometheus that knows some workers for one number."""
        return await self.of(workers.namespace, workers.cluster).ask(query)

    async def select(self, workers: Workers, query: str) -> Vector | Fault:
        """Ask the Prometheus that knows some workers for an instant vector."""
        return await self.of(workers.namespace, workers.cluster).select(query)

    async def history(
        self, workers: Workers, query: str, start_s: float, end_s: float, step_s: float
    ) -> Series | Fault:
        """Ask the Prometheus that knows some workers for one series between two Unix times."""
        return await self.of(workers.namespace, workers.cluster).history(query, start_s, end_s, step_s)

    def forget(self, namespace: str, cluster: str) -> None:
        """Drop the Prometheus of a member that is gone, or has none any more."""
        gone = self._of_members.pop((namespace, cluster), None)
        if gone is not None:
            gone.close()

    def close(self) -> None:
        for server in (self._own, *self._of_members.values()):
            server.close()
