"""One Kubernetes control plane on loopback: etcd, API server, controller manager and scheduler, with TLS and RBAC."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from prfaas_local import binaries, processes
from prfaas_local.certificates import Authority, Certificate, kubeconfig, private_key_pem
from prfaas_local.errors import LocalClusterError

_POLL_S = 0.05
# The endpoint controllers are off, because EndpointSlices refuse loopback addresses: the service proxy selects pods by
# itself. The others have nothing to do without a cloud or without pod networks.
_CONTROLLERS = (
    "*,-nodeipam,-node-route-controller,-service-lb-controller,-cloud-node-lifecycle-controller,"
    "-endpointslice-controller,-endpointslice-mirroring-controller,-endpoints-controller"
)


@dataclass(frozen=True, slots=True)
class Network:
    """The loopback ranges of one cluster; every octet is the second of 127.x.0.0/16.

    Attributes:
        control: address of the control plane's servers.
        pods: of the pods' range.
        services: of the Services' range.
    """

    control: str
    pods: int
    services: int

    @property
    def pod_cidr(self) -> str:
        """The range of pod addresses."""
        return f"127.{self.pods}.0.0/16"

    @property
    def service_cidr(self) -> str:
        """The range of ClusterIPs."""
        return f"127.{self.services}.0.0/16"


class Cluster:
    """One cluster.

    Args:
        name: for messages and folders.
        folder: for state, certificates and logs; made when missing.
        network: its loopback ranges.
        mark: of all its processes; see `processes`.
    """

    def __init__(self, name: str, folder: Path, network: Network, mark: str) -> None:
        self.name = name
        self.folder = folder
        self.network = network
        self._mark = mark
        self._authority = Authority(f"{name}-ca")
        self.server = f"https://{network.control}:6443"
        self.children: dict[str, processes.Child] = {}

    @property
    def in_cluster_address(self) -> str:
        """HOST:PORT under which pods reach the API server."""
        return f"{self.network.control}:6443"

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig of a cluster administrator."""
        return self.folder / "admin.kubeconfig"

    def kubeconfig(self, user: str, groups: Sequence[str] = ()) -> bytes:
        """Return a kubeconfig with a client certificate for `user` in `groups`."""
        return self._authority.kubeconfig(self.server, user, groups)

    def token_kubeconfig(self, namespace: str, service_account: str, duration: str = "720h") -> bytes:
        """Return a kubeconfig with a token of a ServiceAccount."""
        token = self.kubectl("create", "token", service_account, f"--namespace={namespace}", f"--duration={duration}")
        return kubeconfig(self.server, self._authority.certificate, {"token": token.strip()})

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run the real kubectl as administrator and return its output.

        Raises:
            LocalClusterError: it failed; the message is kubectl's own.
        """
        done = subprocess.run(
            [str(binaries.find("kubectl")), f"--kubeconfig={self.admin_kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode != 0:
            raise LocalClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def start(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Start etcd and the API server; `wait_ready` does the rest."""
        self._write_files()
        self._start(("etcd", "kube-apiserver"), progress)

    def _start(self, names: Iterable[str], progress: Callable[[str], None] = lambda _: None) -> None:
        for name in names:
            if name not in self.children:
                command: list[str | Path] = [binaries.find(name, progress), *self._arguments(name)]
                # GOGC trades a little CPU for a lot less memory, of which three control planes take most.
                environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder), "GOGC": "60"}
                log = self.folder / "logs" / f"{name}.log"
                self.children[name] = processes.Child(f"{self.name} {name}", command, log, environment, self._mark)
            self.children[name].start()

    def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Wait until the API server is ready, start what needs its RBAC, and wait until that works."""
        end_s = time.monotonic() + deadline_s
        with httpx.Client(verify=self._client_context(), trust_env=False, timeout=5) as client:
            self._until(lambda: client.get(f"{self.server}/readyz").status_code == 200, end_s, "the API server")
            self._start(("kube-controller-manager", "kube-scheduler"))
            path = f"{self.server}/api/v1/namespaces/default"
            self._until(
                lambda: (
                    client.get(f"{path}/serviceaccounts/default").status_code == 200
                    and client.get(f"{path}/configmaps/kube-root-ca.crt").status_code == 200
                ),
                end_s,
                "the controller manager",
            )

    def stop(self, grace_s: float = 5.0) -> None:
        """Stop all processes, clients before servers."""
        processes.stop_all(
            (child for name, child in self.children.items() if name not in ("etcd", "kube-apiserver")), grace_s
        )
        processes.stop_all((child for name, child in self.children.items() if name == "kube-apiserver"), grace_s)
        processes.stop_all(self.children.values(), grace_s)

    def _until(self, condition: Callable[[], bool], end_s: float, what: str) -> None:
        while True:
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            for child in self.children.values():
                child.check()
            if time.monotonic() > end_s:
                tails = "\n".join(child.tail(4) for child in self.children.values())
                raise LocalClusterError(
                    f"{what} of {self.name} did not get ready; the logs are in {self.folder / 'logs'}:\n{tails}"
                )
            time.sleep(_POLL_S)

    def _client_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self._authority.certificate.decode())
        context.load_cert_chain(self.folder / "pki" / "admin.crt", self.folder / "pki" / "admin.key")
        return context

    def _write_files(self) -> None:
        pki = self.folder / "pki"
        pki.mkdir(parents=True, exist_ok=True)
        first_service = f"127.{self.network.services}.0.1"
        hosts = [
            self.network.control,
            first_service,
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ]
        signing = ec.generate_private_key(ec.SECP256R1())
        public = signing.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _write(pki / "ca.crt", self._authority.certificate)
        _write(pki / "service-account.key", private_key_pem(signing))
        _write(pki / "service-account.pub", public)
        _write_pair(pki, "server", self._authority.server("kube-apiserver", hosts))
        _write_pair(pki, "etcd", self._authority.server("etcd", [self.network.control]))
        _write_pair(pki, "etcd-client", self._authority.client("kube-apiserver-etcd-client"))
        _write_pair(pki, "admin", self._authority.client("admin", ["system:masters"]))
        _write(self.admin_kubeconfig, self._authority.kubeconfig(self.server, "admin", ["system:masters"]))
        for user in ("kube-controller-manager", "kube-scheduler"):
            _write(self.folder / f"{user}.kubeconfig", self._authority.kubeconfig(self.server, f"system:{user}"))

    def _arguments(self, name: str) -> Iterable[str]:
        pki, control = self.folder / "pki", self.network.control
        if name == "etcd":
            return [
                f"--name={self.name}", f"--data-dir={self.folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn", "--enable-grpc-gateway=false",
                f"--listen-client-urls=https://{control}:2379", f"--advertise-client-urls=https://{control}:2379",
                f"--listen-peer-urls=http://{control}:2380", f"--initial-advertise-peer-urls=http://{control}:2380",
                f"--initial-cluster={self.name}=http://{control}:2380", f"--cert-file={pki / 'etcd.crt'}",
                f"--key-file={pki / 'etcd.key'}", "--client-cert-auth", f"--trusted-ca-file={pki / 'ca.crt'}",
            ]  # fmt: skip
        if name == "kube-apiserver":
            return [
                f"--etcd-servers=https://{control}:2379", f"--etcd-cafile={pki / 'ca.crt'}",
                f"--etcd-certfile={pki / 'etcd-client.crt'}", f"--etcd-keyfile={pki / 'etcd-client.key'}",
                f"--bind-address={control}", "--secure-port=6443", f"--tls-cert-file={pki / 'server.crt'}",
                f"--tls-private-key-file={pki / 'server.key'}", f"--client-ca-file={pki / 'ca.crt'}",
                "--authorization-mode=RBAC", f"--service-cluster-ip-range={self.network.service_cidr}",
                "--service-account-issuer=https://kubernetes.default.svc", "--endpoint-reconciler-type=none",
                f"--service-account-key-file={pki / 'service-account.pub'}", "--allow-privileged=true",
                f"--service-account-signing-key-file={pki / 'service-account.key'}", "--profiling=false",
                "--shutdown-delay-duration=0s",
            ]  # fmt: skip
        common = [
            f"--kubeconfig={self.folder / f'{name}.kubeconfig'}", f"--authentication-kubeconfig={self.folder / f'{name}.kubeconfig'}",
            f"--authorization-kubeconfig={self.folder / f'{name}.kubeconfig'}", f"--bind-address={control}",
            "--leader-elect=false", "--profiling=false",
        ]  # fmt: skip
        if name == "kube-scheduler":
            return common
        return [
            *common, f"--controllers={_CONTROLLERS}", "--use-service-account-credentials", f"--root-ca-file={pki / 'ca.crt'}",
            f"--service-account-private-key-file={pki / 'service-account.key'}",
        ]  # fmt: skip


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _write_pair(folder: Path, name: str, pair: Certificate) -> None:
    _write(folder / f"{name}.crt", pair.certificate)
    _write(folder / f"{name}.key", pair.key)
