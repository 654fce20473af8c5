"""A watch that lasts: one kind in one namespace, or in all, mirrored for as long as somebody wants to know.

`kubernetes.aio.watch` retries for ever without a pause, notices no silent stream and gives up on its second 410; this loop
resumes from the last resourceVersion after a cut, lists again when that has expired, and backs off while the server is away.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from prfaas_operator.clusters.api import ApiError, ClusterApi
from prfaas_operator.clusters.resources import Resource

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """How long the phases of a watch may last, seconds."""

    lifetime_s: int = 290  # the server ends a stream then, and the next one resumes
    silence_s: float = 75.0  # servers send a bookmark every minute, so a longer silence is a dead connection
    brief_s: float = 1.0  # a stream that ended sooner counts as a failure
    backoff_first_s: float = 0.2
    backoff_last_s: float = 5.0


class Mirror(Protocol):
    """What a watch keeps up to date."""

    def replace(self, resource: Resource, items: Iterable[dict[str, Any]]) -> None:
        """Take a complete list: what is not in it is gone."""

    def observe(self, resource: Resource, item: dict[str, Any]) -> None:
        """Take one object, which is new or has changed."""

    def remove(self, resource: Resource, item: dict[str, Any]) -> None:
        """Take a deletion."""


class Watch:
    """Keeps a mirror up to date with one kind of one cluster; a namespace of None is all of them."""

    def __init__(
        self,
        api: ClusterApi,
        resource: Resource,
        namespace: str | None,
        mirror: Mirror,
        *,
        label_selector: str | None,
        on_failure: Callable[[ApiError], None],
        times: WatchTimes,
    ) -> None:
        self._api = api
        self._resource = resource
        self._namespace = namespace
        self._mirror = mirror
        self._label_selector = label_selector
        self._on_failure = on_failure
        self._times = times
        self._resource_version: str | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        log = _log.bind(host=self._api.host, resource=self._resource.plural, namespace=self._namespace)
        failures = 0
        while True:
            try:
                if self._resource_version is None:
                    items, version = await self._api.list(
                        self._resource, self._namespace, label_selector=self._label_selector
                    )
                    self._mirror.replace(self._resource, items)
                    self._resource_version = version
                    log.debug("listed", objects=len(items), resource_version=version)
                began_s = time.monotonic()
                async for _ in self._events(self._resource_version):
                    failures = 0
                if time.monotonic() - began_s > self._times.brief_s:
                    failures = 0
                    continue
                # A stream that ends as soon as it begins, again and again, must not become a busy loop.
            except ApiError as error:
                if error.expired:
                    log.info("resourceVersion expired, listing again", resource_version=self._resource_version)
                    self._resource_version = None
                else:
                    # Said once for each interruption; what follows of it is of interest to nobody.
                    (log.debug if failures else log.warning)("watch interrupted", error=str(error))
                    self._on_failure(error)
            failures += 1
            # Spread, so that the watches of a cluster that returns do not arrive all at once.
            delay_s = min(self._times.backoff_first_s * 2.0 ** min(failures - 1, 16), self._times.backoff_last_s)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311

    async def _events(self, resource_version: str) -> AsyncIterator[None]:
        async for event in self._api.watch(
            self._resource,
            self._namespace,
            resource_version=resource_version,
            label_selector=self._label_selector,
            lifetime_s=self._times.lifetime_s,
            silence_s=self._times.silence_s,
        ):
            item = event["object"]
            self._resource_version = item["metadata"]["resourceVersion"]
            match event["type"]:
                case "ADDED" | "MODIFIED":
                    self._mirror.observe(self._resource, item)
                case "DELETED":
                    self._mirror.remove(self._resource, item)
            yield
