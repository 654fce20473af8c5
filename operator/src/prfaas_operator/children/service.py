"""The Services of pools and routers."""

from collections.abc import Mapping
from typing import Any

from prfaas_operator.children.metadata import Owner, Role, build_metadata, identity_labels
from prfaas_operator.children.router import GRPC_PORT, HTTP_PORT


def build_headless_service(owner: Owner, role: Role, http_port: int) -> dict[str, Any]:
    """Return the Service that gives a pool's workers names and lets monitoring find them."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(owner, owner.name, role),
        "spec": {
            "clusterIP": "None",
            "selector": identity_labels(role, owner.name),
            "ports": [_port("http", http_port, http_port)],
        },
    }


def build_router_service(
    owner: Owner, name: str, selector: Mapping[str, str], *, type_: str, port: int, cluster_ip: str | None
) -> dict[str, Any]:
    """Return the Service in front of the routers; `selector` selects router pods, or decode pods that carry a sidecar."""
    spec: dict[str, Any] = {
        "type": type_,
        "selector": dict(selector),
        "ports": [_port("http", port, HTTP_PORT), _port("grpc", GRPC_PORT, GRPC_PORT)],
    }
    if cluster_ip is not None:
        spec["clusterIP"] = cluster_ip
    return {"apiVersion": "v1", "kind": "Service", "metadata": build_metadata(owner, name, "router"), "spec": spec}


def _port(name: str, port: int, target: int) -> dict[str, Any]:
    return {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}
