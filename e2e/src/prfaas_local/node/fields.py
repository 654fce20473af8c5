"""The downward API: values of a pod's own fields and resources."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from prfaas_local.node.quantities import divide

Json = dict[str, Any]

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


class FieldError(ValueError):
    """A field the downward API does not offer."""


def field_value(pod: Json, path: str, *, pod_ip: str, host_ip: str) -> str:
    """Return the value of a `fieldRef.fieldPath`; a missing label or annotation is empty."""
    metadata, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        return str((metadata.get(subscript[1]) or {}).get(subscript[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(metadata[path.removeprefix("metadata.")])
        case "metadata.labels" | "metadata.annotations":
            return format_map(metadata.get(path.removeprefix("metadata.")) or {})
        case "spec.nodeName":
            return str(spec.get("nodeName", ""))
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName", ""))
        case "status.hostIP" | "status.hostIPs":
            return host_ip
        case "status.podIP" | "status.podIPs":
            return pod_ip
        case _:
            raise FieldError(f"fieldRef.fieldPath {path!r} is not a field of the downward API")


def resource_value(pod: Json, reference: Json, container_name: str, allocatable: Mapping[str, str]) -> str:
    """Return the value of a `resourceFieldRef`; a limit that is not set is what the node can allocate."""
    name = reference.get("containerName") or container_name
    containers = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
    container = next((item for item in containers if item["name"] == name), None)
    if container is None:
        raise FieldError(f"resourceFieldRef.containerName {name!r} is not a container of the pod")
    kind, _, resource = reference["resource"].partition(".")
    if kind not in {"limits", "requests"} or not resource:
        raise FieldError(f"resourceFieldRef.resource {reference['resource']!r} must start with limits. or requests.")
    stated = ((container.get("resources") or {}).get(kind) or {}).get(resource)
    if stated is None:
        stated = allocatable.get(resource, "0") if kind == "limits" else "0"
    return str(divide(str(stated), str(reference.get("divisor") or "1")))


def format_map(values: Mapping[str, str]) -> str:
    """Return labels or annotations as sorted `key="value"` lines."""
    return "\n".join(f"{key}={json.dumps(values[key], ensure_ascii=False)}" for key in sorted(values))
