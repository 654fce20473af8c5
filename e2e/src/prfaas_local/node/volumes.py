"""What the volumes of a pod contain: pure projections of objects to files, and where each volume lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prfaas_local.node.atomic_directory import File
from prfaas_local.node.environment import Lookup, PodFacts, decoded
from prfaas_local.node.fields import FieldError, field_value, resource_value

Json = dict[str, Any]

DEFAULT_MODE = 0o644
SUPPORTED = ("configMap", "secret", "downwardAPI", "projected", "emptyDir", "hostPath")


class VolumeError(ValueError):
    """A volume that cannot be set up as things stand; it is tried again when its sources change."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A ServiceAccount token that a projected volume wants."""

    audience: str
    """Empty for the API server's own."""
    expiration_s: int


Tokens = Callable[[TokenRequest], str]
"""Return the token fetched for a request."""


def kind_of(volume: Json) -> str:
    """Return the type of a volume. Raises `VolumeError` for one that needs a real node."""
    for kind in SUPPORTED:
        if kind in volume:
            return kind
    kinds = ", ".join(sorted(set(volume) - {"name"})) or "none"
    raise VolumeError(f"volume {volume['name']!r} has type {kinds}; this node supports {', '.join(SUPPORTED)}")


def token_requests(volume: Json) -> list[TokenRequest]:
    """Return the tokens that a volume contains."""
    if "projected" not in volume:
        return []
    return [
        _token_request(source["serviceAccountToken"])
        for source in volume["projected"].get("sources") or []
        if "serviceAccountToken" in source
    ]


def references(pod: Json) -> set[tuple[str, str]]:
    """Return kind and name of every ConfigMap and Secret that the pod's volumes and containers use."""
    found: set[tuple[str, str]] = set()
    for volume in pod["spec"].get("volumes") or []:
        for source in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
            if "configMap" in source:
                found.add(("ConfigMap", source["configMap"]["name"]))
            if "secret" in source:
                found.add(("Secret", source["secret"].get("secretName") or source["secret"]["name"]))
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        for source in container.get("envFrom") or []:
            for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if field in source:
                    found.add((kind, source[field]["name"]))
        for variable in container.get("env") or []:
            for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if field in (variable.get("valueFrom") or {}):
                    found.add((kind, variable["valueFrom"][field]["name"]))
    return found


def files(volume: Json, facts: PodFacts, lookup: Lookup, tokens: Tokens) -> dict[str, File]:
    """Return the files of a volume that projects objects. Raises `VolumeError` when a source is missing."""
    kind = kind_of(volume)
    source = volume[kind]
    mode = source.get("defaultMode", DEFAULT_MODE)
    if kind != "projected":
        return _source_files(kind, source, mode, facts, lookup)
    result: dict[str, File] = {}
    for item in source.get("sources") or []:
        if "serviceAccountToken" in item:
            projection = item["serviceAccountToken"]
            result[projection["path"]] = File(tokens(_token_request(projection)).encode(), mode)
            continue
        for name in ("configMap", "secret", "downwardAPI"):
            if name in item:
                result |= _source_files(name, item[name], mode, facts, lookup)
                break
        else:
            raise VolumeError(f"volume {volume['name']!r}: projected source {', '.join(item)} is not supported")
    return result


def _source_files(kind: str, source: Json, mode: int, facts: PodFacts, lookup: Lookup) -> dict[str, File]:
    if kind == "downwardAPI":
        return {item["path"]: File(_field(item, facts), item.get("mode", mode)) for item in source.get("items") or []}
    kind, name = (
        ("ConfigMap", source["name"]) if kind == "configMap" else ("Secret", source.get("secretName") or source["name"])
    )
    item = lookup(kind, name)
    if item is None:
        if source.get("optional"):
            return {}
        raise VolumeError(f'{kind.lower()} "{name}" not found')
    return _selected(kind, name, decoded(item), source, mode)


def _selected(kind: str, name: str, data: Mapping[str, bytes], source: Json, mode: int) -> dict[str, File]:
    if not source.get("items"):
        return {key: File(value, mode) for key, value in data.items()}
    result = {}
    for item in source["items"]:
        if item["key"] in data:
            result[item["path"]] = File(data[item["key"]], item.get("mode", mode))
        elif not source.get("optional"):
            raise VolumeError(f'{kind.lower()} "{name}" references non-existent config key: {item["key"]}')
    return result


def _field(item: Json, facts: PodFacts) -> bytes:
    try:
        if "fieldRef" in item:
            value = field_value(facts.pod, item["fieldRef"]["fieldPath"], pod_ip=facts.pod_ip, host_ip=facts.host_ip)
        else:
            value = resource_value(facts.pod, item["resourceFieldRef"], "", facts.allocatable)
    except FieldError as error:
        raise VolumeError(f"downwardAPI item {item['path']!r}: {error}") from error
    return value.encode()


def _token_request(projection: Json) -> TokenRequest:
    return TokenRequest(projection.get("audience") or "", int(projection.get("expirationSeconds") or 3600))
