"""One real control plane with a node agent, for all tests here."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prfaas_local.certificates import write_private
from prfaas_local.cluster import CLIENT_STAGE, Cluster
from prfaas_local.components import Component, Supervisor, program
from prfaas_local.errors import LocalClusterError
from prfaas_local.rights import NODES
from prfaas_local.supervisor import Specification
from prfaas_local.testing import free_network

Json = dict[str, Any]


class Node:
    """A cluster and its only node, as a test works on them."""

    def __init__(self, cluster: Cluster, agent: Component) -> None:
        self.cluster = cluster
        self.agent = agent

    def apply(self, *objects: Json) -> None:
        self.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str) -> Json:
        found: Json = json.loads(self.cluster.kubectl("get", kind, name, "-o", "json"))
        return found

    def status(self, name: str, container: str = "main") -> Json:
        """The status of a container; empty before there is one."""
        status = self.get("pod", name).get("status") or {}
        every = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
        return next((item for item in every if item["name"] == container), {})

    def ready(self, name: str) -> bool:
        conditions = self.get("pod", name).get("status", {}).get("conditions") or []
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def address(self, name: str) -> str:
        address: str = self.get("pod", name)["status"]["podIP"]
        return address

    def gone(self, kind: str, name: str) -> bool:
        return not self.cluster.kubectl("get", kind, name, "--ignore-not-found", "-o", "name")

    def log(self, name: str, container: str = "main", attempt: int = 0) -> str:
        uid = self.get("pod", name)["metadata"]["uid"]
        path = self.state_dir / "pods" / f"default_{name}_{uid}" / container / f"{attempt}.log"
        return path.read_text() if path.exists() else ""

    @property
    def state_dir(self) -> Path:
        return self.cluster.folder / "node"

    def delete(self, *what: str) -> None:
        self.cluster.kubectl("delete", *what, "--wait=false", "--ignore-not-found")

    def wait(self, condition: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
        end_s = time.monotonic() + deadline_s
        while True:
            try:
                if condition():
                    return
            except LocalClusterError:
                pass
            assert time.monotonic() < end_s, f"{what}; the agent said:\n{self.agent.tail(20)}"
            time.sleep(0.05)


def pod(name: str, script: str, *, labels: dict[str, str] | None = None, **spec: Any) -> Json:
    """A pod whose only container runs a Python script; further fields of container `main` go by `container`."""
    container = {"name": "main", "image": "none", "command": ["python", "-c", script], **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 5, **spec},
    }


@pytest.fixture(scope="session")
def make_pod() -> Callable[..., Json]:
    """Return a pod object; see `pod`."""
    return pod


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A running cluster whose node is ready."""
    folder = tmp_path_factory.mktemp("node")
    with free_network() as network:
        supervisor = Supervisor(folder)
        cluster = Cluster("test", folder, network, supervisor)
        kubeconfig = folder / "node.kubeconfig"
        agent = supervisor.component(
            Specification(
                name="node-agent",
                command=[
                    *program("prfaas-node-agent"), f"--kubeconfig={kubeconfig}", "--name=one",
                    f"--pod-cidr={network.pod_cidr}", f"--state-dir={folder / 'node'}", "--capacity=nvidia.com/gpu=8",
                    "--crash-backoff-base-s=0.5", "--crash-backoff-limit-s=2", "--log-level=debug",
                ],
                environment=dict(os.environ),
                log=str(folder / "logs" / "node-agent.log"),
                restart=False,
                stage=CLIENT_STAGE + 1,
            )
        )  # fmt: skip
        try:
            supervisor.start()
            cluster.start()
            cluster.wait_ready()
            write_private(kubeconfig, cluster.kubeconfig("system:node:one", [NODES]))
            agent.start()
            found = Node(cluster, agent)
            found.wait(lambda: "True" in cluster.kubectl("get", "node", "one", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"), "the node")  # fmt: skip
            yield found
        finally:
            supervisor.shutdown(grace_s=0)
