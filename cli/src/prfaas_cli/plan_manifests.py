"""Read manifests as a fleet to plan for, and write a plan back into them.

Writing replaces single values at their place in the text, so that comments, order and everything else stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from prfaas_core import errors
from prfaas_core.lengths import Lengths
from prfaas_core.planning.fleet import Bounds, DecodeCluster, Fleet, InstancePool, Link
from prfaas_core.profiles import Profile
from prfaas_operator import api


class ManifestError(ValueError):
    """Manifests that cannot be planned for; the message names file, object, field and the way out."""


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document of a manifest file: its place in the file, and its parsed body."""

    path: Path
    index: int
    body: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        metadata = self.body.get("metadata") or {}
        return str(metadata.get("namespace", "default")), str(metadata.get("name", ""))

    def __str__(self) -> str:
        return f"{self.path}: {self.body.get('kind')} {self.key[1]}"


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What manifests do not say.

    Attributes:
        lengths: uncached prompt lengths, of every route.
        gpu_hour_prices: by accelerator name, price of one GPU for an hour.
        bounds: by pool name, in place of its replicas or scaling.
        free_up_to: pools with fixed replicas may have up to so many; None: they have what they have.
        exchange_roles: local prefill and decode pools with fixed replicas on equal accelerators may exchange instances.
        weights: by route name, its part of the requests relative to the others.
    """

    lengths: Lengths
    output_tokens: float
    gpu_hour_prices: Mapping[str, float]
    bounds: Mapping[str, Bounds]
    free_up_to: int | None
    exchange_roles: bool
    weights: Mapping[str, float]


def read(paths: Iterable[Path]) -> tuple[Document, ...]:
    """Return the documents of files and of the `.yaml` and `.yml` files in folders, in order.

    Raises:
        ManifestError: a path is missing, or a file is not YAML.
    """
    found: list[Document] = []
    for path in paths:
        files = sorted((*path.glob("*.yaml"), *path.glob("*.yml"))) if path.is_dir() else [path]
        if not files:
            raise ManifestError(f"{path}: holds no .yaml file; give the folder of the manifests")
        for file in files:
            try:
                bodies = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
            except OSError as error:
                raise ManifestError(f"{file}: {error.strerror}; give a file or folder of manifests with -f") from error
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ManifestError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
            found += [Document(file, i, body) for i, body in enumerate(bodies) if isinstance(body, dict)]
    return tuple(found)


def fleet(documents: Iterable[Document], assumptions: Assumptions) -> Fleet:
    """Return what the InferenceRoutes among the documents can use. Pools and links are named as in the manifests.

    Raises:
        ManifestError: an object is not valid, missing, or used twice.
    """
    objects = Objects(documents)
    routes = objects.all(api.InferenceRoute)
    if not routes:
        raise ManifestError("the manifests hold no InferenceRoute, so there is nothing to plan for")
    builder = _Builder(objects, assumptions)
    clusters = tuple(builder.cluster(namespace, route) for (namespace, _), route in routes.items())
    known = {route.metadata.name for route in routes.values()}
    names = {pool.name for pool in builder.pools.values()} | builder.own
    for field, given, allowed in (("--weight", assumptions.weights, known), ("--bounds", assumptions.bounds, names)):
        for name in given:
            if name not in allowed:
                raise ManifestError(f"{field} {name}: no such name; there are {', '.join(sorted(allowed))}")
    return Fleet(clusters, tuple(builder.pools.values()), tuple(builder.links))


def now(documents: Iterable[Document]) -> dict[str, str]:
    """Return, by name of a pool or route, what the manifests say now: replicas, bounds, or threshold."""
    found = {}
    for document in documents:
        spec = document.body.get("spec") or {}
        match document.body.get("kind"):
            case "PrefillPool" | "DecodePool" if "replicas" in spec:
                found[document.key[1]] = str(spec["replicas"])
            case "PrefillPool" | "DecodePool" if "scaling" in spec:
                scaling = spec["scaling"]
                found[document.key[1]] = f"{scaling.get('minReplicas', 1)}-{scaling.get('maxReplicas')}"
            case "InferenceRoute":
                found[document.key[1]] = str((spec.get("policy") or {}).get("threshold", "Auto"))
    return found


def least_slo_s(documents: Iterable[Document]) -> float | None:
    """Return the shortest `slo.ttftSeconds` of the routes; None without any."""
    found = [route.spec.slo.ttft_seconds for route in Objects(documents).all(api.InferenceRoute).values()]
    return min((float(value) for value in found if value is not None), default=None)


_R = TypeVar("_R", bound=api.Resource)


class Objects:
    """The typed objects of the documents, by kind, namespace and name."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._found: dict[type[api.Resource], dict[tuple[str, str], api.Resource]] = {kind: {} for kind in api.KINDS}
        self._bodies: dict[tuple[str, str], Mapping[str, Any]] = {}
        kinds = {kind.__name__: kind for kind in api.KINDS}
        for document in documents:
            kind = kinds.get(str(document.body.get("kind")))
            if kind is None or document.body.get("apiVersion") != api.API_VERSION:
                continue
            try:
                self._found[kind][document.key] = kind.read(document.body)
            except pydantic.ValidationError as error:
                raise ManifestError(f"{document}: {api.explain(error)}") from error
            if kind is api.ModelProfile:
                self._bodies[document.key] = document.body["spec"]

    def all(self, kind: type[_R]) -> dict[tuple[str, str], _R]:
        """Return the objects of a kind by namespace and name."""
        return {key: value for key, value in self._found[kind].items() if isinstance(value, kind)}

    def get(self, kind: type[_R], namespace: str, name: str, wanted_by: str) -> _R:
        """Return one object.

        Raises:
            ManifestError: it is not among the documents; the message says who wants it.
        """
        found = self.all(kind).get((namespace, name))
        if found is None:
            raise ManifestError(
                f"{wanted_by}: {kind.__name__} {name} is not among the manifests; add its file with -f, or correct the name"
            )
        return found

    def profile(self, namespace: str, name: str, wanted_by: str) -> Profile:
        """Return the profile that a ModelProfile states.

        Raises:
            ManifestError: it is missing or not usable.
        """
        self.get(api.ModelProfile, namespace, name, wanted_by)
        try:
            return Profile.from_spec(self._bodies[namespace, name])
        except errors.CoreError as error:
            raise ManifestError(f"ModelProfile {name}: {error}") from error


class _Builder:
    def __init__(self, objects: Objects, assumptions: Assumptions) -> None:
        self._objects, self._assumptions = objects, assumptions
        self.pools: dict[tuple[str, str], InstancePool] = {}
        self.links: list[Link] = []
        self.own: set[str] = set()

    def cluster(self, namespace: str, route: api.InferenceRoute) -> DecodeCluster:
        spec, name = route.spec, route.metadata.name
        wanted_by = f"InferenceRoute {name}"
        decode_pool = self._objects.get(api.DecodePool, namespace, spec.decode_pool_ref.name, wanted_by)
        decode = self._own(namespace, decode_pool, wanted_by)
        local = local_pool = None
        if spec.local_prefill_pool_ref is not None:
            local_pool = self._objects.get(api.PrefillPool, namespace, spec.local_prefill_pool_ref.name, wanted_by)
            local = self._own(namespace, local_pool, wanted_by)
        for reference in spec.remote_prefill_pool_refs:
            remote = self._objects.get(api.PrefillPool, namespace, reference.name, wanted_by)
            self.pools.setdefault((namespace, reference.name), self._pool(namespace, remote, least=0))
            source, target = remote.spec.cluster_ref.name, decode_pool.spec.cluster_ref.name
            self.links.append(self._link(namespace, name, reference.name, source, target))
        role_total = None
        if (
            self._assumptions.exchange_roles
            and local is not None
            and local_pool is not None
            and local_pool.spec.replicas is not None
            and decode_pool.spec.replicas is not None
            and local.profile.accelerator == decode.profile.accelerator
            and not {local.name, decode.name} & set(self._assumptions.bounds)
        ):
            total = local_pool.spec.replicas + decode_pool.spec.replicas
            role_total = total if total >= 2 else None
        return DecodeCluster(
            name=name,
            lengths=self._assumptions.lengths,
            output_tokens=self._assumptions.output_tokens,
            decode=decode,
            local=local,
            role_total=role_total,
            weight=self._assumptions.weights.get(name, 1.0),
        )

    def _own(self, namespace: str, pool: api.Pool, wanted_by: str) -> InstancePool:
        name = pool.metadata.name
        if name in self.own:
            raise ManifestError(
                f"{wanted_by}: {name} serves another route too; plan one of the routes at a time with -f"
            )
        self.own.add(name)
        return self._pool(namespace, pool, least=1)

    def _pool(self, namespace: str, pool: api.Pool, least: int) -> InstancePool:
        name, spec = pool.metadata.name, pool.spec
        profile = self._objects.profile(namespace, spec.profile_ref.name, f"{type(pool).__name__} {name}")
        if name in self._assumptions.bounds:
            bounds = self._assumptions.bounds[name]
        elif spec.scaling is not None:
            bounds = Bounds(spec.scaling.min_replicas, spec.scaling.max_replicas)
        elif self._assumptions.free_up_to is not None:
            bounds = Bounds(least, max(least, self._assumptions.free_up_to, spec.replicas or 0))
        else:
            bounds = Bounds.exactly(spec.replicas or 0)
        price = self._assumptions.gpu_hour_prices.get(profile.accelerator, 0.0) * profile.accelerators_per_instance
        return InstancePool(name, profile, bounds, price)

    def _link(self, namespace: str, route: str, pool: str, source: str, target: str) -> Link:
        for (other, line), link in self._objects.all(api.KVLink).items():
            ends = (link.spec.from_cluster_ref.name, link.spec.to_cluster_ref.name)
            if other == namespace and ends == (source, target):
                capacity_bps = link.spec.capacity_gbps * 1e9
                return Link(pool, route, capacity_bps, link.spec.share, float(link.spec.cost_per_gb), line)
        raise ManifestError(
            f"InferenceRoute {route}: no KVLink leads from {source}, where {pool} is, to {target}; add one, or take {pool} out "
            "of remotePrefillPoolRefs"
        )
