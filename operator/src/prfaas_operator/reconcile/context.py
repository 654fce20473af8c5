"""What every reconciliation has at hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from prfaas_operator import api
from prfaas_operator.actuators.autoscalers import Autoscalers
from prfaas_operator.api.status import Status
from prfaas_operator.clusters.api import ApiError, ClusterApi
from prfaas_operator.clusters.fleet import Fleet
from prfaas_operator.clusters.member import Member
from prfaas_operator.clusters.resources import BY_KIND
from prfaas_operator.configuration.archive import SnapshotArchive
from prfaas_operator.configuration.publisher import Publisher
from prfaas_operator.events import EventRecorder
from prfaas_operator.ledger import Ledger
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import ObjectStore, Ref, Stored
from prfaas_operator.options import Options
from prfaas_operator.reconcile.children import Children
from prfaas_operator.scaling.answers import AnswerMeter
from prfaas_operator.scaling.budgets import Budgets
from prfaas_operator.scaling.capacities import LinkCapacities
from prfaas_operator.scaling.forecast import Forecaster
from prfaas_operator.scaling.idleness import IdlenessMeter
from prfaas_operator.scaling.links import LinkMeter
from prfaas_operator.scaling.pools import PoolScaler
from prfaas_operator.scaling.roles import RoleBalancer
from prfaas_operator.status import status_patch
from prfaas_operator.workqueue import WorkQueue

FINALIZER = "prfaas.dev/cleanup"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the operator that reconciliations use."""

    options: Options
    hub: ClusterApi
    store: ObjectStore
    queue: WorkQueue
    fleet: Fleet
    children: Children
    publisher: Publisher
    archive: SnapshotArchive
    ledger: Ledger
    scaler: PoolScaler
    autoscalers: Autoscalers
    roles: RoleBalancer
    budgets: Budgets
    forecasts: Forecaster
    links: LinkMeter
    capacities: LinkCapacities
    answers: AnswerMeter
    idleness: IdlenessMeter
    events: EventRecorder
    metrics: Metrics
    ca_pem: Callable[[], str]
    gone: Callable[[Mapping[str, Any]], None]  # hears of an object that the operator itself found to be gone

    def touch(self, ref: Ref) -> None:
        """Have everything that reads an object looked at again."""
        for dependent in self.store.dependents(ref):
            self.queue.add(dependent)

    def member(self, namespace: str, name: str) -> Member | None:
        """Return the member of a MemberCluster, or None when there is no such object that can be read."""
        found = self.store.model(api.MemberCluster, namespace, name)
        return self.fleet.ensure(namespace, name, found[1].spec) if found is not None else None

    def is_kept(self, kind: type[api.Resource], namespace: str, name: str) -> bool:
        """Return whether an object carries the finalizer, so that it outlives what depends on it."""
        stored = self.store.get(Ref(kind.__name__, namespace, name))
        return stored is not None and FINALIZER in (stored.body["metadata"].get("finalizers") or ())

    async def write_status(self, stored: Stored, status: Status) -> bool:
        """Write a status if it differs from the one that is there; return whether it did.

        The patch carries the resourceVersion it was computed from, so a status is never computed from one object and
        written to another.
        """
        patch = status_patch(stored.body.get("status") or {}, status)
        if patch is None:
            return False
        await self._patch(stored, {"status": patch}, "status")
        return True

    async def add_finalizer(self, stored: Stored) -> bool:
        """Put the finalizer on an object that lacks it; return whether it did."""
        finalizers = stored.body["metadata"].get("finalizers") or []
        if FINALIZER in finalizers:
            return False
        await self._patch(stored, {"metadata": {"finalizers": [*finalizers, FINALIZER]}})
        return True

    async def release(self, stored: Stored) -> None:
        """Take the finalizer away, so that the object's deletion goes on.

        What waits for the deletion hears of it here: a watch that is interrupted at this moment never tells of it.
        """
        finalizers = stored.body["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            return
        left = [name for name in finalizers if name != FINALIZER]
        await self._patch(stored, {"metadata": {"finalizers": left}})
        _log.info("released", object=str(stored.ref))
        if not left:
            self.gone(stored.body)

    async def _patch(self, stored: Stored, patch: dict[str, Any], subresource: str | None = None) -> None:
        ref = stored.ref
        body = {**patch, "metadata": {**patch.get("metadata", {})}}
        body["metadata"]["resourceVersion"] = stored.body["metadata"]["resourceVersion"]
        body["metadata"]["uid"] = stored.uid
        try:
            result = await self.hub.merge(BY_KIND[ref.kind], ref.namespace, ref.name, body, subresource=subresource)
        except ApiError as error:
            if error.not_found:
                self.gone(stored.body)
                return
            raise
        self.store.refresh(result)


def now() -> datetime:
    return datetime.now(UTC)


def deletion_age_s(stored: Stored) -> float:
    """Return for how long an object has been on its way out."""
    since = datetime.fromisoformat(stored.body["metadata"]["deletionTimestamp"])
    return (now() - since).total_seconds()
