"""The objects of the hub as the operator holds them, and how they refer to each other."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from prfaas_operator import api
from prfaas_operator.api.route_plan import RolesMode
from prfaas_operator.children.metadata import Owner
from prfaas_operator.clusters.cache import resource_version

_MODELS = {model.__name__: model for model in api.KINDS}
POOL_KINDS = (api.PrefillPool.__name__, api.DecodePool.__name__)

ModelT = TypeVar("ModelT", bound=api.Resource)


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Names one object of the hub."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Ref":
        return cls(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Stored:
    """One object: as the API server gave it, and as its model where it can be read."""

    body: Mapping[str, Any]
    model: api.Resource | None
    fault: str  # why the model is absent

    @property
    def ref(self) -> Ref:
        return Ref.of(self.body)

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])

    @property
    def generation(self) -> int:
        return int(self.body["metadata"].get("generation", 0))

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.body["metadata"]

    @property
    def owner(self) -> Owner:
        """The mark of this object on its children."""
        ref = self.ref
        return Owner(ref.kind, ref.namespace, ref.name, self.uid)


def read(body: Mapping[str, Any]) -> Stored:
    """Return an object with its model; one that the models refuse is kept, with what is wrong about it."""
    try:
        return Stored(body, _MODELS[body["kind"]].read(body), "")
    except ValidationError as error:
        return Stored(body, None, api.explain(error))


@dataclass(slots=True)
class ObjectStore:
    """Every object of the group `prfaas.dev` on the hub, by reference."""

    _objects: dict[Ref, Stored] = field(default_factory=dict)
    _namespaces: dict[str, dict[Ref, Stored]] = field(default_factory=dict)  # the same; references stay within one

    def observe(self, body: Mapping[str, Any]) -> Ref | None:
        """Take an object; return its reference, or None when a newer version of it is known."""
        ref = Ref.of(body)
        before = self._objects.get(ref)
        if (
            before is not None
            and before.uid == body["metadata"]["uid"]
            and resource_version(before.body) >= resource_version(body)
        ):
            return None
        self._objects[ref] = self._namespaces.setdefault(ref.namespace, {})[ref] = read(body)
        return ref

    def refresh(self, body: Mapping[str, Any]) -> None:
        """Take the answer to a write. The watch may have told before it that the object is gone, and then it stays so."""
        before = self._objects.get(Ref.of(body))
        if before is not None and before.uid == body["metadata"]["uid"]:
            self.observe(body)

    def remove(self, body: Mapping[str, Any]) -> Ref | None:
        """Take a deletion; return the reference, or None when another object of that name is known."""
        ref = Ref.of(body)
        before = self._objects.get(ref)
        if before is None or before.uid != body["metadata"]["uid"]:
            return None
        del self._objects[ref], self._namespaces[ref.namespace][ref]
        return ref

    def get(self, ref: Ref) -> Stored | None:
        return self._objects.get(ref)

    def model(self, kind: type[ModelT], namespace: str, name: str) -> tuple[Stored, ModelT] | None:
        """Return an object and its model; None when there is none, or none that can be read."""
        found = self._objects.get(Ref(kind.__name__, namespace, name))
        if found is None or not isinstance(found.model, kind):
            return None
        return found, found.model

    def models(self, kind: type[ModelT], namespace: str) -> Iterator[tuple[Stored, ModelT]]:
        """Yield the readable objects of a kind in a namespace, by name."""
        found = [
            (ref, stored, model)
            for ref, stored in self._namespaces.get(namespace, {}).items()
            if isinstance(model := stored.model, kind)
        ]
        for _, stored, model in sorted(found, key=lambda item: item[0]):
            yield stored, model

    def refs(self, kinds: Iterable[str] = tuple(_MODELS)) -> list[Ref]:
        wanted = set(kinds)
        return sorted(ref for ref in self._objects if ref.kind in wanted)

    def dependents(self, ref: Ref) -> set[Ref]:
        """Return the objects whose reconciliation reads `ref`, itself included.

        A route reads everything below it; a decode pool carries the sidecars of its routes, and exchanges instances with the
        local prefill pool as they say. So the answer is closed over all of these.
        """
        found, there = {ref}, self._namespaces.get(ref.namespace, {})
        found.update(other for other, stored in there.items() if _refers(stored.model, ref))
        pools = {other for other in found if other.kind in POOL_KINDS}
        for other, stored in there.items():
            if isinstance(stored.model, api.InferenceRoute):
                if any(_refers(stored.model, pool) for pool in pools):
                    found.add(other)
                    if stored.model.spec.policy.roles.mode is RolesMode.AUTO:
                        found |= _side_by_side(other, stored.model)
                if other == ref:
                    found |= _side_by_side(other, stored.model)
                if ref.kind == api.KVLink.__name__:
                    found.add(other)
        return found


def _side_by_side(ref: Ref, route: api.InferenceRoute) -> set[Ref]:
    """Return the pools of a route in the decode cluster."""
    found = {Ref(api.DecodePool.__name__, ref.namespace, route.spec.decode_pool_ref.name)}
    if route.spec.local_prefill_pool_ref is not None:
        found.add(Ref(api.PrefillPool.__name__, ref.namespace, route.spec.local_prefill_pool_ref.name))
    return found


def _refers(model: api.Resource | None, ref: Ref) -> bool:
    match model:
        case api.Pool():
            return (ref.kind, ref.name) in (
                (api.MemberCluster.__name__, model.spec.cluster_ref.name),
                (api.ModelProfile.__name__, model.spec.profile_ref.name),
            )
        case api.KVLink():
            ends = (model.spec.from_cluster_ref.name, model.spec.to_cluster_ref.name)
            return ref.kind == api.MemberCluster.__name__ and ref.name in ends
        case api.Budget():
            return ref.kind in (*POOL_KINDS, api.ModelProfile.__name__, api.KVLink.__name__)
        case api.InferenceRoute():
            spec = model.spec
            prefill = [pool.name for pool in spec.remote_prefill_pool_refs]
            if spec.local_prefill_pool_ref is not None:
                prefill.append(spec.local_prefill_pool_ref.name)
            return (ref.kind == api.DecodePool.__name__ and ref.name == spec.decode_pool_ref.name) or (
                ref.kind == api.PrefillPool.__name__ and ref.name in prefill
            )
        case _:
            return False
