"""A local copy of one kind of object, kept current by list and watch."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping

from prfaas_local.node.apiserver import ApiError, ApiServer, ApiUnavailableError, Json

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name."""
Listener = Callable[[Key, Json | None, Json | None], None]
"""Called with the key, the object before (None when added) and the object now (None when gone)."""

_RETRY_FIRST_S = 0.1
_RETRY_MOST_S = 3.0


class Reflector:
    """List once, then watch from the listed version on; a watch that breaks resumes where it stopped."""

    def __init__(self, api: ApiServer, path: str, params: Mapping[str, str] | None = None) -> None:
        self._api = api
        self._path = path
        self._params = dict(params or {})
        self._listeners: list[Listener] = []
        self.objects: dict[Key, Json] = {}
        self.synced = asyncio.Event()

    def listen(self, listener: Listener) -> None:
        """Call the listener for each change from now on. It must not block or raise."""
        self._listeners.append(listener)

    def remember(self, item: Json) -> None:
        """Take an object that was read directly, unless the copy is already newer."""
        before = self.objects.get(key_of(item))
        if before is None or int(before["metadata"]["resourceVersion"]) < int(item["metadata"]["resourceVersion"]):
            self._replace(key_of(item), item)

    async def run(self) -> None:
        """Follow the objects until cancelled."""
        version: str | None = None
        retry_s = _RETRY_FIRST_S
        while True:
            try:
                if version is None:
                    version = await self._list()
                async for event in self._api.watch(self._path, {**self._params, "resourceVersion": version}):
                    version = event["object"]["metadata"]["resourceVersion"]
                    retry_s = _RETRY_FIRST_S
                    if event["type"] != "BOOKMARK":
                        self._apply(event["type"], event["object"])
            except ApiError as error:
                # 410 Gone, or a version the restarted server does not know: only a new list helps.
                version = None
                if error.status != 410:
                    logger.warning("watch %s: %s", self._path, error)
            except ApiUnavailableError as error:
                logger.debug("%s", error)
            else:
                continue
            await asyncio.sleep(retry_s * random.uniform(0.8, 1.2))  # noqa: S311  jitter, not a secret
            retry_s = min(_RETRY_MOST_S, retry_s * 2)

    async def _list(self) -> str:
        answer = await self._api.request("GET", self._path, params=self._params)
        listed = {key_of(item): item for item in answer.get("items") or []}
        for key in [key for key in self.objects if key not in listed]:
            self._notify(key, self.objects.pop(key), None)
        for key, item in listed.items():
            self._replace(key, item)
        self.synced.set()
        version: str = answer["metadata"]["resourceVersion"]
        return version

    def _apply(self, kind: str, item: Json) -> None:
        key = key_of(item)
        if kind == "DELETED":
            self._notify(key, self.objects.pop(key, None), None)
        else:
            self._replace(key, item)

    def _replace(self, key: Key, item: Json) -> None:
        before = self.objects.get(key)
        if before and before["metadata"]["resourceVersion"] == item["metadata"]["resourceVersion"]:
            return
        self.objects[key] = item
        if before and before["metadata"]["uid"] != item["metadata"]["uid"]:
            # Deleted and created again between two looks: two changes, not one.
            self._notify(key, before, None)
            before = None
        self._notify(key, before, item)

    def _notify(self, key: Key, before: Json | None, now: Json | None) -> None:
        for listener in self._listeners:
            listener(key, before, now)


def key_of(item: Json) -> Key:
    """Return the namespace and name of an object."""
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
