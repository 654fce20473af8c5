"""The operator's own metrics."""

import contextlib
from collections.abc import Mapping

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from prfaas_core.autoscaling import FAULTS, Observed, ScalingDecision

ROUTER_STATES = ("acknowledged", "refused", "pending")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One registry for each operator, so that tests can run several in a process."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self.reconciliations = Counter(
            "prfaas_operator_reconciliations",
            "Reconciliations by kind and result.",
            ["kind", "result"],
            registry=registry,
        )
        self.reconcile_seconds = Histogram(
            "prfaas_operator_reconcile_seconds",
            "Time of a reconciliation.",
            ["kind"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_length = Gauge("prfaas_operator_queue_length", "Objects that wait for a worker.", registry=registry)
        self.leading = Gauge("prfaas_operator_leading", "1 while this operator holds the Lease.", registry=registry)
        self.missed_events = Counter(
            "prfaas_operator_missed_events", "Changes of the hub that only the regular comparison found.", ["kind"],
            registry=registry,
        )  # fmt: skip
        self.member_reachable = Gauge(
            "prfaas_operator_member_reachable", "1 if the last probe of a member cluster was answered.",
            ["namespace", "cluster"], registry=registry,
        )  # fmt: skip
        self.configuration_version = Gauge(
            "prfaas_operator_configuration_version", "Newest version of a route's configuration.", ["namespace", "route"],
            registry=registry,
        )  # fmt: skip
        self.routers = Gauge(
            "prfaas_operator_routers", "Connected routers, by whether they serve the newest configuration.",
            ["namespace", "route", "state"], registry=registry,
        )  # fmt: skip
        self.acknowledgements = Counter(
            "prfaas_operator_acknowledgements", "Answers of routers to configurations: ack or nack.", ["answer"],
            registry=registry,
        )  # fmt: skip
        self.streams_refused = Counter(
            "prfaas_operator_streams_refused", "Router streams that were refused, by gRPC status.", ["code"],
            registry=registry,
        )  # fmt: skip
        self.scaling_decisions = Counter(
            "prfaas_operator_scaling_decisions", "Decisions of the autoscaler by pool and reason.",
            ["namespace", "pool", "reason"], registry=registry,
        )  # fmt: skip
        self.scaling_look_seconds = Histogram(
            "prfaas_operator_scaling_look_seconds", "Time of a look at a pool, with Prometheus' answer.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.scaling_late_seconds = Histogram(
            "prfaas_operator_scaling_late_seconds", "How much later than due a look at a pool begins.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.scaling_signal = Gauge(
            "prfaas_operator_scaling_signal", "A signal of a pool as it was read last; absent while it cannot be read.",
            ["namespace", "kind", "pool", "signal"], registry=registry,
        )  # fmt: skip
        self.scaling_target = Gauge(
            "prfaas_operator_scaling_target", "What a signal should be: for a total, for each worker.",
            ["namespace", "kind", "pool", "signal"], registry=registry,
        )  # fmt: skip
        self.wanted_replicas = Gauge(
            "prfaas_operator_scaling_wanted_replicas", "Workers that the signals of a pool ask for, outside of all bounds.",
            ["namespace", "kind", "pool"], registry=registry,
        )  # fmt: skip
        self.scaling_active = Gauge(
            "prfaas_operator_scaling_active", "1 while a pool has a signal to decide by; 0 while it holds without.",
            ["namespace", "kind", "pool"], registry=registry,
        )  # fmt: skip
        self.role_decisions = Counter(
            "prfaas_operator_role_decisions", "Decisions on the roles of instances by route and reason.",
            ["namespace", "route", "reason"], registry=registry,
        )  # fmt: skip
        self.desired_replicas = Gauge(
            "prfaas_operator_desired_replicas", "Workers that the operator asks for.", ["namespace", "kind", "pool"],
            registry=registry,
        )  # fmt: skip
        self.draining = Gauge(
            "prfaas_operator_draining_workers", "Workers that get no new work and go when they are idle.",
            ["namespace", "kind", "pool"], registry=registry,
        )  # fmt: skip
        self.forecast_replicas = Gauge(
            "prfaas_operator_forecast_replicas", "Workers that the predicted load of a pool asks for.",
            ["namespace", "kind", "pool"], registry=registry,
        )  # fmt: skip
        self.forecast_error = Gauge(
            "prfaas_operator_forecast_error",
            "Mean absolute error of a pool's predictions whose time has come, relative to what came.",
            ["namespace", "kind", "pool"], registry=registry,
        )  # fmt: skip
        self.budget_used = Gauge(
            "prfaas_operator_budget_used", "What pools take of a resource, by what they ask for.",
            ["namespace", "budget", "resource"], registry=registry,
        )  # fmt: skip
        self.budget_limit = Gauge(
            "prfaas_operator_budget_limit", "What a budget allows of a resource.", ["namespace", "budget", "resource"],
            registry=registry,
        )  # fmt: skip
        self.budget_held_back = Gauge(
            "prfaas_operator_budget_held_back_replicas", "Workers that a pool would have without a budget, and has not.",
            ["namespace", "budget", "kind", "pool"], registry=registry,
        )  # fmt: skip
        self.orphans = Gauge(
            "prfaas_operator_orphans",
            "Deleted objects whose children are still in a member cluster.",
            registry=registry,
        )

    def scaled(self, namespace: str, kind: str, name: str, observed: Observed, decision: ScalingDecision) -> None:
        """Record a decision of the autoscaler."""
        self.scaling_decisions.labels(namespace, name, decision.reason.value).inc()
        self.scaling_active.labels(namespace, kind, name).set(decision.reason not in FAULTS)
        if decision.wanted is not None:
            self.wanted_replicas.labels(namespace, kind, name).set(decision.wanted)
        for reading in observed.readings:
            labels = (namespace, kind, name, reading.name)
            self.scaling_target.labels(*labels).set(reading.target)
            if reading.value is not None:
                self.scaling_signal.labels(*labels).set(reading.value)
            else:
                _remove(self.scaling_signal, *labels)

    def unscaled(self, namespace: str, kind: str, name: str) -> None:
        """Drop the series of a pool that is no longer scaled."""
        pool = (namespace, kind, name)
        _remove(self.wanted_replicas, *pool)
        _remove(self.scaling_active, *pool)
        for metric in (self.scaling_signal, self.scaling_target):
            metric.remove_by_labels(dict(zip(("namespace", "kind", "pool"), pool, strict=True)))

    def forecast(self, namespace: str, kind: str, pool: str, replicas: int | None, error: float | None) -> None:
        """Record what is predicted of a pool, and how wrong predictions were; what is not known has no series."""
        for metric, value in ((self.forecast_replicas, replicas), (self.forecast_error, error)):
            if value is None:
                _remove(metric, namespace, kind, pool)
            else:
                metric.labels(namespace, kind, pool).set(value)

    def unforecast(self, namespace: str, kind: str, pool: str) -> None:
        """Drop the series of a pool without a forecast."""
        self.forecast(namespace, kind, pool, None, None)

    def budgeted(
        self,
        namespace: str,
        budget: str,
        uses: Mapping[str, tuple[float, float]],
        held_back: Mapping[tuple[str, str], int],
    ) -> None:
        """Record what is used of each resource of a budget and its limit, and the workers that pools lack."""
        self._forget_budget(namespace, budget)
        for resource, (used, limit) in uses.items():
            self.budget_used.labels(namespace, budget, resource).set(used)
            self.budget_limit.labels(namespace, budget, resource).set(limit)
        for (kind, pool), replicas in held_back.items():
            self.budget_held_back.labels(namespace, budget, kind, pool).set(replicas)

    def _forget_budget(self, namespace: str, budget: str) -> None:
        for metric in (self.budget_used, self.budget_limit, self.budget_held_back):
            metric.remove_by_labels({"namespace": namespace, "budget": budget})

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """Drop the series of an object that is gone."""
        if kind == "Budget":
            self._forget_budget(namespace, name)
        for metric, labels in (
            (self.desired_replicas, (namespace, kind, name)),
            (self.draining, (namespace, kind, name)),
            (self.member_reachable, (namespace, name) if kind == "MemberCluster" else None),
            (self.configuration_version, (namespace, name) if kind == "InferenceRoute" else None),
        ):
            if labels is not None:
                _remove(metric, *labels)
        if kind == "InferenceRoute":
            for state in ROUTER_STATES:
                _remove(self.routers, namespace, name, state)

    def exposition(self) -> bytes:
        """Return the text exposition."""
        return prometheus_client.generate_latest(self.registry)


def _remove(metric: Gauge, *labels: str) -> None:
    with contextlib.suppress(KeyError):
        metric.remove(*labels)
