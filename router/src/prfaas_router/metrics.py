"""The router's metrics."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_TIME_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120)

_WAIT_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600)


class Metrics:
    """Metrics with the constant label `route`."""

    def __init__(self, route: str) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._route = route

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ["route", *labels], registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, ["route", *labels], registry=self.registry)

        self._requests = counter(
            "prfaas_router_requests", "Requests by where they were prefilled, why, and how they ended.",
            "destination", "reason", "outcome",
        )  # fmt: skip
        self._refused = counter("prfaas_router_refused", "Requests refused before a decision, by status.", "status")
        self._tokens = counter("prfaas_router_prompt_tokens", "Prompt tokens by whether their KV was cached.", "cached")
        self._failures = counter("prfaas_router_upstream_failures", "Failed legs by pool and leg.", "pool", "leg")
        self._ttft = Histogram(
            "prfaas_router_ttft_seconds", "Time to the first byte of an answer.", ["route", "destination"],
            buckets=_TIME_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._prefill = Histogram(
            "prfaas_router_prefill_leg_seconds", "Time of the prefill leg.", ["route", "destination"],
            buckets=_TIME_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._regret = Histogram(
            "prfaas_router_shadow_regret_seconds",
            "Requests that shadow mode kept from a remote pool: by how much the first token would have come sooner or later.",
            ["route", "across"], buckets=_TIME_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._waited = Histogram(
            "prfaas_router_wait_seconds", "Time that requests waited for the first decode worker, by how that ended.",
            ["route", "outcome"], buckets=_WAIT_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._wait_refused = counter(
            "prfaas_router_wait_refused", "Requests that were not let wait for a decode worker, or not longer.", "code"
        )
        self._wanted = counter(
            "prfaas_router_wanted", "Requests that wanted a pool, also while it had no worker.", "pool"
        )
        self.waiting = gauge("prfaas_router_waiting", "Requests that wait for the first decode worker.").labels(route)
        self._in_flight = gauge("prfaas_router_in_flight", "Legs in flight by pool.", "pool")
        self.version = gauge("prfaas_router_configuration_version", "Version of the configuration in use.").labels(
            route
        )
        self.connected = gauge(
            "prfaas_router_configuration_connected", "1 while the operator's stream is open."
        ).labels(route)
        self.rejected = counter("prfaas_router_configurations_rejected", "Snapshots answered with a NACK.").labels(
            route
        )
        self.threshold = gauge("prfaas_router_threshold_tokens", "The threshold in use.").labels(route)

    def request(self, destination: str, reason: str, outcome: str) -> None:
        """Count a request that was decided on."""
        self._requests.labels(self._route, destination, reason, outcome).inc()

    def refused(self, status: int) -> None:
        """Count a request that never got to a decision."""
        self._refused.labels(self._route, str(status)).inc()

    def prompt(self, cached_tokens: int, computed_tokens: int) -> None:
        """Count the tokens of a prompt."""
        self._tokens.labels(self._route, "true").inc(cached_tokens)
        self._tokens.labels(self._route, "false").inc(computed_tokens)

    def failure(self, pool: str, leg: str) -> None:
        """Count a leg that failed."""
        self._failures.labels(self._route, pool, leg).inc()

    def ttft(self, destination: str, seconds: float) -> None:
        """Observe the time to the first byte."""
        self._ttft.labels(self._route, destination).observe(seconds)

    def prefill(self, destination: str, seconds: float) -> None:
        """Observe the time of a prefill leg."""
        self._prefill.labels(self._route, destination).observe(seconds)

    def regret(self, seconds: float) -> None:
        """Observe what shadow mode cost a request, below 0 saved it, as estimated."""
        self._regret.labels(self._route, "sooner" if seconds > 0 else "later").observe(abs(seconds))

    def waited(self, outcome: str, seconds: float) -> None:
        """Observe the time that a request waited for a decode worker."""
        self._waited.labels(self._route, outcome).observe(seconds)

    def wait_refused(self, code: str) -> None:
        """Count a request that was not let wait, or not longer."""
        self._wait_refused.labels(self._route, code).inc()

    def wanted(self, pool: str) -> None:
        """Count a request that wanted a pool."""
        self._wanted.labels(self._route, pool).inc()

    def in_flight(self, pool: str, count: int) -> None:
        """Set the legs in flight."""
        self._in_flight.labels(self._route, pool).set(count)

    def exposition(self) -> bytes:
        """Return the text exposition."""
        return prometheus_client.generate_latest(self.registry)
