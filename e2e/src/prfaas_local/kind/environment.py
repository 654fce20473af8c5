"""A whole environment on kind: the clusters of `prfaas_local.environment`, and Prometheus as a pod of the hub.

The link between the members is not shaped. What this machine reaches of it, it reaches by `kubectl port-forward`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prfaas_local import binaries, processes, rights
from prfaas_local.clients import Clients, Run
from prfaas_local.environment import FAR, HUB, NEAR, Cancelled, Progress
from prfaas_local.errors import LocalClusterError
from prfaas_local.kind import prometheus_pod
from prfaas_local.kind.cluster import KindCluster
from prfaas_local.kind.clusters import Image, KindClusters, Ranges
from prfaas_local.kind.forwarding import Forwards, Spawn

NAMES = (HUB, NEAR, FAR)
PROMETHEUS = "prometheus"
"""Namespace, ServiceAccount, Deployment and Service of Prometheus."""
_ROLLOUT_S = 100


@dataclass(frozen=True, slots=True)
class KindSettings:
    """What can be chosen of an environment on kind.

    Attributes:
        images: what is built and given to the nodes.
        pod_labels: label of the samples to label of the pod that it is copied from.
        scrape_interval_s: time between two scrapes.
    """

    images: Sequence[Image]
    pod_labels: Mapping[str, str]
    scrape_interval_s: float = 1.0


class KindEnvironment:
    """The environment whose state is in `folder`. Making the object starts nothing.

    Args:
        folder: for state.
        settings: what can be chosen.
        run: `subprocess.run`, or what a test puts in its place.
        spawn: starts what runs on, or what a test puts in its place.
        find: returns the path of kubectl or helm.
    """

    def __init__(
        self,
        folder: Path,
        settings: KindSettings,
        run: Run = subprocess.run,
        spawn: Spawn | None = None,
        find: Callable[[str], Path] = binaries.find,
    ) -> None:
        self.folder = folder
        self._settings = settings
        self._find = find
        self._kind = KindClusters(folder, run=run)
        self._forwards = Forwards(folder, spawn)
        self.clusters = {
            name: KindCluster(name, self._kind, Clients(self._kind.kubeconfig(name), run, find)) for name in NAMES
        }

    @property
    def hub(self) -> KindCluster:
        """The cluster with the objects."""
        return self.clusters[HUB]

    @property
    def hub_service_ip(self) -> str:
        """An address for a Service of the hub that has to be known in advance."""
        return Ranges.of(NAMES.index(HUB)).service_ip

    @property
    def prometheus_pod_url(self) -> str:
        """Base URL of Prometheus as pods of the hub reach it."""
        return f"http://{PROMETHEUS}.{PROMETHEUS}.svc:{prometheus_pod.PORT}"

    @property
    def prometheus_url(self) -> str:
        """Base URL of Prometheus as this machine reaches it, by a forward."""
        return self.service_url(HUB, PROMETHEUS, PROMETHEUS, prometheus_pod.PORT)

    @property
    def pod_logs(self) -> str:
        """Where the output of pods is, for messages."""
        return f"`kubectl logs`, with --kubeconfig={self.folder}/CLUSTER.kubeconfig"

    @property
    def exists(self) -> bool:
        """Whether there is anything of it, complete or not."""
        return bool(self._kind.names)

    def check_running(self) -> None:
        """Raise `LocalClusterError` when it does not run."""
        if not self._complete.exists():
            raise LocalClusterError(f"the environment in {self.folder} is not running")

    def start(self, progress: Progress = lambda _: None, cancelled: Cancelled = lambda: False) -> None:
        """Make everything and wait until it is ready. After a failure, `stop` removes what there is of it.

        Raises:
            LocalClusterError: Docker or kind is missing, or a step failed.
        """
        self._kind.check()
        progress("Docker and kind are there; looking for kubectl and helm, which are built the first time")
        for program in ("kubectl", "helm"):
            self._find(program)
        # A killed process may have left some.
        self._kind.delete()
        for line, step in (
            (f"making the clusters {', '.join(NAMES)}", lambda: self._kind.create(NAMES)),
            ("building and loading images", lambda: self._kind.load_images(self._settings.images)),
            ("connecting the networks", self._kind.connect_networks),
            ("starting Prometheus", self._start_prometheus),
        ):
            if cancelled():
                raise LocalClusterError("making the environment was cancelled")
            progress(line)
            step()
        progress("Prometheus is ready")
        self._complete.touch()

    def detach(self) -> None:
        """Let the environment go on when this process ends, as containers do anyway."""

    def service_url(self, cluster: str, namespace: str, name: str, port: int) -> str:
        """Return the base URL by which this machine reaches a Service until `close`.

        Raises:
            LocalClusterError: there is no such Service, or no pod behind it.
        """
        return self._forwards.url(self.clusters[cluster].kubectl_command, namespace, name, port)

    def close(self) -> None:
        """End the forwards of this process; the clusters run on."""
        self._forwards.close()

    def stop(self, grace_s: float = 5.0) -> int:
        """Delete everything; return how many forwards were left over from other processes.

        Raises:
            LocalClusterError: a cluster could not be deleted.
        """
        self.close()
        left = processes.stop_marked(processes.mark_of(self.folder), grace_s)
        self._complete.unlink(missing_ok=True)
        self._kind.delete()
        return left

    @property
    def _complete(self) -> Path:
        """A file that is there while everything is."""
        return self.folder / "kind.complete"

    def _start_prometheus(self) -> None:
        account = {"kind": "ServiceAccount", "metadata": {"name": PROMETHEUS, "namespace": PROMETHEUS}}
        namespace = {"kind": "Namespace", "metadata": {"name": PROMETHEUS}}
        kubeconfigs = {}
        for name, cluster in self.clusters.items():
            core = [{"apiVersion": "v1", **item} for item in (namespace, account)]
            _apply(cluster, [*core, *rights.pod_reader(PROMETHEUS, PROMETHEUS)])
            kubeconfigs[name] = cluster.token_kubeconfig(PROMETHEUS, PROMETHEUS)
        objects = prometheus_pod.manifest(
            PROMETHEUS, kubeconfigs, pod_labels=self._settings.pod_labels, interval_s=self._settings.scrape_interval_s
        )
        _apply(self.hub, objects)
        self.hub.kubectl(
            "rollout", "status", f"deployment/{PROMETHEUS}", f"--namespace={PROMETHEUS}", f"--timeout={_ROLLOUT_S}s"
        )


def _apply(cluster: KindCluster, objects: Sequence[Mapping[str, object]]) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
