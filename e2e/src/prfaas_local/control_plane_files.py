"""The files that a control plane starts from: certificates, keys and kubeconfigs."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from prfaas_local.certificates import Authority, Certificate, private_key_pem, write_private
from prfaas_local.network import Network

CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
FRONT_PROXY = "front-proxy-client"
"""As whom the API server reaches the servers of aggregated APIs."""


def write_control_plane_files(folder: Path, authority: Authority, network: Network, name: str, server: str) -> None:
    """Write what is not there yet, so that a cluster that is started again knows its old tokens and certificates."""
    pki = folder / "pki"
    _write_front_proxy_files(pki, name)
    if (folder / "admin.kubeconfig").exists():
        return
    host = network.control
    signing = ec.generate_private_key(ec.SECP256R1())
    public = signing.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    write_private(pki / "service-account.key", private_key_pem(signing))
    write_private(pki / "service-account.pub", public)
    _write_pair(pki, "server", authority.server("kube-apiserver", [host, *names]))
    _write_pair(pki, "etcd", authority.server("etcd", [host], client=True))
    _write_pair(pki, "etcd-client", authority.client("kube-apiserver-etcd-client"))
    _write_pair(pki, "admin", authority.client("admin", ["system:masters"]))
    for user in CONTROLLERS:
        _write_pair(pki, user, authority.server(user, [host]))
        write_private(folder / f"{user}.kubeconfig", authority.kubeconfig(server, f"system:{user}", name=name))
    write_private(
        folder / "admin.kubeconfig", authority.kubeconfig(server, "admin", ["system:masters"], name=name)
    )  # fmt: skip


def _write_front_proxy_files(pki: Path, name: str) -> None:
    """Write the certificate that aggregated APIs know the API server by.

    Its authority signs nothing else: whoever has a certificate of it may say on whose behalf it asks.
    """
    if (pki / f"{FRONT_PROXY}.key").exists():
        return
    authority = Authority(f"{name}-front-proxy-ca")
    write_private(pki / "front-proxy-ca.crt", authority.certificate)
    _write_pair(pki, FRONT_PROXY, authority.client(FRONT_PROXY))


def _write_pair(folder: Path, name: str, pair: Certificate) -> None:
    write_private(folder / f"{name}.crt", pair.certificate)
    write_private(folder / f"{name}.key", pair.key)
