"""The environment, command and arguments of a container.

The order and the rules of `$(NAME)` are the kubelet's: `envFrom` first, then `env` in order, each value expanded with
what came before it and with the Service variables.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prfaas_local.node.fields import FieldError, field_value, resource_value

Json = dict[str, Any]

Lookup = Callable[[str, str], Json | None]
"""Return the ConfigMap or Secret of a kind and name in the pod's namespace."""

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


class ConfigurationError(ValueError):
    """A container cannot be started as its spec stands now. `reason` is the waiting reason."""

    def __init__(self, message: str, reason: str = "CreateContainerConfigError") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the environment of a pod's containers is made from."""

    pod: Json
    pod_ip: str
    host_ip: str
    allocatable: Mapping[str, str]
    services: Mapping[str, str]
    """Service variables, which references may use and declared variables hide."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value; `$$` is a dollar sign and an unknown name stays as it is."""

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "$"
        return values.get(name, match[0])

    return _REFERENCE.sub(replace, text)


def variables(container: Json, facts: PodFacts, lookup: Lookup) -> dict[str, str]:
    """Return a container's variables. Raises `ConfigurationError` for a reference that does not resolve."""
    declared: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for key, value in _all_of(source, lookup).items():
            declared[source.get("prefix", "") + key] = value
    for variable in container.get("env") or []:
        name = variable["name"]
        if "valueFrom" in variable:
            referenced = _referenced(name, variable["valueFrom"], container["name"], facts, lookup)
            if referenced is None:
                continue
            value = referenced
        else:
            value = expand(variable.get("value", ""), {**facts.services, **declared})
        declared[name] = value
    return {**facts.services, **declared}


def command_line(container: Json, values: Mapping[str, str]) -> list[str]:
    """Return command and arguments, expanded. Raises `ConfigurationError` when there is no command."""
    command = container.get("command") or []
    if not command:
        raise ConfigurationError(
            f"container {container['name']!r} has no command: images are not pulled here, so `command` must be set",
            reason="NoCommand",
        )
    return [expand(word, values) for word in [*command, *(container.get("args") or [])]]


def service_variables(
    services: Iterable[Json], namespace: str, *, links: bool, api_host: str, api_port: int
) -> dict[str, str]:
    """Return the variables that tell a pod where Services are.

    The API server's are always there; those of the pod's namespace when `enableServiceLinks` is on.
    """
    result: dict[str, str] = {}
    for service in services:
        spec, metadata = service["spec"], service["metadata"]
        address = spec.get("clusterIP")
        if not links or metadata["namespace"] != namespace or address in {None, "", "None"} or not spec.get("ports"):
            continue
        prefix = metadata["name"].upper().replace("-", "_")
        first = spec["ports"][0]
        result[f"{prefix}_SERVICE_HOST"] = address
        result[f"{prefix}_SERVICE_PORT"] = str(first["port"])
        result[f"{prefix}_PORT"] = f"{first.get('protocol', 'TCP').lower()}://{address}:{first['port']}"
        for port in spec["ports"]:
            protocol, number = port.get("protocol", "TCP"), port["port"]
            if port.get("name"):
                result[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(number)
            link = f"{prefix}_PORT_{number}_{protocol}"
            result[link] = f"{protocol.lower()}://{address}:{number}"
            result[f"{link}_PROTO"] = protocol.lower()
            result[f"{link}_PORT"] = str(number)
            result[f"{link}_ADDR"] = address
    result["KUBERNETES_SERVICE_HOST"] = api_host
    result["KUBERNETES_SERVICE_PORT"] = result["KUBERNETES_SERVICE_PORT_HTTPS"] = str(api_port)
    return result


def decoded(item: Json) -> dict[str, bytes]:
    """Return all keys of a ConfigMap or Secret as bytes."""
    if item.get("kind") == "Secret" or "type" in item:
        return {key: base64.b64decode(value or "") for key, value in (item.get("data") or {}).items()}
    text = {key: value.encode() for key, value in (item.get("data") or {}).items()}
    return {**text, **{key: base64.b64decode(value) for key, value in (item.get("binaryData") or {}).items()}}


def _all_of(source: Json, lookup: Lookup) -> dict[str, str]:
    kind: str
    reference: Json
    kind, reference = (
        ("ConfigMap", source["configMapRef"]) if "configMapRef" in source else ("Secret", source["secretRef"])
    )
    item = lookup(kind, reference["name"])
    if item is None:
        if reference.get("optional"):
            return {}
        raise ConfigurationError(f'{kind.lower()} "{reference["name"]}" not found')
    return {key: value.decode(errors="replace") for key, value in decoded(item).items()}


def _referenced(name: str, source: Json, container_name: str, facts: PodFacts, lookup: Lookup) -> str | None:
    try:
        if "fieldRef" in source:
            return field_value(facts.pod, source["fieldRef"]["fieldPath"], pod_ip=facts.pod_ip, host_ip=facts.host_ip)
        if "resourceFieldRef" in source:
            return resource_value(facts.pod, source["resourceFieldRef"], container_name, facts.allocatable)
    except FieldError as error:
        raise ConfigurationError(f"env {name}: {error}") from error
    for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if field not in source:
            continue
        reference = source[field]
        item = lookup(kind, reference["name"])
        values = decoded(item) if item else {}
        if reference["key"] in values:
            return values[reference["key"]].decode(errors="replace")
        if reference.get("optional"):
            return None
        if item is None:
            raise ConfigurationError(f'{kind.lower()} "{reference["name"]}" not found')
        raise ConfigurationError(f"couldn't find key {reference['key']} in {kind} {reference['name']}")
    raise ConfigurationError(
        f"env {name}: valueFrom has none of fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef"
    )
