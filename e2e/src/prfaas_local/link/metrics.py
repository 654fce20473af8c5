"""The metrics of a link, read from it when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from prfaas_local.link.link import Link
from prfaas_local.link.state import Fault


class LinkCollector(Collector):
    """Reads the counters of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        link, state = self._link, self._link.state
        directions = (("to_pods", link.to_pods), ("from_pods", link.from_pods))
        carried = CounterMetricFamily("link_bytes", "Payload bytes that left on the link.", labels=["direction"])
        busy = CounterMetricFamily(
            "link_busy_seconds",
            "Time that these bytes occupied the link; its rate is the utilization.",
            labels=["direction"],
        )
        flying = GaugeMetricFamily(
            "link_in_flight_bytes", "Bytes that left and have not arrived.", labels=["direction"]
        )
        waiting = GaugeMetricFamily(
            "link_waiting_connections", "Connections with bytes that wait for their turn.", labels=["direction"]
        )
        queued = GaugeMetricFamily("link_queued_bytes", "Bytes that wait for their turn.", labels=["direction"])
        for (name, direction), queued_bytes in zip(directions, link.queued_bytes, strict=True):
            carried.add_metric([name], direction.carried_bytes)
            busy.add_metric([name], direction.busy_s)
            flying.add_metric([name], direction.in_flight_bytes)
            waiting.add_metric([name], direction.waiting_senders)
            queued.add_metric([name], queued_bytes)
        yield from (carried, busy, flying, waiting, queued)
        yield GaugeMetricFamily("link_capacity_bps", "Capacity of each direction in bits/s.", value=state.capacity_bps)
        yield GaugeMetricFamily("link_delay_seconds", "One-way propagation delay.", value=state.delay_s)
        yield GaugeMetricFamily("link_connections", "Connections that are open.", value=link.connections)
        yield CounterMetricFamily("link_accepted_connections", "Connections that were accepted.", value=link.accepted)
        fault = GaugeMetricFamily(
            "link_fault", "1 for the fault that the link has, 0 for the others.", labels=["fault"]
        )
        for kind in Fault:
            fault.add_metric([kind.value], float(state.fault is kind))
        yield fault


def registry(link: Link) -> CollectorRegistry:
    """Return a registry with the metrics of a link and nothing else."""
    metrics = CollectorRegistry(auto_describe=False)
    metrics.register(LinkCollector(link))
    return metrics
