"""Clusters on `kind`: one container a cluster, all on Docker's network `kind`, joined by routes between the containers.

It needs Docker and `kind`, and has not run where this was written, because there was no Docker: its tests check which
commands it gives and how it takes their failures, not what `kind` does with them.

What clusters there are is known from their configuration files in `folder`, which is written before a cluster is made and
removed after it is gone, so another process with the same folder can delete them.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from prfaas_local.clients import Run
from prfaas_local.errors import LocalClusterError
from prfaas_local.kind.commands import WAY_OUT, Commands

CREATE_TIMEOUT_S = 600.0
"""Docker may have to pull the node's image."""
READY_S = 180
BUILD_TIMEOUT_S = 1800.0
MOST_CLUSTERS = 50
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
_SUFFIX = ".kind.yaml"


@dataclass(frozen=True, slots=True)
class Image:
    """A container image.

    Attributes:
        references: its names, `NAME:TAG`, at least one.
        dockerfile: what it is built from.
        context: folder whose files the build may copy.
    """

    references: tuple[str, ...]
    dockerfile: Path
    context: Path


@dataclass(frozen=True, slots=True)
class Ranges:
    """The address ranges of one cluster in CIDR notation; those of different clusters do not overlap."""

    pods: str
    services: str

    @classmethod
    def of(cls, number: int) -> Ranges:
        """Return the ranges of a cluster by its number, from 0 to `MOST_CLUSTERS` - 1."""
        return cls(pods=f"10.{100 + number}.0.0/16", services=f"10.{150 + number}.0.0/16")

    @property
    def service_ip(self) -> str:
        """A Service's address that has to be known in advance: of the first 256, which a cluster does not pick by itself."""
        return str(ipaddress.ip_network(self.services)[200])


class KindClusters:
    """Makes clusters, and takes them away.

    Args:
        folder: for configurations and kubeconfigs; made when missing.
        prefix: of the clusters' names in `kind`, which has one list for all of the machine.
        run: `subprocess.run`, or what a test puts in its place.
    """

    def __init__(self, folder: Path, prefix: str = "prfaas", run: Run = subprocess.run) -> None:
        self.folder = folder
        self._prefix = prefix
        self._commands = Commands(run)

    @property
    def names(self) -> list[str]:
        """The clusters that were made and not deleted."""
        return sorted(path.name.removesuffix(_SUFFIX) for path in self.folder.glob(f"*{_SUFFIX}"))

    def kubeconfig(self, name: str) -> Path:
        """Return the path of an administrator's kubeconfig for this machine; it is there once the cluster is made."""
        return self.folder / f"{name}.kubeconfig"

    def check(self) -> None:
        """Raise `LocalClusterError` with the way out when Docker or kind is missing."""
        try:
            self._commands.output("docker", "info", "--format", "{{.ServerVersion}}")
        except LocalClusterError as error:
            raise LocalClusterError(f"{error}\nkind needs a running Docker engine: start it, {WAY_OUT}") from error
        self._commands.output("kind", "version")

    def create(self, names: Sequence[str]) -> dict[str, Path]:
        """Make clusters and return the path of an administrator's kubeconfig for each, which works on this machine.

        When one cannot be made, or the call is interrupted, those that it made are deleted again.

        Raises:
            LocalClusterError: a name is impossible or twice there, Docker or kind is missing, a cluster exists already, or
                a command failed.
        """
        _check(names)
        self.check()
        existing = set(self._commands.output("kind", "get", "clusters").split())
        for name in names:
            if self._kind_name(name) in existing:
                raise LocalClusterError(
                    f"kind has a cluster {self._kind_name(name)!r} already; "
                    f"`kind delete cluster --name {self._kind_name(name)}` removes it"
                )
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        begun: list[str] = []
        try:
            for number, name in enumerate(names):
                begun.append(name)
                self._create(name, Ranges.of(number))
        except BaseException as error:
            try:
                self._delete(reversed(begun))
            except LocalClusterError as left:
                error.add_note(f"{left}")
            raise
        return {name: self.kubeconfig(name) for name in names}

    def internal_kubeconfig(self, name: str) -> bytes:
        """Return an administrator's kubeconfig that works from the containers of the other clusters."""
        return self._commands.output("kind", "get", "kubeconfig", "--internal", *self._named(name)).encode()

    def load_images(self, images: Sequence[Image]) -> None:
        """Build images and load them into every cluster."""
        for image in images:
            tags = [f"--tag={reference}" for reference in image.references]
            command = ["docker", "build", *tags, f"--file={image.dockerfile}", str(image.context)]
            self._commands.output(*command, timeout_s=BUILD_TIMEOUT_S)
        references = [reference for image in images for reference in image.references]
        for name in self.names:
            self._commands.output(
                "kind", "load", "docker-image", *self._named(name), *references, timeout_s=CREATE_TIMEOUT_S
            )  # fmt: skip

    def connect_networks(self) -> None:
        """Route the pods' and Services' addresses of each cluster to its node, on the nodes of all others.

        Called again, it changes nothing.
        """
        nodes = {name: self._commands.output("kind", "get", "nodes", *self._named(name)).split() for name in self.names}
        for name, (node, *_) in nodes.items():
            address = self._address(node)
            ranges = self._ranges(name)
            for other in (other for neighbour in nodes if neighbour != name for other in nodes[neighbour]):
                for destination in (ranges.pods, ranges.services):
                    self._commands.output(
                        "docker", "exec", other, "ip", "route", "replace", destination, "via", address
                    )

    def delete(self) -> None:
        """Delete all clusters of this folder, and their files. One that cannot be deleted does not keep the others.

        Raises:
            LocalClusterError: some could not be deleted; they are still among `names`.
        """
        self._delete(self.names)

    def _create(self, name: str, ranges: Ranges) -> None:
        path = self._configuration(name)
        path.write_text(yaml.safe_dump(configuration(ranges), sort_keys=False), encoding="utf-8")
        kubeconfig = self.kubeconfig(name)
        # kind adds to a file that is there.
        kubeconfig.unlink(missing_ok=True)
        self._commands.output(
            "kind", "create", "cluster", *self._named(name), f"--config={path}", f"--kubeconfig={kubeconfig}",
            f"--wait={READY_S}s", timeout_s=CREATE_TIMEOUT_S,
        )  # fmt: skip

    def _delete(self, names: Iterable[str]) -> None:
        failures = []
        for name in names:
            try:
                self._commands.output(
                    "kind", "delete", "cluster", *self._named(name), f"--kubeconfig={self.kubeconfig(name)}"
                )  # fmt: skip
            except LocalClusterError as error:
                failures.append(f"{self._kind_name(name)} is left over: {error}")
            else:
                self._configuration(name).unlink(missing_ok=True)
                self.kubeconfig(name).unlink(missing_ok=True)
        if failures:
            raise LocalClusterError("\n".join(failures))

    def _address(self, node: str) -> str:
        addresses = self._commands.output("docker", "inspect", f"--format={_ADDRESS}", node).split()
        if not addresses:
            raise LocalClusterError(f"the container {node} has no address; is it running? `docker ps` tells")
        return addresses[0]

    def _ranges(self, name: str) -> Ranges:
        networking = yaml.safe_load(self._configuration(name).read_text(encoding="utf-8"))["networking"]
        return Ranges(networking["podSubnet"], networking["serviceSubnet"])

    def _named(self, name: str) -> tuple[str, str]:
        return "--name", self._kind_name(name)

    def _kind_name(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def _configuration(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"


def configuration(ranges: Ranges) -> dict[str, object]:
    """Return kind's configuration of a cluster of one node."""
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"ipFamily": "ipv4", "podSubnet": ranges.pods, "serviceSubnet": ranges.services},
        "nodes": [{"role": "control-plane"}],
    }


def _check(names: Sequence[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise LocalClusterError(f"cluster name {name!r} is no name for a container; use up to 32 of a-z, 0-9 and -")
    if len(set(names)) != len(names):
        raise LocalClusterError(f"cluster names {', '.join(names)} are not all different")
    if not 0 < len(names) <= MOST_CLUSTERS:
        raise LocalClusterError(f"{len(names)} clusters are asked for; there may be 1 to {MOST_CLUSTERS}")
