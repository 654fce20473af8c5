"""What the scenarios ask of whoever gives them clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Image:
    """A container image of the project.

    Attributes:
        references: its names, `NAME:TAG`, at least one.
        dockerfile: what it is built from.
        context: folder whose files the build may copy.
    """

    references: tuple[str, ...]
    dockerfile: Path
    context: Path


class Provider(Protocol):
    """Gives clusters, and takes them away. Every call raises `LocalClusterError` when it cannot do what it says."""

    def create(self, names: Sequence[str]) -> dict[str, Path]:
        """Make clusters, all or none, and return the path of an administrator's kubeconfig for each."""

    def internal_kubeconfig(self, name: str) -> bytes:
        """Return an administrator's kubeconfig of a cluster that works from the pods of the others."""

    def load_images(self, images: Sequence[Image]) -> None:
        """Give images to the nodes of every cluster."""

    def connect_networks(self) -> None:
        """Let the pods of every cluster reach the pods and Services of the others."""

    def delete(self) -> None:
        """Take all of them away; what is gone already is no error."""
