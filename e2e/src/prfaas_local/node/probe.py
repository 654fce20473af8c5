"""What probes are and when their verdict changes. Pure; `probing` asks the process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

Json = dict[str, Any]


class Kind(Enum):
    """The three uses of a probe. The value is the name in messages."""

    STARTUP = "Startup"
    READINESS = "Readiness"
    LIVENESS = "Liveness"


class ProbeError(ValueError):
    """A probe that names nothing to ask."""


@dataclass(frozen=True, slots=True)
class HttpGet:
    """GET a path; 200 to 399 is success."""

    port: int
    path: str = "/"
    scheme: str = "http"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TcpConnect:
    """Open a connection."""

    port: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class GrpcHealth:
    """Ask `grpc.health.v1.Health/Check`; SERVING is success."""

    port: int
    service: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """Run a command as the container would; exit code 0 is success."""

    arguments: tuple[str, ...]


Question = HttpGet | TcpConnect | GrpcHealth | Command


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe as the pod declares it."""

    kind: Kind
    question: Question
    initial_delay_s: float
    period_s: float
    timeout_s: float
    success_threshold: int
    failure_threshold: int
    termination_grace_s: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The probe's standing result and the run of equal answers that may change it.

    `healthy` is None while the probe has not decided.
    """

    healthy: bool | None
    last: bool | None = None
    run: int = 0

    @classmethod
    def initial(cls, kind: Kind) -> Verdict:
        """Return what holds before the first answer: not ready, alive, start undecided."""
        return cls({Kind.READINESS: False, Kind.LIVENESS: True, Kind.STARTUP: None}[kind])

    def observe(self, probe: Probe, success: bool) -> Verdict:
        """Return the verdict after one more answer."""
        run = self.run + 1 if success == self.last else 1
        threshold = probe.success_threshold if success else probe.failure_threshold
        return replace(self, healthy=success if run >= threshold else self.healthy, last=success, run=run)


def parse(kind: Kind, spec: Json, container: Json) -> Probe:
    """Read a probe of a container's spec. Raises `ProbeError`."""
    grace = spec.get("terminationGracePeriodSeconds")
    return Probe(
        kind=kind,
        question=question(spec, container),
        initial_delay_s=float(spec.get("initialDelaySeconds") or 0),
        period_s=float(spec.get("periodSeconds") or 10),
        timeout_s=float(spec.get("timeoutSeconds") or 1),
        success_threshold=int(spec.get("successThreshold") or 1),
        failure_threshold=int(spec.get("failureThreshold") or 3),
        termination_grace_s=None if grace is None else float(grace),
    )


def question(spec: Json, container: Json) -> Question:
    """Read what a probe or hook does: httpGet, tcpSocket, grpc or exec. Raises `ProbeError`."""
    if "httpGet" in spec:
        get = spec["httpGet"]
        return HttpGet(
            port=port_number(get["port"], container),
            path=get.get("path") or "/",
            scheme=(get.get("scheme") or "HTTP").lower(),
            host=get.get("host") or "",
            headers=tuple((header["name"], header["value"]) for header in get.get("httpHeaders") or []),
        )
    if "tcpSocket" in spec:
        return TcpConnect(
            port=port_number(spec["tcpSocket"]["port"], container), host=spec["tcpSocket"].get("host") or ""
        )
    if "grpc" in spec:
        return GrpcHealth(port=int(spec["grpc"]["port"]), service=spec["grpc"].get("service") or "")
    if "exec" in spec:
        return Command(tuple(spec["exec"].get("command") or ()))
    raise ProbeError(f"container {container['name']!r}: a probe has none of httpGet, tcpSocket, grpc, exec")


def port_number(port: int | str, container: Json) -> int:
    """Return the number of a port given by number or by the name of a container port. Raises `ProbeError`."""
    if isinstance(port, int):
        return port
    for declared in container.get("ports") or []:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    if port.isdigit():
        return int(port)
    raise ProbeError(f"container {container['name']!r} has no port named {port!r}")
