"""What an installation needs of an environment, whoever makes its clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol


class LocalCluster(Protocol):
    """One cluster. Calls raise `LocalClusterError` with the words of the program that failed."""

    name: str

    @property
    def server(self) -> str:
        """URL of the API server."""

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig of a cluster administrator."""

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as administrator and return its output."""

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Run helm as administrator and return its output."""

    def token_kubeconfig(self, namespace: str, service_account: str) -> bytes:
        """Return a kubeconfig with a token of a ServiceAccount, which works from the pods of all clusters."""


class LocalEnvironment(Protocol):
    """A hub and members. Calls raise `LocalClusterError` when they cannot do what they say."""

    folder: Path

    @property
    def clusters(self) -> Mapping[str, LocalCluster]:
        """All clusters by name."""

    @property
    def hub(self) -> LocalCluster:
        """The one with the objects."""

    @property
    def hub_service_ip(self) -> str:
        """An address for a Service of the hub that has to be known in advance."""

    @property
    def prometheus_url(self) -> str:
        """Base URL of Prometheus as this machine reaches it."""

    @property
    def prometheus_pod_url(self) -> str:
        """Base URL of Prometheus as pods of the hub reach it."""

    @property
    def pod_logs(self) -> str:
        """Where the output of pods is, for messages."""

    def check_running(self) -> None:
        """Raise an error when it does not run."""

    def start(self, progress: Callable[[str], None], cancelled: Callable[[], bool]) -> None:
        """Start everything and wait until it is ready."""

    def detach(self) -> None:
        """Let it go on when this process ends."""

    def service_url(self, cluster: str, namespace: str, name: str, port: int) -> str:
        """Return the base URL by which this machine reaches a Service, until `close`."""

    def close(self) -> None:
        """Let go of what only this process needs."""

    def stop(self, grace_s: float = 5.0) -> int:
        """Stop everything; return how many processes were left over and had to be looked for."""
