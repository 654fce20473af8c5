"""The Kubernetes API server as a client: how an aggregated API knows that it is asked by nobody else.

The API server authenticates and authorises the user, and then asks on the user's behalf, with a client certificate of an
authority that signs for nothing else. Authority, names and headers are in a ConfigMap of the cluster.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from prfaas_operator.clusters.api import ClusterApi
from prfaas_operator.clusters.resources import CONFIG_MAP

NAMESPACE: Final = "kube-system"
NAME: Final = "extension-apiserver-authentication"


class FrontProxyError(Exception):
    """The cluster does not say how its API server identifies itself."""


class NotFrontProxyError(Exception):
    """A request does not come from the API server; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """By what the API server is known: the authority of its client certificate, its names, and headers with the user."""

    ca_pem: str
    allowed_names: tuple[str, ...]  # empty: any
    username_headers: tuple[str, ...]

    def user(self, certificate: Mapping[str, Any] | None, headers: Mapping[str, str]) -> str:
        """Return on whose behalf a request comes; `certificate` is the verified one of the client, as `ssl` gives it.

        Raises:
            NotFrontProxyError: the request does not come from the API server.
        """
        if not certificate:
            raise NotFrontProxyError("no client certificate of the API server; ask through the API server")
        subject = {name: value for part in certificate.get("subject", ()) for name, value in part}
        name = subject.get("commonName", "")
        if self.allowed_names and name not in self.allowed_names:
            raise NotFrontProxyError(
                f"the client certificate is of {name!r}, and not of {' or '.join(self.allowed_names)}"
            )
        for header in self.username_headers:
            if headers.get(header):
                return headers[header]
        raise NotFrontProxyError(f"none of the headers {', '.join(self.username_headers)} says on whose behalf")


async def read(hub: ClusterApi) -> FrontProxy:
    """Return what the hub says of its API server.

    Raises:
        ApiError: the hub refuses, or does not answer.
        FrontProxyError: the aggregation layer of the hub is off, or the ConfigMap cannot be read.
    """
    found = await hub.get(CONFIG_MAP, NAMESPACE, NAME)
    data = (found or {}).get("data") or {}
    ca_pem = data.get("requestheader-client-ca-file")
    if not ca_pem:
        raise FrontProxyError(
            f"ConfigMap {NAMESPACE}/{NAME} has no requestheader-client-ca-file; turn on the API server's aggregation layer"
        )
    try:
        names, headers = (
            tuple(json.loads(data.get(key) or "[]"))
            for key in ("requestheader-allowed-names", "requestheader-username-headers")
        )
    except ValueError as error:
        raise FrontProxyError(f"ConfigMap {NAMESPACE}/{NAME}: {error}") from error
    return FrontProxy(ca_pem, names, headers or ("X-Remote-User",))
