"""The command lines of the control plane's programs."""

from __future__ import annotations

from pathlib import Path

from prfaas_local.control_plane_files import FRONT_PROXY
from prfaas_local.network import (
    API_SERVER_PORT,
    CONTROLLER_MANAGER_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    SCHEDULER_PORT,
    Network,
)

# The endpoint controllers are off, because EndpointSlices refuse loopback addresses: the service proxy selects pods by
# itself. The others have nothing to do without a cloud or without pod networks.
_CONTROLLERS = (
    "*,-nodeipam,-node-route-controller,-service-lb-controller,-cloud-node-lifecycle-controller,"
    "-endpointslice-controller,-endpointslice-mirroring-controller,-endpoints-controller"
)
AUTOSCALER_SYNC_S = 15.0
"""Time between two decisions of a HorizontalPodAutoscaler: Kubernetes' default. Tests wait for less."""


def etcd(name: str, folder: Path, network: Network) -> list[str]:
    """Return the arguments of etcd. It does not sync to disk: its state has to outlive processes, not the machine."""
    pki, host = folder / "pki", network.control
    client, peer = f"https://{host}:{ETCD_PORT}", f"https://{host}:{ETCD_PEER_PORT}"
    return [
        f"--name={name}",
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--enable-grpc-gateway=false",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--cert-file={pki / 'etcd.crt'}",
        f"--key-file={pki / 'etcd.key'}",
        "--client-cert-auth",
        f"--trusted-ca-file={pki / 'ca.crt'}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={name}={peer}",
        f"--peer-cert-file={pki / 'etcd.crt'}",
        f"--peer-key-file={pki / 'etcd.key'}",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={pki / 'ca.crt'}",
    ]


def kube_apiserver(folder: Path, network: Network) -> list[str]:
    """Return the arguments of the API server. It serves aggregated APIs by the ClusterIPs of their Services."""
    pki, host = folder / "pki", network.control
    return [
        f"--etcd-servers=https://{host}:{ETCD_PORT}",
        f"--etcd-cafile={pki / 'ca.crt'}",
        f"--etcd-certfile={pki / 'etcd-client.crt'}",
        f"--etcd-keyfile={pki / 'etcd-client.key'}",
        f"--bind-address={host}",
        f"--secure-port={API_SERVER_PORT}",
        f"--tls-cert-file={pki / 'server.crt'}",
        f"--tls-private-key-file={pki / 'server.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={network.service_cidr}",
        "--endpoint-reconciler-type=none",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        f"--requestheader-allowed-names={FRONT_PROXY}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        "--profiling=false",
        "--shutdown-delay-duration=0s",
    ]


def kube_controller_manager(
    folder: Path, network: Network, *, autoscaler_sync_s: float = AUTOSCALER_SYNC_S
) -> list[str]:
    """Return the arguments of the controller manager; HorizontalPodAutoscalers decide every `autoscaler_sync_s`."""
    pki = folder / "pki"
    return [
        *_client("kube-controller-manager", folder, network, CONTROLLER_MANAGER_PORT),
        f"--controllers={_CONTROLLERS}",
        "--use-service-account-credentials",
        f"--horizontal-pod-autoscaler-sync-period={autoscaler_sync_s:g}s",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
    ]


def kube_scheduler(folder: Path, network: Network) -> list[str]:
    """Return the arguments of the scheduler."""
    return _client("kube-scheduler", folder, network, SCHEDULER_PORT)


def _client(name: str, folder: Path, network: Network, port: int) -> list[str]:
    kubeconfig = folder / f"{name}.kubeconfig"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={network.control}",
        f"--secure-port={port}",
        f"--tls-cert-file={folder / 'pki' / f'{name}.crt'}",
        f"--tls-private-key-file={folder / 'pki' / f'{name}.key'}",
        "--leader-elect=false",
        "--profiling=false",
    ]
