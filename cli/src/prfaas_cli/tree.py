"""The objects of a hub as a tree: routes above their pools, pools above their pods."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from prfaas_cli.environments import LocalEnvironment
from prfaas_local.errors import LocalClusterError

Json = dict[str, Any]

_COLOURS = {"True": "green", "False": "red"}
_KINDS = ("memberclusters", "kvlinks", "inferenceroutes", "prefillpools", "decodepools")


def draw(environment: LocalEnvironment) -> Tree:
    """Return the tree of all objects, as they are now.

    Raises:
        LocalClusterError: the hub does not answer.
    """
    everything = json.loads(environment.hub.kubectl("get", ",".join(_KINDS), "-A", "-o", "json"))["items"]
    by_kind: dict[str, list[Json]] = {}
    for item in everything:
        by_kind.setdefault(item["kind"], []).append(item)
    pools = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item
        for kind in ("PrefillPool", "DecodePool")
        for item in by_kind.get(kind, [])
    }
    pods = _pods(environment)
    tree = Tree(f"hub [dim]{environment.hub.server}[/]")
    for route in by_kind.get("InferenceRoute", []):
        status, namespace = route.get("status") or {}, route["metadata"]["namespace"]
        branch = tree.add(
            f"{_title(route)}  model {escape(route['spec']['model'])}, threshold {status.get('thresholdTokens', '?')} tokens, "
            f"link {str(status.get('bandwidth', 'unknown')).lower()}, routers {status.get('routersReady', '0/0')}"
        )
        if status.get("thresholdWhy"):
            branch.add(f"[dim]{escape(status['thresholdWhy'])}[/]")
        _add_pods(
            branch,
            [pod for pod in pods if pod["metadata"]["labels"].get("prfaas.dev/route") == route["metadata"]["name"]],
        )
        for name in _pools_of(route):
            pool = pools.pop((namespace, name), None)
            if pool is None:
                branch.add(f"[red]{escape(name)}[/]  no such pool")
            else:
                _add_pool(branch, pool, pods)
    for pool in pools.values():
        _add_pool(tree, pool, pods)
    for link in by_kind.get("KVLink", []):
        spec, status = link["spec"], link.get("status") or {}
        use = status.get("utilisation")
        tree.add(
            f"{_title(link)}  {escape(spec['fromClusterRef']['name'])} to {escape(spec['toClusterRef']['name'])}, "
            f"{spec['capacityGbps']:g} Gbit/s, {'use unknown' if use is None else f'{float(use):.0%} of its share used'}"
        )
    for member in by_kind.get("MemberCluster", []):
        tree.add(f"{_title(member)}  Kubernetes {escape(str((member.get('status') or {}).get('version', 'unknown')))}")
    return tree


def _pods(environment: LocalEnvironment) -> list[Json]:
    """Return the pods of all members; those of a member that is away are left out."""
    found: list[Json] = []
    for cluster in environment.clusters.values():
        if cluster is environment.hub:
            continue
        try:
            text = cluster.kubectl(
                "get", "pods", "-A", "-l", "app.kubernetes.io/managed-by=prfaas", "-o", "json", "--request-timeout=5s"
            )
        except LocalClusterError:
            continue
        found += json.loads(text)["items"]
    return found


def _pools_of(route: Json) -> list[str]:
    spec = route["spec"]
    references = [spec["decodePoolRef"], spec.get("localPrefillPoolRef"), *(spec.get("remotePrefillPoolRefs") or [])]
    return [reference["name"] for reference in references if reference]


def _add_pool(branch: Tree, pool: Json, pods: list[Json]) -> None:
    status, spec = pool.get("status") or {}, pool["spec"]
    scaling = spec.get("scaling")
    bounds = f", scaled from {scaling['minReplicas']} to {scaling['maxReplicas']}" if scaling else ""
    own = branch.add(
        f"{_title(pool)}  in {escape(spec['clusterRef']['name'])}, {status.get('readyReplicas', 0)} of "
        f"{status.get('replicas', '?')} ready{bounds}"
    )
    _add_pods(
        own, [pod for pod in pods if pod["metadata"]["labels"].get("prfaas.dev/pool") == pool["metadata"]["name"]]
    )


def _add_pods(branch: Tree, pods: list[Json]) -> None:
    for pod in sorted(pods, key=lambda item: str(item["metadata"]["name"])):
        status = pod.get("status") or {}
        ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or [])
        restarts = sum(item.get("restartCount", 0) for item in status.get("containerStatuses") or [])
        again = f", {restarts} restarts" if restarts else ""
        colour = "green" if ready else "yellow"
        branch.add(f"[{colour}]pod[/] {escape(pod['metadata']['name'])} [dim]{status.get('podIP', '')}{again}[/]")


def _title(item: Json) -> str:
    ready = next(
        (one for one in (item.get("status") or {}).get("conditions") or [] if one["type"] == "Ready"),
        {"status": "Unknown", "reason": "Pending"},
    )
    colour = _COLOURS.get(ready["status"], "yellow")
    return f"[bold]{item['kind']}[/] {escape(item['metadata']['name'])} [{colour}]{escape(ready['reason'])}[/]"
