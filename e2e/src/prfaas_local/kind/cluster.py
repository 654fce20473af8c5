"""One cluster on kind, as a caller works on it."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from prfaas_local.certificates import kubeconfig
from prfaas_local.clients import Clients
from prfaas_local.kind.clusters import KindClusters


class KindCluster:
    """The cluster `name` of `owner`. It need not exist yet."""

    def __init__(self, name: str, owner: KindClusters, clients: Clients) -> None:
        self.name = name
        self._owner = owner
        self._clients = clients

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig of a cluster administrator, for this machine."""
        return self._clients.kubeconfig

    @property
    def server(self) -> str:
        """URL of the API server, for this machine."""
        return str(yaml.safe_load(self.admin_kubeconfig.read_text())["clusters"][0]["cluster"]["server"])

    @property
    def kubectl_command(self) -> tuple[str, str]:
        """How kubectl is called for this cluster."""
        return str(self._clients.find("kubectl")), f"--kubeconfig={self.admin_kubeconfig}"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as administrator; see `Clients.kubectl`."""
        return self._clients.kubectl(*arguments, stdin=stdin)

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Run helm as administrator; see `Clients.helm`."""
        return self._clients.helm(*arguments, stdin=stdin)

    def token_kubeconfig(self, namespace: str, service_account: str, duration: str = "720h") -> bytes:
        """Return a kubeconfig with a token of a ServiceAccount, which works from the pods of all clusters."""
        internal = yaml.safe_load(self._owner.internal_kubeconfig(self.name))["clusters"][0]["cluster"]
        authority = base64.b64decode(internal["certificate-authority-data"])
        token = self._clients.token(namespace, service_account, duration)
        return kubeconfig(internal["server"], authority, {"token": token}, name=self.name)
