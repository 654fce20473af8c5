"""Which addresses a link listens on, from the pods of the cluster at its far end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prfaas_local.link.translation import Translation
from prfaas_local.listening import Address

Pod = Mapping[str, Any]


def endpoints(pods: Iterable[Pod], translation: Translation) -> dict[Address, Address]:
    """Return the addresses to listen on and where each leads: every TCP port that a live pod declares.

    A pod that has ended keeps its address in its status while the address may already be another pod's, so ended pods
    are left out.
    """
    found: dict[Address, Address] = {}
    for pod in pods:
        status = pod.get("status") or {}
        address = status.get("podIP")
        if not address or status.get("phase") in {"Succeeded", "Failed"}:
            continue
        translated = translation.translate(address)
        if translated is not None:
            found.update({(translated, port): (address, port) for port in _ports(pod.get("spec") or {})})
    return found


def _ports(spec: Mapping[str, Any]) -> Iterator[int]:
    for container in _running_containers(spec):
        for port in container.get("ports") or ():
            if port.get("protocol", "TCP") == "TCP":
                yield int(port["containerPort"])


def _running_containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from spec.get("containers") or ()
    for container in spec.get("initContainers") or ():
        # With this policy an init container is a sidecar: it runs as long as the pod.
        if container.get("restartPolicy") == "Always":
            yield container
