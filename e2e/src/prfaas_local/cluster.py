"""One Kubernetes control plane on loopback: etcd, API server, controller manager and scheduler, with TLS and RBAC."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import httpx

from prfaas_local import binaries, flags, rights
from prfaas_local.certificates import Authority, kubeconfig
from prfaas_local.clients import Clients
from prfaas_local.components import Component, Supervisor
from prfaas_local.control_plane_files import write_control_plane_files
from prfaas_local.errors import LocalClusterError
from prfaas_local.network import API_SERVER_PORT, ETCD_PEER_PORT, ETCD_PORT, Network
from prfaas_local.supervisor import Specification

STORAGE_STAGE, API_STAGE, CLIENT_STAGE = 0, 1, 2
"""Stages of a cluster's components: those of a higher stage use those of a lower one and are stopped first."""
_POLL_S = 0.05
# Collecting sooner than by default trades a little CPU for a lot of memory, of which three control planes take most.
_GO_ENVIRONMENT = {"GOGC": "60"}


class Cluster:
    """One cluster. Making the object starts nothing, so a cluster that runs is looked at through a new object too.

    Args:
        name: for messages, folders and the kubeconfig's context.
        folder: for state, certificates and logs; made when missing.
        network: its loopback ranges.
        supervisor: which owns its processes.
        restart: whether its processes are started again when they end on their own.
        autoscaler_sync_s: time between two decisions of a HorizontalPodAutoscaler.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        network: Network,
        supervisor: Supervisor,
        *,
        restart: bool = False,
        autoscaler_sync_s: float = flags.AUTOSCALER_SYNC_S,
    ) -> None:
        self.name = name
        self.folder = folder
        self.network = network
        self._supervisor = supervisor
        self._restart = restart
        self._autoscaler_sync_s = autoscaler_sync_s
        self.server = f"https://{self.in_cluster_address}"

    @property
    def in_cluster_address(self) -> str:
        """HOST:PORT under which pods reach the API server; its certificate is valid for the host."""
        return f"{self.network.control}:{API_SERVER_PORT}"

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig of a cluster administrator."""
        return self.folder / "admin.kubeconfig"

    @cached_property
    def children(self) -> dict[str, Component]:
        """The components by the names of their programs."""
        folder, network = self.folder, self.network
        return {
            "etcd": self.component("etcd", flags.etcd(self.name, folder, network), STORAGE_STAGE),
            "kube-apiserver": self.component("kube-apiserver", flags.kube_apiserver(folder, network), API_STAGE),
            "kube-controller-manager": self.component(
                "kube-controller-manager",
                flags.kube_controller_manager(folder, network, autoscaler_sync_s=self._autoscaler_sync_s),
                CLIENT_STAGE,
            ),
            "kube-scheduler": self.component("kube-scheduler", flags.kube_scheduler(folder, network), CLIENT_STAGE),
        }

    @property
    def etcd(self) -> Component:
        """The store."""
        return self.children["etcd"]

    @property
    def apiserver(self) -> Component:
        """The API server, to be killed and started again: its objects are in etcd."""
        return self.children["kube-apiserver"]

    def component(self, program: str, arguments: Sequence[str], stage: int) -> Component:
        """Return a component of this cluster that runs one of the programs of `binaries`."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), **_GO_ENVIRONMENT}
        return self._supervisor.component(
            Specification(
                name=f"{self.name}/{program}",
                command=[str(binaries.find(program)), *arguments],
                environment=environment,
                log=str(self.folder / "logs" / f"{program}.log"),
                restart=self._restart,
                stage=stage,
            )
        )

    def kubeconfig(self, user: str, groups: Sequence[str] = ()) -> bytes:
        """Return a kubeconfig with a client certificate for `user` in `groups`."""
        return self._authority.kubeconfig(self.server, user, groups, name=self.name)

    def token_kubeconfig(self, namespace: str, service_account: str, duration: str = "720h") -> bytes:
        """Return a kubeconfig with a token of a ServiceAccount."""
        token = self._clients.token(namespace, service_account, duration)
        return kubeconfig(self.server, self._authority.certificate, {"token": token}, name=self.name)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run the real kubectl as administrator; see `Clients.kubectl`."""
        return self._clients.kubectl(*arguments, stdin=stdin)

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Run helm as administrator; see `Clients.helm`."""
        return self._clients.helm(*arguments, stdin=stdin)

    def start(self) -> None:
        """Start etcd and the API server; `wait_ready` does the rest.

        Raises:
            LocalClusterError: one of its ports is taken.
        """
        for port in (API_SERVER_PORT, ETCD_PORT, ETCD_PEER_PORT):
            _check_free(self.network.control, port)
        write_control_plane_files(self.folder, self._authority, self.network, self.name, self.server)
        self.etcd.start()
        self.apiserver.start()

    def wait_ready(
        self, deadline_s: float = 60.0, progress: Callable[[str], None] = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """Wait until the API server is ready, start what needs its RBAC, and wait until that works.

        Args:
            deadline_s: of all of it.
            progress: called with a line for each step.
            cancelled: asked all the time; when it says so, waiting ends with an error.

        Raises:
            LocalClusterError: a component ended, the deadline passed, or waiting was cancelled.
        """
        end_s = time.monotonic() + deadline_s
        with self.client() as client:

            def until(paths: Sequence[str], what: str) -> None:
                self._until(lambda: all(client.get(path).is_success for path in paths), end_s, what, cancelled)
                progress(f"{self.name}: {what} is ready")

            until(["/readyz"], "API server")
            rights.grant(client)
            self.children["kube-controller-manager"].start()
            self.children["kube-scheduler"].start()
            namespace = "/api/v1/namespaces/default"
            until([f"{namespace}/serviceaccounts/default", f"{namespace}/configmaps/kube-root-ca.crt"], "control plane")

    def client(self) -> httpx.Client:
        """Return an HTTP client of the API server as administrator, for use as a context manager."""
        context = ssl.create_default_context(cadata=self._authority.certificate.decode())
        context.load_cert_chain(self.folder / "pki" / "admin.crt", self.folder / "pki" / "admin.key")
        return httpx.Client(base_url=self.server, verify=context, trust_env=False, timeout=5)

    def stop(self, grace_s: float = 5.0) -> None:
        """Stop all processes, clients before servers. State stays; `start` brings the cluster back."""
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            self.children[name].stop(grace_s)

    @property
    def _clients(self) -> Clients:
        return Clients(self.admin_kubeconfig)

    @cached_property
    def _authority(self) -> Authority:
        return Authority.kept(self.folder / "pki", f"{self.name}-ca")

    def _until(self, condition: Callable[[], bool], end_s: float, what: str, cancelled: Callable[[], bool]) -> None:
        while True:
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            if cancelled():
                raise LocalClusterError(f"waiting for the {what} of {self.name} was cancelled")
            for child in self.children.values():
                child.check()
            if time.monotonic() > end_s:
                tails = "\n".join(child.tail(4) for child in self.children.values())
                raise LocalClusterError(
                    f"the {what} of {self.name} did not get ready; the logs are in {self.folder / 'logs'}:\n{tails}"
                )
            time.sleep(_POLL_S)


def _check_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LocalClusterError(
                f"{host}:{port} cannot be used: {error.strerror}. Another environment may run there: "
                "stop it, or take another offset"
            ) from error
