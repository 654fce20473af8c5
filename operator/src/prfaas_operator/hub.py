"""The operator at work: wires its parts together, and turns every change into reconciliations."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import Any

import kopf
import structlog
from kubernetes.aio.client import ApiClient, Configuration

from prfaas_operator import api
from prfaas_operator.actuators.autoscalers import Autoscalers
from prfaas_operator.actuators.external_scaler import ExternalScalerServer
from prfaas_operator.actuators.metrics_server import MetricsServer
from prfaas_operator.actuators.pool_metrics import PoolMetrics
from prfaas_operator.api.prometheus import PrometheusAccess
from prfaas_operator.children.metadata import OWNER_ANNOTATION
from prfaas_operator.clusters.api import ApiError, ClusterApi, FencedError
from prfaas_operator.clusters.fleet import Fleet
from prfaas_operator.clusters.member import Member
from prfaas_operator.clusters.resources import POD, Resource
from prfaas_operator.comparison import Comparison
from prfaas_operator.configuration.archive import SnapshotArchive
from prfaas_operator.configuration.publisher import Publisher
from prfaas_operator.configuration.server import ConfigurationServer
from prfaas_operator.configuration.tls import TlsFiles
from prfaas_operator.events import EventRecorder, EventType
from prfaas_operator.lease import Lease
from prfaas_operator.ledger import Ledger
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import POOL_KINDS, ObjectStore, Ref, Stored
from prfaas_operator.options import Options
from prfaas_operator.reconcile import budgets, clusters, links, planning, pools, profiles, routes, sizing
from prfaas_operator.reconcile.children import Children
from prfaas_operator.reconcile.context import Context
from prfaas_operator.reconcile.forecasts import forecasted_pools
from prfaas_operator.reconcile.metering import decode_pools, metered_links
from prfaas_operator.reconcile.totals import SignalTotals
from prfaas_operator.scaling.answers import AnswerMeter
from prfaas_operator.scaling.budgets import Budgets
from prfaas_operator.scaling.capacities import LinkCapacities
from prfaas_operator.scaling.forecast import Forecaster, smoothed
from prfaas_operator.scaling.idleness import IdlenessMeter
from prfaas_operator.scaling.links import LinkMeter
from prfaas_operator.scaling.measurement import measure
from prfaas_operator.scaling.pools import PoolScaler, ScaledPool
from prfaas_operator.scaling.prometheus import Servers
from prfaas_operator.scaling.roles import RoleBalancer
from prfaas_operator.scaling.views import Measured
from prfaas_operator.workqueue import WorkQueue
from prfaas_protocol import configuration_pb2 as pb

_log = structlog.get_logger(__name__)

_RECONCILERS = {
    api.MemberCluster.__name__: clusters.reconcile,
    api.ModelProfile.__name__: profiles.reconcile,
    api.PrefillPool.__name__: pools.reconcile,
    api.DecodePool.__name__: pools.reconcile,
    api.KVLink.__name__: links.reconcile,
    api.InferenceRoute.__name__: routes.reconcile,
    api.Budget.__name__: budgets.reconcile,
}


class Hub:
    """One operator that holds the Lease."""

    def __init__(self, options: Options, configuration: Configuration, lease: Lease | None, metrics: Metrics) -> None:
        self._options = options
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._lease = lease
        self._metrics = metrics
        self._tls = TlsFiles(options.tls_dir, on_change=self._certificates_changed)
        hub = ClusterApi(self._client, timeout_s=options.hub_timeout_s, fence=self._may_write)
        store = ObjectStore()
        archive = SnapshotArchive(hub, options.namespace)
        self._prometheus = Servers(options.prometheus, hub, self._prometheus_of)
        queue = WorkQueue(self._reconcile, on_error=self._failed, backoff=options.backoff)
        fleet = Fleet(
            hub,
            on_change=self._child_changed,
            on_health=self._health_changed,
            fence=self._may_write,
            times=options.members,
        )
        self.context = Context(
            options=options,
            hub=hub,
            store=store,
            queue=queue,
            fleet=fleet,
            children=Children(),
            publisher=Publisher(
                keep=self._keep, on_report=queue.add, on_demand=lambda pool: self.context.scaler.wake(pool)
            ),
            archive=archive,
            ledger=Ledger(hub, options.namespace),
            scaler=PoolScaler(
                measure=self._measure,
                pools=self._scaled_pools,
                pool=self._scaled_pool,
                surroundings=lambda pool: sizing.surroundings(self.context, pool),
                on_decision=lambda *decided: self.context.budgets.decided(*decided),
                on_change=self._scaled,
                metrics=metrics,
                interval_s=options.autoscaling_interval_s,
            ),
            autoscalers=Autoscalers(
                hub,
                namespaces=options.watched_namespaces,
                on_change=lambda pool: self.context.touch(pool),
                on_readable=self._autoscalers_readable,
                times=options.members.watch,
            ),
            roles=RoleBalancer(
                routes=lambda: planning.exchanging_routes(self.context),
                on_change=self._roles_changed,
                metrics=metrics,
                interval_s=options.role_interval_s,
            ),
            budgets=Budgets(book=lambda namespace: budgets.book(self.context, namespace), on_change=queue.add),
            forecasts=Forecaster(
                self._prometheus.history,
                pools=lambda: forecasted_pools(self.context),
                smooth=smoothed,
                metrics=metrics,
            ),
            links=LinkMeter(
                self._prometheus.ask,
                links=lambda: metered_links(self.context),
                on_change=queue.add,
                interval_s=options.link_interval_s,
            ),
            capacities=LinkCapacities(
                links=self._links,
                reports=lambda link: self.context.publisher.link_reports(link),
                on_change=lambda link: self.context.touch(link),
            ),
            answers=AnswerMeter(
                self._prometheus.ask,
                pools=lambda: decode_pools(self.context),
                interval_s=options.link_interval_s,
            ),
            idleness=IdlenessMeter(
                self._prometheus.select,
                on_change=queue.add,
                interval_s=options.autoscaling_interval_s,
            ),
            events=EventRecorder(hub),
            metrics=metrics,
            ca_pem=self._tls.ca_pem,
            gone=lambda body: self.observe("DELETED", dict(body)),
        )
        self._server = ConfigurationServer(
            store,
            fleet,
            self.context.publisher,
            metrics,
            self._tls,
            self._links_reported,
            host=options.host,
            port=options.grpc_port,
        )
        self._comparison = Comparison(
            hub, store, self.observe, metrics, namespaces=options.watched_namespaces, interval_s=options.resync_s
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._brief: set[asyncio.Task[None]] = set()
        self._broken: str | None = None

    async def start(self) -> None:
        """Read what is there, and begin to work on it."""
        await self.context.ledger.load()
        self._metrics.orphans.set(len(self.context.ledger))
        await self.context.autoscalers.fill()
        await self._comparison.fill()
        self.context.queue.start()
        await self._server.start()
        loops: tuple[tuple[str, Coroutine[Any, Any, None]], ...] = (
            ("events", self.context.events.run()),
            ("autoscaling", self.context.scaler.run()),
            ("autoscalers", self.context.autoscalers.run()),
            ("roles", self.context.roles.run()),
            ("forecasts", self.context.forecasts.run()),
            ("links", self.context.links.run()),
            ("answers", self.context.answers.run()),
            ("capacities", self.context.capacities.run()),
            ("idleness", self.context.idleness.run()),
            ("comparison", self._comparison.run()),
            ("certificates", self._tls.watch()),
        )
        loops += self._actuators()
        self._tasks = [asyncio.create_task(loop, name=name) for name, loop in loops]
        for task in self._tasks:
            task.add_done_callback(self._ended)
        self._metrics.leading.set(1)

    async def stop(self) -> None:
        """End all work; routers and members are left as they are."""
        self._metrics.leading.set(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.stop()
        await self.context.queue.stop()
        await self.context.fleet.stop()
        self._prometheus.close()
        with contextlib.suppress(RuntimeError):
            await self._client.close()

    def fault(self) -> str | None:
        """Return what a restart would mend, or None. That a member, or the hub, is away is no fault of this process."""
        return self._broken or self._comparison.fault()

    async def connection(self) -> kopf.ConnectionInfo:
        """Return how Kopf reaches the hub: as everything else does."""
        configuration = self._configuration
        if configuration.refresh_api_key_hook is not None:
            configuration.refresh_api_key_hook(configuration)
        scheme, _, token = (configuration.api_key.get("BearerToken") or "").partition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            scheme=scheme.capitalize() or None,
            token=token or None,
            trust_env=True,
        )

    def observe(self, type_: str | None, body: dict[str, Any]) -> None:
        """Take an event of the hub's watch."""
        store = self.context.store
        if type_ == "DELETED":
            # What depended on the object is only known while it is in the store.
            before = store.dependents(Ref.of(body))
            gone = store.remove(body)
            if gone is None:
                return
            self.context.queue.forget(gone)
            self.context.idleness.forget(gone)
            self._metrics.forget(gone.kind, gone.namespace, gone.name)
            for dependent in before - {gone}:
                self.context.queue.add(dependent)
            if gone.kind == api.MemberCluster.__name__:
                self._prometheus.forget(gone.namespace, gone.name)
                self._spawn(self.context.fleet.drop(gone.namespace, gone.name))
            # A cluster on its way out waits until nothing in it needs cleaning up.
            for cluster in store.refs((api.MemberCluster.__name__,)):
                stored = store.get(cluster)
                if cluster.namespace == gone.namespace and stored is not None and stored.deleting:
                    self.context.queue.add(cluster)
            return
        ref = store.observe(body)
        if ref is not None:
            self.context.touch(ref)

    async def _reconcile(self, ref: Ref) -> float | None:
        stored = self.context.store.get(ref)
        self._metrics.queue_length.set(len(self.context.queue))
        if stored is None:
            return None
        timer = self._metrics.reconcile_seconds.labels(ref.kind).time()
        with structlog.contextvars.bound_contextvars(object=str(ref)), timer:
            again_s = await _RECONCILERS[ref.kind](self.context, stored)
        self._metrics.reconciliations.labels(ref.kind, "done").inc()
        return again_s

    def _failed(self, ref: Ref, error: Exception) -> None:
        self._metrics.reconciliations.labels(ref.kind, "failed").inc()
        if isinstance(error, ApiError) and error.conflict:
            # Somebody wrote in between; the watch brings the new object, and the next try starts from that.
            _log.debug("conflict", object=str(ref), error=str(error))
        elif isinstance(error, ApiError | FencedError):
            _log.warning("reconciliation failed", object=str(ref), error=str(error))
        else:
            _log.error("reconciliation failed", object=str(ref), exc_info=error)

    def _child_changed(self, member: Member, resource: Resource, body: Mapping[str, Any]) -> None:
        """Have the owner of a child looked at; of a pod also the routes that send requests to it."""
        owner = (body["metadata"].get("annotations") or {}).get(OWNER_ANNOTATION, "")
        kind, _, rest = owner.partition("/")
        namespace, _, name = rest.partition("/")
        ref = Ref(kind, namespace, name)
        if namespace != member.namespace or self.context.store.get(ref) is None:
            return
        if resource == POD and kind in POOL_KINDS:
            self.context.touch(ref)
        else:
            self.context.queue.add(ref)

    def _health_changed(self, member: Member) -> None:
        self.context.touch(Ref(api.MemberCluster.__name__, member.namespace, member.name))

    def _certificates_changed(self) -> None:
        for ref in self.context.store.refs((api.InferenceRoute.__name__,)):
            self.context.queue.add(ref)

    def _autoscalers_readable(self) -> None:
        for ref in self.context.store.refs(POOL_KINDS):
            self.context.queue.add(ref)

    def _links(self) -> Iterator[tuple[Ref, api.KVLink]]:
        for ref in self.context.store.refs((api.KVLink.__name__,)):
            stored = self.context.store.get(ref)
            if stored is not None and isinstance(stored.model, api.KVLink) and not stored.deleting:
                yield ref, stored.model

    def _links_reported(self, namespace: str, names: Iterable[str]) -> None:
        for name in names:
            found = self.context.store.model(api.KVLink, namespace, name)
            if found is not None:
                self.context.capacities.review(found[0].ref, found[1])

    def _prometheus_of(self, namespace: str, cluster: str) -> PrometheusAccess | None:
        found = self.context.store.model(api.MemberCluster, namespace, cluster)
        return found[1].spec.prometheus if found is not None else None

    async def _measure(self, pool: ScaledPool) -> tuple[Measured, ...]:
        return await measure(self._prometheus.of(pool.workers.namespace, pool.workers.cluster), pool)

    def _actuators(self) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
        """Return the servers for other people's actuators that were asked for."""
        options, loops = self._options, []
        metrics = PoolMetrics(
            self.context.store,
            SignalTotals(self.context, self._measure),
            lambda pool: sizing.demand(self.context, pool),
        )
        if options.external_metrics_port is not None:
            api_server = MetricsServer(
                self.context.hub, metrics, options.tls_dir, host=options.host, port=options.external_metrics_port
            )
            loops.append(("external metrics", api_server.run()))
        if options.external_scaler_port is not None:
            # Its own look at the files: a renewed certificate is handed out once.
            tls = TlsFiles(options.tls_dir, on_change=lambda: None) if options.external_scaler_tls else None
            keda = ExternalScalerServer(metrics, tls, host=options.host, port=options.external_scaler_port)
            loops.append(("external scaler", keda.run()))
        return tuple(loops)

    def _scaled_pools(self) -> list[Ref]:
        return [ref for ref in self.context.store.refs(POOL_KINDS) if self._found_scaled(ref) is not None]

    def _scaled_pool(self, ref: Ref) -> ScaledPool | None:
        found = self._found_scaled(ref)
        return sizing.scaled_pool(self.context, *found) if found is not None else None

    def _found_scaled(self, ref: Ref) -> tuple[Member | None, Stored] | None:
        """Return a pool with `scaling` and its member, once something is known of that."""
        stored = self.context.store.get(ref)
        if stored is None or stored.deleting or not isinstance(stored.model, api.Pool):
            return None
        if stored.model.spec.scaling is None:
            return None
        member = self.context.fleet.get(ref.namespace, stored.model.spec.cluster_ref.name)
        # Right after a start nothing is known of the cluster, and what the status says stays.
        return (member, stored) if member is None or member.settled else None

    def _scaled(self, ref: Ref, before: int, after: int, why: str) -> None:
        if before == after:
            self.context.queue.add(ref)
            return
        self.context.touch(ref)
        stored = self.context.store.get(ref)
        if stored is not None:
            self.context.events.record(stored, EventType.NORMAL, "Scaled", f"{before} to {after} replicas: {why}")

    def _roles_changed(self, ref: Ref, to_decode: int, why: str) -> None:
        self.context.queue.add(ref)
        stored = self.context.store.get(ref)
        if to_decode and stored is not None:
            self.context.touch(ref)
            self.context.events.record(stored, EventType.NORMAL, "RoleChanged", why)

    async def _keep(self, route: Ref, snapshot: pb.Snapshot) -> None:
        stored = self.context.store.get(route)
        if stored is not None:
            await self.context.archive.keep(stored.uid, snapshot)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Notice a loop that ended: each runs until it is cancelled."""
        if not task.cancelled():
            self._broken = f"the loop for {task.get_name()} has ended"
            _log.error("a loop has ended", loop=task.get_name(), exc_info=task.exception())

    def _may_write(self) -> bool:
        return self._lease is None or self._lease.held

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._brief.add(task)
        task.add_done_callback(self._brief.discard)
