"""Kubernetes events about pods, as `kubectl describe` shows them."""

from __future__ import annotations

import asyncio
import datetime
import logging
import uuid
from collections.abc import Hashable

from prfaas_local.node.apiserver import ApiError, ApiServer, ApiUnavailableError, Json
from prfaas_local.node.status import timestamp

logger = logging.getLogger(__name__)

_QUEUE_LENGTH = 200
_REPEAT_S = 300.0


class EventRecorder:
    """Send events one after the other. They are best effort: dropped when the queue is full or the server away.

    The same event about the same pod is sent once in five minutes.
    """

    def __init__(self, api: ApiServer, node_name: str) -> None:
        self._api = api
        self._node_name = node_name
        self._queue: asyncio.Queue[Json] = asyncio.Queue(_QUEUE_LENGTH)
        self._sent: dict[Hashable, float] = {}

    def emit(self, pod: Json, kind: str, reason: str, message: str, container: str | None = None) -> None:
        """Queue an event of kind Normal or Warning."""
        metadata = pod["metadata"]
        clock = asyncio.get_running_loop().time()
        key = (metadata["uid"], kind, reason, message, container)
        if kind == "Warning":
            if clock - self._sent.get(key, -_REPEAT_S) < _REPEAT_S:
                return
            if len(self._sent) >= _QUEUE_LENGTH:
                self._sent = {key: at for key, at in self._sent.items() if clock - at < _REPEAT_S}
            self._sent[key] = clock
        now = timestamp(datetime.datetime.now(datetime.UTC))
        regarding = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        if container:
            regarding["fieldPath"] = f"spec.containers{{{container}}}"
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
            "involvedObject": regarding,
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": "kubelet", "host": self._node_name},
            "reportingComponent": "kubelet",
            "reportingInstance": self._node_name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            logger.debug("event queue full: %s %s", reason, message)

    async def run(self) -> None:
        """Send queued events until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._api.request(
                    "POST", f"/api/v1/namespaces/{event['metadata']['namespace']}/events", body=event
                )
            except (ApiError, ApiUnavailableError) as error:
                # The namespace may be terminating, or the server away.
                logger.debug("event not sent: %s", error)
