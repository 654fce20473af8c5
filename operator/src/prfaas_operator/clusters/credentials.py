"""How the operator reaches a cluster: the hub it runs in, a file, or a kubeconfig from a Secret.

A kubeconfig in a Secret is written by a tenant, and is read by a process with more rights than the tenant has. It may
therefore only carry its data inline: a plugin to execute or a path to read would run, or leak, what belongs to the operator.
"""

import base64
import binascii
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config

_FORBIDDEN_USER_FIELDS = (
    "exec",
    "auth-provider",
    "tokenFile",
    "client-certificate",
    "client-key",
    "username",
    "password",
)
_FORBIDDEN_CLUSTER_FIELDS = ("certificate-authority", "insecure-skip-tls-verify", "proxy-url")


class KubeconfigError(ValueError):
    """A kubeconfig cannot be used; the message names the field and the way out."""


class SecretMissingError(LookupError):
    """The Secret that a MemberCluster names, or its key, does not exist."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a kubeconfig says about its current context."""

    server: str
    ca_pem: str
    token: str | None
    certificate_pem: str | None
    key_pem: str | None
    tls_server_name: str | None

    def digest(self) -> str:
        """Return a digest that changes when the credentials do, and reveals nothing of them."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


def parse_kubeconfig(text: str) -> Credentials:
    """Return the credentials of the current context of an inline kubeconfig.

    Raises `KubeconfigError` when it is malformed, or names a plugin, a file, a proxy, or unverified TLS.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise KubeconfigError(f"not YAML: {error}") from error
    if not isinstance(document, dict):
        raise KubeconfigError("not a kubeconfig: expected a mapping with clusters, users and contexts")
    current = document.get("current-context")
    context = _named(document, "contexts", "context", current)
    cluster = _named(document, "clusters", "cluster", context.get("cluster"))
    user = _named(document, "users", "user", context.get("user"))
    for section, fields, values in (
        ("cluster", _FORBIDDEN_CLUSTER_FIELDS, cluster),
        ("user", _FORBIDDEN_USER_FIELDS, user),
    ):
        for field in fields:
            if values.get(field):
                raise KubeconfigError(
                    f"{section} field {field!r} is not allowed in a Secret; put the data inline "
                    "(certificate-authority-data, token, client-certificate-data, client-key-data)"
                )
    server = cluster.get("server")
    if not isinstance(server, str) or not server.startswith("https://"):
        raise KubeconfigError(f"cluster field 'server' is {server!r}; it must be an https:// URL")
    certificate, key = _decoded(user, "client-certificate-data"), _decoded(user, "client-key-data")
    token = user.get("token")
    if not token and not (certificate and key):
        raise KubeconfigError("the user has neither a token nor client-certificate-data with client-key-data")
    return Credentials(
        server=server.rstrip("/"),
        ca_pem=_decoded(cluster, "certificate-authority-data") or "",
        token=str(token) if token else None,
        certificate_pem=certificate,
        key_pem=key,
        tls_server_name=cluster.get("tls-server-name"),
    )


def _named(document: Mapping[str, Any], section: str, field: str, name: object) -> Mapping[str, Any]:
    for item in document.get(section) or []:
        if isinstance(item, dict) and item.get("name") == name and isinstance(item.get(field), dict):
            value: Mapping[str, Any] = item[field]
            return value
    raise KubeconfigError(f"no entry {name!r} in {section}")


def _decoded(values: Mapping[str, Any], field: str) -> str | None:
    data = values.get(field)
    if not data:
        return None
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, TypeError) as error:
        raise KubeconfigError(f"{field} is not base64 of PEM text: {error}") from error


def member_client(credentials: Credentials) -> ApiClient:
    """Return a client for the cluster of `credentials`."""
    configuration = Configuration()
    configuration.host = credentials.server
    configuration.ca_cert_data = credentials.ca_pem or None
    configuration.tls_server_name = credentials.tls_server_name
    if credentials.token:
        configuration.api_key["BearerToken"] = f"Bearer {credentials.token}"
    if not (credentials.certificate_pem and credentials.key_pem):
        return ApiClient(configuration)
    # OpenSSL reads a client certificate from files only; the client has read them when its constructor returns.
    with tempfile.TemporaryDirectory(prefix="prfaas-") as folder:
        certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        for path, pem in ((certificate, credentials.certificate_pem), (key, credentials.key_pem)):
            path.touch(mode=0o600)
            path.write_text(pem)
        configuration.cert_file, configuration.key_file = str(certificate), str(key)
        client = ApiClient(configuration)
    configuration.cert_file = configuration.key_file = None
    return client


async def hub_configuration(kubeconfig: Path | None) -> Configuration:
    """Return the settings for the hub: of the operator's own ServiceAccount, or of a file when it runs outside."""
    configuration = Configuration()
    if kubeconfig is None:
        load_incluster_config(client_configuration=configuration)
    else:
        await load_kube_config(config_file=str(kubeconfig), client_configuration=configuration, persist_config=False)
    return configuration
