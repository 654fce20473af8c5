"""What is measured of a run: the operator's process, its calls, and when it looked at each pool.

Looks are taken from Prometheus' own log of queries, calls from the API server's own counters, and CPU and memory from the
kernel, so none of it is what the operator says of itself.
"""

from __future__ import annotations

import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_LOOK = "prfaas_part"
_POOL = re.compile(r'namespace="([^"]+)",prfaas_pool="([^"]+)"')
_DISPATCHED = re.compile(
    r'^apiserver_flowcontrol_dispatched_requests_total\{.*flow_schema="([^"]+)".*\} (\S+)', re.MULTILINE
)
_QUERIES = re.compile(r'^prometheus_http_requests_total\{code="(\d+)",handler="/api/v1/query"\} (\S+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used by a moment of the monotonic clock."""

    at_s: float
    cpu_s: float
    rss_bytes: int
    threads: int
    sockets: int


def usage(pid: int, at_s: float) -> Usage:
    folder = Path(f"/proc/{pid}")
    fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    sockets = sum(1 for found in (folder / "fd").iterdir() if _target(found).startswith("socket:"))
    return Usage(at_s, cpu_s, int(status["VmRSS"].split()[0]) * 1024, int(status["Threads"]), sockets)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def dispatched(api_server_metrics: str) -> Counter[str]:
    """Return the requests that the API server has let through, by FlowSchema."""
    found: Counter[str] = Counter()
    for schema, number in _DISPATCHED.findall(api_server_metrics):
        found[schema] += int(float(number))
    return found


def asked(prometheus_metrics: str) -> Counter[str]:
    """Return the queries that Prometheus has answered, by status code."""
    found: Counter[str] = Counter()
    for code, number in _QUERIES.findall(prometheus_metrics):
        found[code] += int(float(number))
    return found


@dataclass(frozen=True, slots=True)
class Looks:
    """How the operator kept its period: times between two looks at the same pool, and what one cost Prometheus."""

    pools: int
    apart_s: Sequence[float]
    evaluation_s: Sequence[float]

    def apart(self, quantile: float) -> float:
        return _quantile(self.apart_s, quantile)

    @property
    def evaluation_mean_s(self) -> float:
        return statistics.fmean(self.evaluation_s) if self.evaluation_s else float("nan")


def looks(query_log: Iterable[str], since: datetime, until: datetime) -> Looks:
    """Return the looks at pools between two moments; the gaps at both ends count, so that a pool that is starved shows."""
    times: dict[tuple[str, str], list[datetime]] = {}
    evaluation_s = []
    for line in query_log:
        entry = json.loads(line)
        query, at = entry["params"]["query"], datetime.fromisoformat(entry["time"])
        if _LOOK not in query or not since <= at <= until:
            continue
        found = _POOL.search(query)
        if found is None:
            continue
        times.setdefault((found[1], found[2]), []).append(at)
        evaluation_s.append(entry["stats"]["timings"]["evalTotalTime"])
    apart_s = [
        (after - before).total_seconds()
        for moments in times.values()
        for before, after in zip(sorted(moments), sorted(moments)[1:], strict=False)
    ]
    return Looks(len(times), apart_s, evaluation_s)


def _quantile(values: Sequence[float], quantile: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else float("nan")
