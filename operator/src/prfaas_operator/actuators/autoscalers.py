"""The HorizontalPodAutoscalers on the hub whose target is a pool, those that KEDA makes included.

Others are not kept. Without the right to read them the operator works as before and says what it does not know.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prfaas_operator import api
from prfaas_operator.clusters.api import ApiError, ClusterApi
from prfaas_operator.clusters.resources import HORIZONTAL_POD_AUTOSCALER, Resource
from prfaas_operator.clusters.watch import Watch, WatchTimes
from prfaas_operator.objects import POOL_KINDS, Ref

_KEDA_GROUP = "keda.sh"
_KEDA_KIND = "ScaledObject"


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """A HorizontalPodAutoscaler that sizes a pool.

    Attributes:
        scaled_object: the ScaledObject of KEDA that it belongs to.
        counting: its external metrics with a target of type Value, for which Kubernetes counts ready pods in the hub.
    """

    name: str
    pool: Ref
    min_replicas: int
    max_replicas: int
    scaled_object: str | None = None
    counting: tuple[str, ...] = ()

    def __str__(self) -> str:
        own = f"{HORIZONTAL_POD_AUTOSCALER.kind} {self.name}"
        return own if self.scaled_object is None else f"{_KEDA_KIND} {self.scaled_object} of KEDA ({own})"


def read(body: Mapping[str, Any]) -> Autoscaler | None:
    """Return a HorizontalPodAutoscaler of `autoscaling/v2` that sizes a pool; None for any other."""
    metadata, spec = body["metadata"], body["spec"]
    target = spec["scaleTargetRef"]
    if target.get("apiVersion", "").partition("/")[0] != api.GROUP or target["kind"] not in POOL_KINDS:
        return None
    owners = metadata.get("ownerReferences") or ()
    scaled_objects = [
        owner["name"]
        for owner in owners
        if owner["kind"] == _KEDA_KIND and owner["apiVersion"].partition("/")[0] == _KEDA_GROUP
    ]
    external = [metric["external"] for metric in spec.get("metrics") or () if metric["type"] == "External"]
    return Autoscaler(
        name=metadata["name"],
        pool=Ref(target["kind"], metadata["namespace"], target["name"]),
        min_replicas=int(spec.get("minReplicas", 1)),
        max_replicas=int(spec["maxReplicas"]),
        scaled_object=scaled_objects[0] if scaled_objects else None,
        counting=tuple(metric["metric"]["name"] for metric in external if metric["target"]["type"] == "Value"),
    )


class Autoscalers:
    """Mirrors them by watches; `on_change` hears of the pools whose autoscalers are no longer what they were.

    Args:
        namespaces: that are watched; none: all.
        on_readable: hears when what `fault` says has changed.
    """

    def __init__(
        self,
        hub: ClusterApi,
        *,
        namespaces: tuple[str, ...],
        on_change: Callable[[Ref], None],
        on_readable: Callable[[], None],
        times: WatchTimes,
    ) -> None:
        self._hub = hub
        self._times = times
        scopes: tuple[str | None, ...] = namespaces or (None,)
        self._scopes = {namespace: _Scope(on_change, on_readable) for namespace in scopes}

    async def fill(self) -> None:
        """Take what is there, before there is a watch."""
        for namespace, scope in self._scopes.items():
            try:
                items, _ = await self._hub.list(HORIZONTAL_POD_AUTOSCALER, namespace)
            except ApiError as error:
                scope.failed(error)
            else:
                scope.replace(HORIZONTAL_POD_AUTOSCALER, items)

    async def run(self) -> None:
        """Watch until cancelled."""
        await asyncio.gather(
            *(
                Watch(
                    self._hub, HORIZONTAL_POD_AUTOSCALER, namespace, scope,
                    label_selector=None, on_failure=scope.failed, times=self._times,
                ).run()
                for namespace, scope in self._scopes.items()
            )
        )  # fmt: skip

    def of(self, pool: Ref) -> tuple[Autoscaler, ...]:
        """Return the autoscalers of a pool, by name."""
        scope = self._scope(pool.namespace)
        found = (item for item in scope.found.values() if item.pool == pool) if scope is not None else ()
        return tuple(sorted(found, key=lambda item: item.name))

    def fault(self, namespace: str) -> str | None:
        """Return why the autoscalers of a namespace are not known, or None when they are."""
        scope = self._scope(namespace)
        return scope.fault if scope is not None else f"namespace {namespace} is not watched"

    def _scope(self, namespace: str) -> "_Scope | None":
        return self._scopes.get(None) or self._scopes.get(namespace)


class _Scope:
    """The autoscalers of one watch."""

    def __init__(self, on_change: Callable[[Ref], None], on_readable: Callable[[], None]) -> None:
        self.found: dict[tuple[str, str], Autoscaler] = {}
        self.fault: str | None = f"{HORIZONTAL_POD_AUTOSCALER.plural} have not been listed yet"
        self._on_change = on_change
        self._on_readable = on_readable

    def replace(self, _: Resource, items: Iterable[dict[str, Any]]) -> None:
        listed = {_key(item): item for item in items}
        for key in self.found.keys() - listed.keys():
            self._put(key, None)
        for key, item in listed.items():
            self._put(key, read(item))
        self._readable(None)

    def observe(self, _: Resource, item: dict[str, Any]) -> None:
        self._put(_key(item), read(item))

    def remove(self, _: Resource, item: dict[str, Any]) -> None:
        self._put(_key(item), None)

    def failed(self, error: ApiError) -> None:
        """Take a failure of the watch. An API server that does not answer leaves what is known as it is."""
        if error.status == 403:
            self._readable(
                f"{HORIZONTAL_POD_AUTOSCALER.plural} cannot be read ({error.message}); "
                "let the operator get, list and watch them, as the chart prfaas does"
            )
        elif self.fault is not None:
            self._readable(f"{HORIZONTAL_POD_AUTOSCALER.plural} cannot be read ({error})")

    def _put(self, key: tuple[str, str], item: Autoscaler | None) -> None:
        before = self.found.pop(key, None)
        if item is not None:
            self.found[key] = item
        if item != before:
            for pool in {found.pool for found in (before, item) if found is not None}:
                self._on_change(pool)

    def _readable(self, fault: str | None) -> None:
        if fault != self.fault:
            self.fault = fault
            self._on_readable()


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]
