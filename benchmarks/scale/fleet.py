"""The objects of a fleet: pairs of member clusters, and in each pair routes with a decode pool on one side and a remote prefill
pool on the other, all of them with `scaling`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

MEMBERS = 20
MIN_REPLICAS, MAX_REPLICAS = 1, 8
SCALE_DOWN_WINDOW_S = 60
"""Shorter than by default, so that a run of a few minutes sees pools shrink."""
PREFILL_TARGET, DECODE_TARGET = 0.7, 15.0

_MANIFESTS = Path(__file__).resolve().parents[2] / "e2e" / "manifests"
_API = "prfaas.dev/v1alpha1"


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool, as Prometheus labels its pods."""

    namespace: str
    cluster: str
    name: str
    role: Literal["prefill", "decode"]

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


def namespaces() -> list[str]:
    return [f"pair-{number:02}" for number in range(MEMBERS // 2)]


def pools(count: int) -> list[Pool]:
    """Return pools, two for each route, spread evenly over the pairs."""
    pairs = namespaces()
    found = []
    for number in range(count // 2):
        namespace = pairs[number % len(pairs)]
        found.append(Pool(namespace, "west", f"prefill-{number:03}", "prefill"))
        found.append(Pool(namespace, "east", f"decode-{number:03}", "decode"))
    return found


def members(kubeconfig: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield namespace and body of everything but the pools and their routes."""
    profile = next(yaml.safe_load_all((_MANIFESTS / "10-profiles.yaml").read_text()))
    for namespace in namespaces():
        for name in ("east", "west"):
            yield namespace, {
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{name}-kubeconfig"},
                "stringData": {"kubeconfig": kubeconfig.decode()},
            }  # fmt: skip
            spec = {"region": name, "kubeconfigSecretRef": {"name": f"{name}-kubeconfig"}}
            yield namespace, _object("MemberCluster", name, spec)
        yield namespace, _object("ModelProfile", "profile", profile["spec"])
        ends = {"fromClusterRef": {"name": "west"}, "toClusterRef": {"name": "east"}}
        yield namespace, _object("KVLink", "west-to-east", ends | {"capacityGbps": 100, "costPerGB": 0.01})


def bodies(found: list[Pool]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield namespace and body of pools and their routes."""
    for prefill, decode in zip(found[::2], found[1::2], strict=True):
        for pool in (prefill, decode):
            kind = "PrefillPool" if pool.role == "prefill" else "DecodePool"
            yield pool.namespace, _object(kind, pool.name, _pool(pool))
        number = decode.name.removeprefix("decode-")
        route = {
            "model": "prfaas-1t",
            "decodePoolRef": {"name": decode.name},
            "remotePrefillPoolRefs": [{"name": prefill.name}],
            "router": {"replicas": 1, "container": {"image": "router", "command": ["router"]}},
        }
        yield decode.namespace, _object("InferenceRoute", f"route-{number}", route)


def _pool(pool: Pool) -> dict[str, Any]:
    signals = (
        [("PrefillLoad", PREFILL_TARGET), ("PrefillQueueWait", 0.5)]
        if pool.role == "prefill"
        else [("DecodeRequests", DECODE_TARGET), ("KVCacheUse", 0.85)]
    )
    return {
        "clusterRef": {"name": pool.cluster},
        "profileRef": {"name": "profile"},
        "scaling": {
            "minReplicas": MIN_REPLICAS,
            "maxReplicas": MAX_REPLICAS,
            "signals": [{"name": name, "targetValue": target} for name, target in signals],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": SCALE_DOWN_WINDOW_S}},
        },
        "template": {"spec": {"containers": [{"name": "worker", "image": "worker", "command": ["worker"]}]}},
    }


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": _API, "kind": kind, "metadata": {"name": name}, "spec": spec}
