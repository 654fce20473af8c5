"""The Node object and its heartbeat."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Mapping

from prfaas_local.node.apiserver import (
    MERGE_PATCH,
    STRATEGIC_MERGE_PATCH,
    ApiError,
    ApiServer,
    ApiUnavailableError,
    Json,
    retry_delays,
)
from prfaas_local.node.context import now, now_timestamp

logger = logging.getLogger(__name__)

LEASE_DURATION_S = 40
RENEW_PERIOD_S = 10.0
STATUS_PERIOD_S = 300.0
"""The node's status is sent this often without a change; the Lease carries the heartbeat."""


class NodeRegistration:
    """Keeps the Node registered and its Lease renewed. The Node stays when the agent ends, as with a kubelet."""

    def __init__(self, api: ApiServer, name: str, address: str, pod_cidr: str, capacity: Mapping[str, str]) -> None:
        self._api = api
        self._name = name
        self._address = address
        self._pod_cidr = pod_cidr
        self._capacity = dict(capacity)
        self._ready_since = now_timestamp()

    async def register(self) -> None:
        """Create the Node, or take over the one of an earlier agent. Retries until the API server answers."""
        node: Json = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self._name,
                "labels": {
                    "kubernetes.io/hostname": self._name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": _architecture(),
                },
            },
            "spec": {"podCIDR": self._pod_cidr, "podCIDRs": [self._pod_cidr]},
        }
        async for _ in retry_delays():
            try:
                try:
                    await self._api.request("POST", "/api/v1/nodes", body=node)
                except ApiError as error:
                    if error.status != 409:
                        raise
                await self._send_status()
                # Taints of an earlier absence go with the first heartbeat; the controller manager removes them.
                await self._renew_lease()
            except (ApiError, ApiUnavailableError) as error:
                logger.warning("cannot register node %s yet: %s", self._name, error)
            else:
                logger.info("registered node %s", self._name)
                return

    async def heartbeat(self) -> None:
        """Renew the Lease every 10 s and the status every 5 min until cancelled."""
        status_due_s = STATUS_PERIOD_S
        loop = asyncio.get_running_loop()
        sent_s = loop.time()
        while True:
            await asyncio.sleep(RENEW_PERIOD_S)
            try:
                await self._renew_lease()
                if loop.time() - sent_s >= status_due_s:
                    await self._send_status()
                    sent_s = loop.time()
            except ApiError as error:
                if error.status == 404:
                    await self.register()
                else:
                    logger.warning("heartbeat: %s", error)
            except ApiUnavailableError as error:
                # After an absence the controllers may have marked the node unreachable: say at once that it is not.
                sent_s = -STATUS_PERIOD_S
                logger.debug("heartbeat: %s", error)

    async def _send_status(self) -> None:
        await self._api.request(
            "PATCH",
            f"/api/v1/nodes/{self._name}/status",
            body={"status": self._status()},
            content_type=STRATEGIC_MERGE_PATCH,
        )

    def _status(self) -> Json:
        heartbeat = now_timestamp()
        conditions = [
            ("Ready", "True", "KubeletReady", "the node agent is posting ready status"),
            ("MemoryPressure", "False", "KubeletHasSufficientMemory", "not measured"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "not measured"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "not measured"),
        ]
        return {
            "capacity": self._capacity,
            "allocatable": self._capacity,
            "addresses": [
                {"type": "InternalIP", "address": self._address},
                {"type": "Hostname", "address": self._name},
            ],
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": heartbeat,
                    "lastTransitionTime": self._ready_since,
                }
                for kind, status, reason, message in conditions
            ],
            "nodeInfo": {
                "architecture": _architecture(),
                "bootID": "",
                "containerRuntimeVersion": "process://1",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.36.0",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "local processes",
                "systemUUID": "",
            },
        }

    async def _renew_lease(self) -> None:
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        spec = {
            "holderIdentity": self._name,
            "leaseDurationSeconds": LEASE_DURATION_S,
            "renewTime": now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        try:
            await self._api.request("PATCH", f"{path}/{self._name}", body={"spec": spec}, content_type=MERGE_PATCH)
        except ApiError as error:
            if error.status != 404:
                raise
            node = await self._api.request("GET", f"/api/v1/nodes/{self._name}")
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": node["metadata"]["uid"]}
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": "kube-node-lease", "ownerReferences": [owner]},
                "spec": spec,
            }
            await self._api.request("POST", path, body=lease)


def machine_capacity() -> dict[str, str]:
    """Return what this machine has, as a node's capacity."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory_bytes // 1024}Ki",
        "ephemeral-storage": "16Gi",
        "pods": "110",
    }


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
