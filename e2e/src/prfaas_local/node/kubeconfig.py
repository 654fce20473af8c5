"""Credentials for one API server, read from a kubeconfig file."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml


class KubeconfigError(ValueError):
    """A kubeconfig that cannot be used; the message names the file and the field."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where an API server is and how to speak to it."""

    server: str
    """Base URL without a trailing slash."""
    tls: ssl.SSLContext | None
    """None for plain http."""
    tls_server_name: str | None
    token: str | None
    token_path: Path | None
    """Read again for each request, because bound tokens rotate."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the API server."""
        parts = urlsplit(self.server)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def headers(self) -> dict[str, str]:
        """Return the authorization header, if the user authenticates by token."""
        token = self.token_path.read_text().strip() if self.token_path else self.token
        return {"Authorization": f"Bearer {token}"} if token else {}


def load(path: Path) -> Credentials:
    """Read the current context of a kubeconfig.

    Client certificates, tokens and token files are understood. Exec plugins and auth providers are not: they raise
    `KubeconfigError`, as does anything missing.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise KubeconfigError(f"{path}: cannot read the kubeconfig: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise KubeconfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig: expected a mapping")
    context = _named(path, document, "contexts", "context", document.get("current-context"))
    cluster = _named(path, document, "clusters", "cluster", context.get("cluster"))
    user = _named(path, document, "users", "user", context.get("user")) if context.get("user") else {}
    for unsupported in ("exec", "auth-provider"):
        if unsupported in user:
            raise KubeconfigError(f"{path}: users.{unsupported} is not supported; use a client certificate or a token")
    server = str(cluster.get("server") or "").rstrip("/")
    if urlsplit(server).scheme not in {"http", "https"} or not urlsplit(server).hostname:
        raise KubeconfigError(f"{path}: clusters.cluster.server is {server!r}; expected an http or https URL")
    token_path = user.get("tokenFile")
    return Credentials(
        server=server,
        tls=_tls_context(path, cluster, user) if server.startswith("https://") else None,
        tls_server_name=cluster.get("tls-server-name"),
        token=user.get("token"),
        token_path=path.parent / token_path if token_path else None,
    )


def _named(path: Path, document: dict[str, Any], plural: str, singular: str, name: object) -> dict[str, Any]:
    for entry in document.get(plural) or []:
        if entry.get("name") == name:
            return entry.get(singular) or {}
    raise KubeconfigError(f"{path}: {plural} has no entry named {name!r}")


def _tls_context(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    authority = _content(path, cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _content(path, user, "client-certificate"), _content(path, user, "client-key")
    if bool(certificate) != bool(key):
        raise KubeconfigError(f"{path}: users.client-certificate and users.client-key must both be set")
    if certificate and key:
        # OpenSSL takes a client certificate from a file only.
        descriptor, name = tempfile.mkstemp()
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(certificate + b"\n" + key)
            context.load_cert_chain(name)
        finally:
            Path(name).unlink()
    return context


def _content(path: Path, section: dict[str, Any], field: str) -> bytes | None:
    inline = section.get(f"{field}-data")
    if inline:
        try:
            return base64.b64decode(inline, validate=True)
        except binascii.Error as error:
            raise KubeconfigError(f"{path}: {field}-data is not base64: {error}") from error
    if section.get(field):
        try:
            return Path(path.parent / section[field]).read_bytes()
        except OSError as error:
            raise KubeconfigError(f"{path}: {field} {section[field]!r} cannot be read: {error.strerror}") from error
    return None
