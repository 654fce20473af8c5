"""Comparing the hub's objects with what the watches have told of them.

A watch can die without a word: its task ends, or a proxy keeps a connection open on which nothing comes any more. So the
objects are listed now and then. A change that the list has and the watch does not bring shortly after is taken from here, so
that nothing stays undone, and counted, so that somebody looks into it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from prfaas_operator.clusters.api import ApiError, ClusterApi
from prfaas_operator.clusters.cache import resource_version
from prfaas_operator.clusters.resources import BY_KIND, OWN, Resource
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import ObjectStore, Ref

_log = structlog.get_logger(__name__)

# What a watch gets to bring a change that a list has shown.
_GRACE_S = 2.0
_SILENT_ROUNDS = 10


class Comparison:
    """Fills the store at the start, and checks it at a steady pace afterwards."""

    def __init__(
        self,
        hub: ClusterApi,
        store: ObjectStore,
        observe: Callable[[str | None, dict[str, Any]], None],
        metrics: Metrics,
        *,
        namespaces: tuple[str, ...],
        interval_s: float,
    ) -> None:
        self._hub = hub
        self._store = store
        self._observe = observe
        self._metrics = metrics
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._interval_s = interval_s
        self._done_at_s = time.monotonic()
        self._stale_rounds = 0  # in a row that found missed changes

    async def fill(self) -> None:
        """Take all objects, before there is a watch."""
        for resource in OWN:
            for namespace in self._namespaces:
                items, _ = await self._hub.list(resource, namespace)
                for item in items:
                    self._observe(None, item)
        self._done_at_s = time.monotonic()

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                missed = 0
                for resource in OWN:
                    for namespace in self._namespaces:
                        missed += await self._compare(resource, namespace)
            except ApiError as error:
                _log.warning("hub not compared", error=str(error))
                continue
            self._stale_rounds = self._stale_rounds + 1 if missed else 0
            self._done_at_s = time.monotonic()

    def fault(self) -> str | None:
        """Return what is wrong with the watches, if a restart would mend it."""
        if self._stale_rounds >= 2:
            return "the watch of the hub misses changes"
        silent_s = time.monotonic() - self._done_at_s
        if silent_s > _SILENT_ROUNDS * self._interval_s:
            return f"the hub was not compared for {silent_s:.0f} s"
        return None

    async def _compare(self, resource: Resource, namespace: str | None) -> int:
        """Return how many changes of one kind the watch has missed."""
        items, _ = await self._hub.list(resource, namespace)
        listed = {Ref.of(item): item for item in items}
        suspects = [ref for ref, item in listed.items() if self._behind(ref, item)]
        suspects += [
            ref
            for ref in self._store.refs((resource.kind,))
            if ref not in listed and (namespace is None or ref.namespace == namespace)
        ]
        if not suspects:
            return 0
        # What changed around the time of the list, the watch is about to bring.
        await asyncio.sleep(_GRACE_S)
        return sum([await self._missed(ref, listed.get(ref)) for ref in suspects])

    async def _missed(self, ref: Ref, listed: Mapping[str, Any] | None) -> bool:
        """Look at a suspect again, take what is there now, and return whether the watch has missed it."""
        before = self._store.get(ref)
        live = await self._hub.get(BY_KIND[ref.kind], ref.namespace, ref.name)
        if listed is not None and not self._behind(ref, listed):
            return False
        if live is not None:
            if not self._behind(ref, live):
                return False
            self._observe(None, live)
        elif before is not None and self._store.get(ref) is before:
            self._observe("DELETED", dict(before.body))
        else:
            return False
        _log.error("the watch missed a change", object=str(ref))
        self._metrics.missed_events.labels(ref.kind).inc()
        return True

    def _behind(self, ref: Ref, item: Mapping[str, Any]) -> bool:
        known = self._store.get(ref)
        return known is None or resource_version(known.body) < resource_version(item)
