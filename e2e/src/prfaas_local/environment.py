"""A whole environment on loopback: a hub and members with a node each, a shaped link between the members, and Prometheus.

| second octet of 127.x.0.0/16 | what it is |
| --- | --- |
| 9 | Prometheus at 127.9.0.1:9090, the link's control API at 127.9.0.2:9100 |
| 10 and 11, 20 and 21, 30 and 31 | pods and Services of hub, `east` and `west` |
| 130 | pods of `west` as `east` sees them, through the link |

The addresses are fixed, because objects name some of them; so one environment runs on a machine at a time, and a second one is
refused with the address that is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx

from prfaas_local import binaries, prometheus
from prfaas_local.certificates import write_private
from prfaas_local.cluster import CLIENT_STAGE, Cluster
from prfaas_local.components import Component, Supervisor, program
from prfaas_local.errors import LocalClusterError
from prfaas_local.network import Network
from prfaas_local.rights import NODES, POD_READERS
from prfaas_local.supervisor import Specification

HUB, NEAR, FAR = "hub", "east", "west"
NETWORKS = {HUB: Network(10, 11), NEAR: Network(20, 21), FAR: Network(30, 31)}
TRANSLATED_CIDR = "127.130.0.0/16"
"""Where pods of `FAR` appear in `NEAR`."""
PROMETHEUS_ADDRESS = "127.9.0.1:9090"
LINK_ADDRESS = "127.9.0.2:9100"
NODE_STAGE = CLIENT_STAGE + 1
_POLL_S = 0.05

Progress = Callable[[str], None]
Cancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be chosen of an environment.

    Attributes:
        link_capacity_bps: of each direction, bit/s.
        link_delay_s: one way, seconds.
        pod_labels: label of the samples to label of the pod that it is copied from.
        scrape_interval_s: time between two scrapes.
        capacity: of each Node, beside what the machine has: resource to quantity.
    """

    link_capacity_bps: float
    link_delay_s: float
    pod_labels: Mapping[str, str]
    scrape_interval_s: float = 1.0
    capacity: Mapping[str, str] | None = None


class Environment:
    """The environment whose state is in `folder`. Making the object starts nothing.

    Components start again when they end on their own, as a service manager or a kubelet would start them.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.supervisor = Supervisor(folder)
        self.clusters = {
            name: Cluster(name, folder / name, network, self.supervisor, restart=True)
            for name, network in NETWORKS.items()
        }
        self.nodes = {name: self._node(cluster) for name, cluster in self.clusters.items()}
        self.link = self._link()

    @property
    def hub(self) -> Cluster:
        """The cluster with the objects."""
        return self.clusters[HUB]

    @property
    def prometheus_url(self) -> str:
        """Base URL of Prometheus."""
        return f"http://{PROMETHEUS_ADDRESS}"

    @property
    def prometheus_pod_url(self) -> str:
        """Base URL of Prometheus as pods of the hub reach it, which is the same here."""
        return self.prometheus_url

    @property
    def hub_service_ip(self) -> str:
        """An address for a Service of the hub that has to be known in advance."""
        return f"127.{self.hub.network.services}.1.1"

    @property
    def pod_logs(self) -> str:
        """Where the output of pods is, for messages."""
        return f"{self.folder}/*/node/pods"

    @property
    def link_url(self) -> str:
        """Base URL of the link's control API."""
        return f"http://{LINK_ADDRESS}"

    def start(self, progress: Progress = lambda _: None, cancelled: Cancelled = lambda: False) -> None:
        """Start everything and wait until it is ready. Left to `detach`, it ends with this process.

        Raises:
            LocalClusterError: a program cannot be had, an address is taken, or something does not get ready.
        """
        for module in binaries.MODULES:
            binaries.find(module.names[0], progress)
        self.supervisor.start()
        for cluster in self.clusters.values():
            cluster.start()

        def bring_up(cluster: Cluster) -> None:
            cluster.wait_ready(120.0, progress, cancelled)
            self._write_kubeconfigs(cluster)
            self.nodes[cluster.name].start()

        with ThreadPoolExecutor(len(self.clusters)) as threads:
            list(threads.map(bring_up, self.clusters.values()))
        (self.folder / "prometheus").mkdir(exist_ok=True)
        self._prometheus_file.write_text(self._prometheus_configuration(), encoding="utf-8")
        self.prometheus.start()
        self.link.start()
        self._wait_answers(f"{self.prometheus_url}/-/ready", self.prometheus, cancelled)
        self._wait_answers(f"{self.link_url}/ready", self.link, cancelled)
        progress("link and Prometheus are ready")

    def check_running(self) -> None:
        """Raise `LocalClusterError` when it does not run."""
        self.supervisor.status()

    def detach(self) -> None:
        """Let the environment go on when this process ends."""
        self.supervisor.detach()

    def service_url(self, cluster: str, namespace: str, name: str, port: int) -> str:
        """Return the base URL by which this machine reaches a Service.

        Raises:
            LocalClusterError: there is no such Service.
        """
        address = self.clusters[cluster].kubectl(
            "get", "service", name, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}"
        )
        return f"http://{address}:{port}"

    def close(self) -> None:
        """Let go of what only this process needs, which is nothing: Services have addresses of this machine."""

    def stop(self, grace_s: float = 5.0) -> int:
        """Stop everything, pods too; return how many processes were left over and had to be looked for."""
        return self.supervisor.shutdown(grace_s)

    @property
    def _prometheus_file(self) -> Path:
        return self.folder / "prometheus" / "prometheus.yaml"

    def _write_kubeconfigs(self, cluster: Cluster) -> None:
        for user, group in ((f"system:node:{cluster.name}", NODES), (POD_READERS, POD_READERS)):
            path = self._kubeconfig(cluster, user)
            if not path.exists():
                write_private(path, cluster.kubeconfig(user, [group]))

    @staticmethod
    def _kubeconfig(cluster: Cluster, user: str) -> Path:
        return cluster.folder / f"{user.replace(':', '-')}.kubeconfig"

    def _node(self, cluster: Cluster) -> Component:
        capacity = [f"--capacity={name}={amount}" for name, amount in (self.settings.capacity or {}).items()]
        return self._component(
            f"{cluster.name}/node-agent",
            [
                *program("prfaas-node-agent"),
                f"--kubeconfig={self._kubeconfig(cluster, f'system:node:{cluster.name}')}",
                f"--name={cluster.name}",
                f"--pod-cidr={cluster.network.pod_cidr}",
                f"--state-dir={cluster.folder / 'node'}",
                *capacity,
            ],
            cluster.folder / "logs" / "node-agent.log",
            NODE_STAGE,
        )

    def _link(self) -> Component:
        far = self.clusters[FAR]
        return self._component(
            "link",
            [
                *program("prfaas-link"),
                f"--kubeconfig={self._kubeconfig(far, POD_READERS)}",
                f"--pod-cidr={far.network.pod_cidr}",
                f"--translated-cidr={TRANSLATED_CIDR}",
                f"--control-address={LINK_ADDRESS}",
                f"--capacity-bps={self.settings.link_capacity_bps:g}",
                f"--delay-s={self.settings.link_delay_s:g}",
            ],
            self.folder / "logs" / "link.log",
            CLIENT_STAGE,
        )

    @cached_property
    def prometheus(self) -> Component:
        """Prometheus, whose program may have to be built first."""
        arguments = prometheus.arguments(self._prometheus_file, self.folder / "prometheus" / "data", PROMETHEUS_ADDRESS)
        command = [str(binaries.find("prometheus")), *arguments]
        return self._component("prometheus", command, self.folder / "logs" / "prometheus.log", CLIENT_STAGE)

    def _prometheus_configuration(self) -> str:
        return prometheus.configuration(
            [
                prometheus.PodSource(cluster.name, self._kubeconfig(cluster, POD_READERS))
                for cluster in self.clusters.values()
            ],
            pod_labels=self.settings.pod_labels,
            static=[prometheus.StaticJob("link", [LINK_ADDRESS])],
            interval_s=self.settings.scrape_interval_s,
        )

    def _component(self, name: str, command: Sequence[str], log: Path, stage: int) -> Component:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "GOGC": "60"}
        return self.supervisor.component(
            Specification(name, list(command), environment, str(log), restart=True, stage=stage)
        )

    def _wait_answers(self, url: str, component: Component, cancelled: Cancelled, deadline_s: float = 30.0) -> None:
        end_s = time.monotonic() + deadline_s
        while True:
            try:
                if httpx.get(url, timeout=2, trust_env=False).is_success:
                    return
            except httpx.TransportError:
                pass
            if cancelled():
                raise LocalClusterError(f"waiting for {component.name} was cancelled")
            component.check()
            if time.monotonic() > end_s:
                raise LocalClusterError(f"{component.name} does not answer at {url}:\n{component.tail()}")
            time.sleep(_POLL_S)
