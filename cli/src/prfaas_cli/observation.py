"""What happened during a replay as Prometheus saw it: use of the link, and replicas over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import httpx

STEP_S = 1.0
_LINK = 'rate(link_bytes_total{direction="from_pods"}[5s]) * 8'
_POOLS = 'count by (prfaas_pool) (up{prfaas_pool!=""} == 1)'


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: label values joined, and samples of (seconds since the start, value)."""

    name: str
    samples: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float:
        """Mean of the samples; 0 without any."""
        return sum(value for _, value in self.samples) / len(self.samples) if self.samples else 0.0

    @property
    def peak(self) -> float:
        """The highest sample; 0 without any."""
        return max((value for _, value in self.samples), default=0.0)

    def changes(self) -> tuple[tuple[float, float], ...]:
        """Return the first sample and those that differ from the one before."""
        kept: list[tuple[float, float]] = []
        for at_s, value in self.samples:
            if not kept or kept[-1][1] != value:
                kept.append((at_s, value))
        return tuple(kept)


@dataclass(frozen=True, slots=True)
class Observation:
    """Link in bit/s towards the decode cluster, None when nothing measures it, and workers by pool."""

    link: Series | None
    link_capacity_bps: float
    pools: tuple[Series, ...]


def observe(prometheus_url: str, start_s: float, end_s: float, link_capacity_bps: float) -> Observation:
    """Ask Prometheus about a span of Unix time.

    Raises:
        httpx.HTTPError: it does not answer.
    """
    link = _range(prometheus_url, _LINK, start_s, end_s)
    pools = _range(prometheus_url, _POOLS, start_s, end_s)
    return Observation(
        link=link[0] if link else None,
        link_capacity_bps=link_capacity_bps,
        pools=tuple(sorted(pools, key=lambda series: series.name)),
    )


def _range(url: str, query: str, start_s: float, end_s: float) -> Sequence[Series]:
    parameters = {"query": query, "start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{STEP_S:g}"}
    answer = httpx.get(f"{url}/api/v1/query_range", params=parameters, timeout=10, trust_env=False)
    answer.raise_for_status()
    return [
        Series(
            name=item["metric"].get("prfaas_pool", "link"),
            samples=tuple((float(at_s) - start_s, float(value)) for at_s, value in item["values"]),
        )
        for item in answer.json()["data"]["result"]
    ]
