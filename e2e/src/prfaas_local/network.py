"""The loopback ranges of clusters. All of 127.0.0.0/8 is this machine, so every cluster, pod and Service has addresses."""

from __future__ import annotations

from dataclasses import dataclass

API_SERVER_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259


@dataclass(frozen=True, slots=True)
class Network:
    """The ranges of one cluster: 127.`pods`.0.0/16 and 127.`services`.0.0/16."""

    pods: int
    services: int

    def __post_init__(self) -> None:
        for name, octet in (("pods", self.pods), ("services", self.services)):
            if not 1 <= octet <= 255:
                raise ValueError(f"{name} is {octet}; the second octet of a loopback range is from 1 to 255")
        if self.pods == self.services:
            raise ValueError(f"pods and services are both {self.pods}; they need ranges of their own")

    @property
    def pod_cidr(self) -> str:
        """The range of pod addresses."""
        return f"127.{self.pods}.0.0/16"

    @property
    def service_cidr(self) -> str:
        """The range of ClusterIPs."""
        return f"127.{self.services}.0.0/16"

    @property
    def control(self) -> str:
        """The address of the control plane's servers: the ClusterIP of the Service `kubernetes`, which nothing else gets."""
        return f"127.{self.services}.0.1"
