"""Kubernetes Events about the hub's objects: what a person who runs `kubectl describe` should hear of.

Events are a courtesy. They wait in a short queue, and when the hub is slow the newest are dropped rather than anything held up.
"""

import asyncio
import uuid
from datetime import UTC, datetime
from enum import StrEnum

import structlog

from prfaas_operator.clusters.api import ApiError, ClusterApi, FencedError
from prfaas_operator.clusters.resources import EVENT
from prfaas_operator.objects import Stored

_log = structlog.get_logger(__name__)
_COMPONENT = "prfaas-operator"
_QUEUE_LENGTH = 256
_MAX_MESSAGE = 1024


class EventType(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


class EventRecorder:
    """Posts Events in the background."""

    def __init__(self, api: ClusterApi) -> None:
        self._api = api
        self._queue: asyncio.Queue[dict[str, object]] = asyncio.Queue(_QUEUE_LENGTH)

    def record(self, about: Stored, type_: EventType, reason: str, message: str) -> None:
        """Queue an Event about an object."""
        ref, now = about.ref, datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        body: dict[str, object] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{ref.name}.{uuid.uuid4().hex[:12]}", "namespace": ref.namespace},
            "involvedObject": {
                "apiVersion": about.body["apiVersion"],
                "kind": ref.kind,
                "name": ref.name,
                "namespace": ref.namespace,
                "uid": about.uid,
                "resourceVersion": about.body["metadata"]["resourceVersion"],
            },
            "reason": reason,
            "message": message[:_MAX_MESSAGE],
            "type": type_.value,
            "source": {"component": _COMPONENT},
            "reportingComponent": _COMPONENT,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._queue.put_nowait(body)
        except asyncio.QueueFull:
            _log.warning("event dropped", about=str(ref), reason=reason)

    async def run(self) -> None:
        """Post until cancelled."""
        while True:
            body = await self._queue.get()
            metadata = body["metadata"]
            assert isinstance(metadata, dict)  # noqa: S101  as `record` made it
            try:
                await self._api.create(EVENT, metadata["namespace"], body)
            except (ApiError, FencedError) as error:
                _log.warning("event not posted", reason=body["reason"], error=str(error))
