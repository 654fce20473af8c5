"""The numbered manifests of an installation: read, and asked what has to be there before they are applied."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

GROUP = "prfaas.dev"


class ManifestError(ValueError):
    """Manifests that cannot be used; the message names the file, the field and the way out."""


@dataclass(frozen=True, slots=True)
class KubeconfigSecret:
    """Where a MemberCluster expects its kubeconfig."""

    cluster: str
    namespace: str
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects of a folder, in the order of its files."""

    folder: Path
    objects: tuple[dict[str, Any], ...]

    @classmethod
    def load(cls, folder: Path) -> Manifests:
        """Read every YAML file of a folder, by name.

        Raises:
            ManifestError: there is none, or one is not YAML or not a Kubernetes object with a namespace.
        """
        objects: list[dict[str, Any]] = []
        for path in sorted(folder.glob("*.yaml")):
            try:
                documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
            except (OSError, yaml.YAMLError) as error:
                raise ManifestError(f"{path}: {error}") from error
            for document in documents:
                if document is None:
                    continue
                if not isinstance(document, dict) or not (document.get("metadata") or {}).get("name"):
                    raise ManifestError(f"{path}: a document without metadata.name; a Kubernetes object is expected")
                if not document["metadata"].get("namespace"):
                    raise ManifestError(f"{path}: {document['metadata']['name']} has no metadata.namespace; set it")
                objects.append(document)
        if not objects:
            raise ManifestError(f"{folder} holds no manifests (*.yaml); run this from a clone or give the folder")
        return cls(folder, tuple(objects))

    def with_plain_addresses(self) -> Manifests:
        """Return them for clusters that reach each other's pods by address: nothing is translated, no address is chosen."""
        objects = copy.deepcopy(self.objects)
        for item in objects:
            match item.get("kind"):
                case "KVLink":
                    item["spec"].pop("addressTranslation", None)
                case "InferenceRoute":
                    ((item["spec"].get("router") or {}).get("service") or {}).pop("clusterIP", None)
        return Manifests(self.folder, objects)

    def written(self, folder: Path) -> Manifests:
        """Write them into a folder of their own and return them as they are there."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = yaml.safe_dump_all(self.objects, sort_keys=False)
        (folder / "objects.yaml").write_text(text, encoding="utf-8")
        return Manifests(folder, self.objects)

    def of_kind(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of one kind."""
        return (item for item in self.objects if item.get("kind") == kind)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces of all objects."""
        return tuple(sorted({item["metadata"]["namespace"] for item in self.objects}))

    @property
    def kubeconfig_secrets(self) -> tuple[KubeconfigSecret, ...]:
        """The Secrets that MemberClusters refer to."""
        return tuple(
            KubeconfigSecret(
                cluster=item["metadata"]["name"],
                namespace=item["metadata"]["namespace"],
                name=reference["name"],
                key=reference.get("key", "kubeconfig"),
            )
            for item in self.of_kind("MemberCluster")
            if (reference := (item.get("spec") or {}).get("kubeconfigSecretRef"))
        )

    @property
    def link_capacity_bps(self) -> float:
        """What the first KVLink says that the network can carry, bit/s.

        Raises:
            ManifestError: there is no KVLink.
        """
        for item in self.of_kind("KVLink"):
            return float(item["spec"]["capacityGbps"]) * 1e9
        raise ManifestError(f"{self.folder} has no KVLink; the local link takes its capacity from it")

    @property
    def route(self) -> dict[str, Any]:
        """The first InferenceRoute.

        Raises:
            ManifestError: there is none.
        """
        for item in self.of_kind("InferenceRoute"):
            return item
        raise ManifestError(f"{self.folder} has no InferenceRoute; without one nothing can be sent")
