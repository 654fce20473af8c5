"""ClusterIPs: every Service of the cluster is listened on at its own address, and connections go to its ready pods.

It does the work of kube-proxy and of the endpoint controllers together, because EndpointSlices refuse loopback
addresses. Only TCP is carried. A backend is chosen anew for each connection, in turn, or by the client's address where the
Service asks for `sessionAffinity: ClientIP`.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prfaas_local.listening import Address, ListeningSet
from prfaas_local.node.apiserver import Json
from prfaas_local.node.forwarding import Inbound
from prfaas_local.node.reflector import Key, Reflector

_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One TCP port of a Service: where it listens and what it leads to."""

    service: Key
    listen: Address
    target_port: int | str
    selector: tuple[tuple[str, str], ...]
    by_client: bool
    unready_too: bool

    def __str__(self) -> str:
        return f"service {self.service[0]}/{self.service[1]}"


def service_ports(services: Iterable[Json]) -> Iterator[ServicePort]:
    """Yield the TCP ports of all Services that have an address of their own and select pods."""
    for service in services:
        spec, metadata = service["spec"], service["metadata"]
        address, selector = spec.get("clusterIP"), spec.get("selector")
        if address in {None, "", "None"} or not selector or spec.get("type") == "ExternalName":
            continue
        for port in spec.get("ports") or []:
            if port.get("protocol", "TCP") == "TCP":
                yield ServicePort(
                    service=(metadata["namespace"], metadata["name"]),
                    listen=(address, port["port"]),
                    target_port=port.get("targetPort") or port["port"],
                    selector=tuple(sorted(selector.items())),
                    by_client=spec.get("sessionAffinity") == "ClientIP",
                    unready_too=bool(spec.get("publishNotReadyAddresses")),
                )


def backends(port: ServicePort, pods: Iterable[Json]) -> list[Address]:
    """Return the addresses that a Service's port leads to, in order: its ready pods that are not being deleted."""
    found = []
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status") or {}
        labels = metadata.get("labels") or {}
        if metadata["namespace"] != port.service[0] or any(labels.get(key) != value for key, value in port.selector):
            continue
        if not status.get("podIP") or status.get("phase") in {"Succeeded", "Failed"}:
            continue
        if not port.unready_too and (metadata.get("deletionTimestamp") or not _ready(status)):
            continue
        number = _number(port.target_port, pod["spec"])
        if number is not None:
            found.append((status["podIP"], number))
    return sorted(found)


class ServiceProxy(ListeningSet[ServicePort]):
    """Listens on all Services of a cluster. Connections that are open outlive changes of the Service."""

    def __init__(self, services: Reflector, pods: Reflector) -> None:
        super().__init__(lambda: {port.listen: port for port in service_ports(services.objects.values())}, self._serve)
        self._pods = pods
        self._turns = itertools.count()
        services.listen(lambda *_: self.changed())

    async def _serve(self, address: Address, port: ServicePort) -> asyncio.Server:
        def choose(client: str) -> Address | None:
            found = backends(port, self._pods.objects.values())
            if not found:
                return None
            turn = zlib.crc32(client.encode()) if port.by_client else next(self._turns)
            return found[turn % len(found)]

        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: Inbound(choose), *address, backlog=_BACKLOG)


def _ready(status: Json) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or [])


def _number(port: int | str, spec: Json) -> int | None:
    if isinstance(port, int):
        return port
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        for declared in container.get("ports") or []:
            if declared.get("name") == port:
                return int(declared["containerPort"])
    return None
