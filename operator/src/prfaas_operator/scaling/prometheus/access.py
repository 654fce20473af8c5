"""How a Prometheus is reached: its address and the credentials, from files or from Secrets, read again as they change."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.prometheus import PrometheusAccess
from prfaas_operator.clusters.api import ApiError, ClusterApi
from prfaas_operator.clusters.resources import SECRET
from prfaas_operator.scaling.prometheus.results import QueryError


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate to show; OpenSSL reads it from its files, and what was in them tells a renewed one."""

    certificate_file: Path
    key_file: Path
    content: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that a connection needs. Equal values make the same connection."""

    url: str
    timeout_s: float
    ca_pem: str | None = None  # None: the authorities that everybody trusts
    client_certificate: ClientCertificate | None = field(default=None, repr=False)
    bearer_token: str | None = field(default=None, repr=False)
    basic_auth: tuple[str, str] | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


class AccessSource(Protocol):
    """Where an access comes from."""

    async def read(self) -> Access:
        """Return it as it is now.

        Raises:
            QueryError: something of it is missing.
            SourceUnavailableError: nobody can say at the moment; what was read before goes on.
        """
        ...


class SourceUnavailableError(Exception):
    """The credentials cannot be looked at for now."""


@dataclass(frozen=True, slots=True)
class PrometheusFiles:
    """The operator's own Prometheus, as the command line gives it: secrets are in files, which a renewal replaces.

    Attributes:
        header_dir: a folder with a file for each header, called like the header.
    """

    url: str | None = None
    timeout_s: float = 5.0
    headers: tuple[tuple[str, str], ...] = ()
    ca_file: Path | None = None
    client_certificate_file: Path | None = None
    client_key_file: Path | None = None
    bearer_token_file: Path | None = None
    username_file: Path | None = None
    password_file: Path | None = None
    header_dir: Path | None = None

    async def read(self) -> Access:
        """Return the access with what the files hold now; they are small and local."""
        if self.url is None:
            raise QueryError(
                Reason.PROMETHEUS_NOT_CONFIGURED,
                "neither the pool's MemberCluster nor the operator has a Prometheus; set spec.prometheus or --prometheus-url",
            )
        username, password = _content(self.username_file), _content(self.password_file)
        token = _content(self.bearer_token_file)
        return Access(
            url=self.url.rstrip("/"),
            timeout_s=self.timeout_s,
            ca_pem=_content(self.ca_file),
            client_certificate=_client_certificate(self.client_certificate_file, self.client_key_file),
            bearer_token=token.strip() if token is not None else None,
            basic_auth=(username.strip(), password.strip()) if username is not None and password is not None else None,
            headers=(*self.headers, *_header_files(self.header_dir)),
        )


class SecretAccess:
    """A member's Prometheus, as its MemberCluster says; `spec` is asked anew each time, so that changes are followed."""

    def __init__(self, hub: ClusterApi, namespace: str, spec: Callable[[], PrometheusAccess | None]) -> None:
        self._hub = hub
        self._namespace = namespace
        self._spec = spec

    async def read(self) -> Access:
        """Return the access with what the Secrets hold now."""
        spec = self._spec()
        if spec is None:
            raise SourceUnavailableError("the MemberCluster has no Prometheus any more")
        secrets = _Secrets(self._hub, self._namespace)
        headers = []
        for header in spec.headers:
            if header.secret_key_ref is not None:
                value = await secrets.text(header.secret_key_ref.name, header.secret_key_ref.key)
                headers.append((header.name, value.strip()))
            else:
                headers.append((header.name, header.value or ""))
        ca, token, basic = spec.ca_secret_ref, spec.bearer_token_secret_ref, spec.basic_auth_secret_ref
        return Access(
            url=spec.url.rstrip("/"),
            timeout_s=spec.timeout_seconds,
            ca_pem=await secrets.text(ca.name, ca.key) if ca is not None else None,
            bearer_token=(await secrets.text(token.name, token.key)).strip() if token is not None else None,
            basic_auth=(
                (await secrets.text(basic.name, "username"), await secrets.text(basic.name, "password"))
                if basic is not None
                else None
            ),
            headers=tuple(headers),
        )


class _Secrets:
    """Secrets of one namespace, each read once."""

    def __init__(self, hub: ClusterApi, namespace: str) -> None:
        self._hub = hub
        self._namespace = namespace
        self._data: dict[str, Mapping[str, Any]] = {}

    async def text(self, name: str, key: str) -> str:
        if name not in self._data:
            try:
                secret = await self._hub.get(SECRET, self._namespace, name)
            except ApiError as error:
                if error.unreachable:
                    raise SourceUnavailableError(str(error)) from error
                raise QueryError(
                    Reason.PROMETHEUS_NOT_CONFIGURED, f"Secret {self._namespace}/{name} cannot be read: {error}"
                ) from error
            self._data[name] = (secret or {}).get("data") or {}
        try:
            return base64.b64decode(self._data[name][key]).decode()
        except KeyError as error:
            raise QueryError(
                Reason.PROMETHEUS_NOT_CONFIGURED,
                f"Secret {self._namespace}/{name} with the key {key!r} does not exist; spec.prometheus of the MemberCluster "
                "names it",
            ) from error
        except (binascii.Error, UnicodeDecodeError) as error:
            raise QueryError(
                Reason.PROMETHEUS_NOT_CONFIGURED, f"Secret {self._namespace}/{name}, key {key!r} is no text: {error}"
            ) from error


def _content(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(
            Reason.PROMETHEUS_NOT_CONFIGURED, f"{path} of --prometheus-... cannot be read: {error}"
        ) from error


def _client_certificate(certificate: Path | None, key: Path | None) -> ClientCertificate | None:
    if certificate is None or key is None:
        return None
    return ClientCertificate(certificate, key, (_content(certificate) or "", _content(key) or ""))


def _header_files(folder: Path | None) -> list[tuple[str, str]]:
    if folder is None:
        return []
    try:
        # A mounted Secret has its data once more in folders that begin with two dots.
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".."))
    except OSError as error:
        raise QueryError(Reason.PROMETHEUS_NOT_CONFIGURED, f"--prometheus-header-dir: {error}") from error
    return [(path.name, (_content(path) or "").strip()) for path in paths]
