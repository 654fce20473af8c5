"""Install PrfaaS into an environment as a platform team would: the charts with helm, the objects with kubectl."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from prfaas_cli.environments import LocalCluster, LocalEnvironment
from prfaas_cli.manifests import KubeconfigSecret, Manifests
from prfaas_local.environment import HUB
from prfaas_local.errors import LocalClusterError

SYSTEM_NAMESPACE = "prfaas-system"
SERVICE_ACCOUNT = "prfaas-operator"
POD_LABELS = {"prfaas_pool": "prfaas.dev/pool", "prfaas_role": "prfaas.dev/role", "prfaas_route": "prfaas.dev/route"}
"""What the operator's queries select by; see docs/architecture.md."""
ROUTER_PORT = 8080
_POLL_S = 0.1


class Installation:
    """PrfaaS in an environment: charts in `charts`, objects in `manifests`."""

    def __init__(self, environment: LocalEnvironment, charts: Path, manifests: Manifests) -> None:
        self.environment = environment
        self._charts = charts
        self._manifests = manifests

    @property
    def link_capacity_bps(self) -> float:
        """What the link is said to carry, bit/s."""
        return self._manifests.link_capacity_bps

    @property
    def model(self) -> str:
        """The model that the route serves."""
        model: str = self._manifests.route["spec"]["model"]
        return model

    def install(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Install or upgrade the charts, then apply the manifests. Idempotent.

        Raises:
            LocalClusterError: helm or kubectl failed, with their words.
        """
        members = [cluster for name, cluster in self.environment.clusters.items() if name != HUB]
        hub = self.environment.hub
        with ThreadPoolExecutor(len(members) + 1) as threads:
            pending = [threads.submit(self._helm, cluster, "prfaas-member") for cluster in members]
            for namespace in self._manifests.namespaces:
                apply(hub, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            values = {
                "tenantNamespaces": list(self._manifests.namespaces),
                "prometheus": {"url": self.environment.prometheus_pod_url},
                "service": {"clusterIP": self.environment.hub_service_ip},
            }
            self._helm(hub, "prfaas", values)
            for one in pending:
                one.result()
        progress("charts are installed")
        for secret in self._manifests.kubeconfig_secrets:
            self._give_kubeconfig(secret)
        hub.kubectl("apply", "-f", str(self._manifests.folder))
        progress("manifests are applied")

    def wait_ready(self, deadline_s: float = 90.0, cancelled: Callable[[], bool] = lambda: False) -> str:
        """Wait until the route is ready and answers; return the base URL of its router.

        Raises:
            LocalClusterError: it does not get ready; the message has the conditions.
        """
        route = self._manifests.route["metadata"]
        end_s = time.monotonic() + deadline_s
        found: dict[str, Any] = {}
        while True:
            found = json.loads(
                self.environment.hub.kubectl("get", "iroute", route["name"], "-n", route["namespace"], "-o", "json")
            )
            conditions = {item["type"]: item for item in (found.get("status") or {}).get("conditions") or []}
            if conditions.get("Ready", {}).get("status") == "True" and (url := self._router_url()):
                return url
            if cancelled():
                raise LocalClusterError("waiting for the route was cancelled")
            if time.monotonic() > end_s:
                told = "; ".join(f"{kind}: {item['reason']} {item['message']}" for kind, item in conditions.items())
                raise LocalClusterError(
                    f"the route {route['name']} did not get ready: {told or 'the operator has not seen it'}. "
                    f"The logs of the pods are in {self.environment.pod_logs}"
                )
            time.sleep(_POLL_S)

    @property
    def router_service(self) -> tuple[str, str, str]:
        """Cluster, namespace and name of the Service by which clients reach the router."""
        route = self._manifests.route
        decode = route["spec"]["decodePoolRef"]["name"]
        cluster = next(
            item["spec"]["clusterRef"]["name"]
            for item in self._manifests.of_kind("DecodePool")
            if item["metadata"]["name"] == decode
        )
        return cluster, route["metadata"]["namespace"], f"{route['metadata']['name']}-router"

    def _router_url(self) -> str | None:
        """Return where clients find the router, once it answers there."""
        url = self.environment.service_url(*self.router_service, ROUTER_PORT)
        try:
            return url if httpx.get(f"{url}/ready", timeout=2, trust_env=False).is_success else None
        except httpx.TransportError:
            return None

    def _helm(self, cluster: LocalCluster, chart: str, values: dict[str, Any] | None = None) -> None:
        cluster.helm(
            "upgrade", "--install", chart, str(self._charts / chart), f"--namespace={SYSTEM_NAMESPACE}",
            "--create-namespace", "--values=-", stdin=json.dumps(values or {}),
        )  # fmt: skip

    def _give_kubeconfig(self, secret: KubeconfigSecret) -> None:
        """Put a token of the member's ServiceAccount into the Secret that its MemberCluster names."""
        member = self.environment.clusters.get(secret.cluster)
        if member is None:
            known = ", ".join(name for name in self.environment.clusters if name != HUB)
            raise LocalClusterError(f"MemberCluster {secret.cluster}: the local environment has {known}; rename it")
        content = member.token_kubeconfig(SYSTEM_NAMESPACE, SERVICE_ACCOUNT)
        apply(
            self.environment.hub,
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": secret.name, "namespace": secret.namespace},
                "data": {secret.key: base64.b64encode(content).decode()},
            },
        )


def apply(cluster: LocalCluster, document: dict[str, Any]) -> None:
    """Apply one object."""
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(document))
