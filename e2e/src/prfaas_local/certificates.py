"""The certificates of one cluster: an authority, and what it signs for servers and clients."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from prfaas_local.errors import LocalClusterError

_VALID = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, both in PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A certificate authority of one cluster."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self._certificate = (
            _builder(subject, subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @classmethod
    def kept(cls, folder: Path, name: str) -> Authority:
        """Return the authority whose `ca.crt` and `ca.key` are in `folder`, a new one when they are not."""
        authority = cls(name)
        if (folder / "ca.crt").exists():
            authority._certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise LocalClusterError(f"{folder / 'ca.key'} is not an elliptic curve key; remove {folder}")
            authority._key = key
        else:
            write_private(folder / "ca.key", private_key_pem(authority._key))
            write_private(folder / "ca.crt", authority.certificate)
        return authority

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate in PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, name: str, hosts: Sequence[str], *, client: bool = False) -> Certificate:
        """Return a certificate for a server that is reached under `hosts`: names and addresses.

        With `client` the server may present it to its peers too.
        """
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
        return self._sign(name, (), usages, x509.SubjectAlternativeName(names))

    def client(self, user: str, groups: Sequence[str] = ()) -> Certificate:
        """Return a certificate that Kubernetes reads as `user` in `groups`."""
        return self._sign(user, groups, [ExtendedKeyUsageOID.CLIENT_AUTH], None)

    def kubeconfig(self, server: str, user: str, groups: Sequence[str] = (), *, name: str = "cluster") -> bytes:
        """Return a kubeconfig with a client certificate for `user`; `name` is that of cluster and context."""
        certificate = self.client(user, groups)
        credentials = {
            "client-certificate-data": base64.b64encode(certificate.certificate).decode(),
            "client-key-data": base64.b64encode(certificate.key).decode(),
        }
        return kubeconfig(server, self.certificate, credentials, name=name)

    def _sign(
        self,
        name: str,
        groups: Sequence[str],
        usages: Sequence[x509.ObjectIdentifier],
        alternative: x509.SubjectAlternativeName | None,
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [*(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )  # fmt: skip
        builder = (
            _builder(subject, self._certificate.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if alternative is not None:
            builder = builder.add_extension(alternative, critical=False)
        return Certificate(
            builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), private_key_pem(key)
        )


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key in PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def kubeconfig(server: str, authority: bytes, user: dict[str, str], *, name: str = "cluster") -> bytes:
    """Return a kubeconfig with one context, called `name`, for one user."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False).encode()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    fresh.rename(path)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + _VALID)
    )
