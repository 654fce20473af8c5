"""Sends a pod's status to the API server: only changes, the newest state, and again until it arrives."""

from __future__ import annotations

import asyncio
import logging

from prfaas_local.node.apiserver import (
    STRATEGIC_MERGE_PATCH,
    ApiError,
    ApiServer,
    ApiUnavailableError,
    Json,
    retry_delays,
)
from prfaas_local.node.context import now_timestamp
from prfaas_local.node.status import PodView, pod_status

logger = logging.getLogger(__name__)


class PodStatusWriter:
    """Writes the status of one pod. States published while a request is under way are merged into the next one."""

    def __init__(self, api: ApiServer, pod: Json) -> None:
        metadata = pod["metadata"]
        self._api = api
        self._uid: str = metadata["uid"]
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        self._conditions = {item["type"]: item for item in (pod.get("status") or {}).get("conditions") or []}
        self._wanted: Json | None = None
        self._sent: Json | None = None
        self._sent_version = 0
        self._pending = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task = asyncio.create_task(self._run())

    def publish(self, view: PodView) -> None:
        """Make this the pod's status as soon as the API server takes it."""
        status = pod_status(view, self._conditions, now_timestamp())
        self._conditions = {item["type"]: item for item in status["conditions"]}
        if status != self._wanted:
            self._wanted = status
            self._idle.clear()
            self._pending.set()

    def observe(self, pod: Json) -> None:
        """Take note of the object as it is now; what somebody else changed about the node's conditions is sent again.

        Controllers mark the pods of a node that is silent for a while as not ready.
        """
        if self._sent is None or int(pod["metadata"]["resourceVersion"]) <= self._sent_version:
            return
        found = {item["type"]: item["status"] for item in (pod.get("status") or {}).get("conditions") or []}
        if any(found.get(item["type"]) != item["status"] for item in self._sent["conditions"]):
            self._sent = None
            self._idle.clear()
            self._pending.set()

    def stop(self) -> None:
        """Give up what was not sent."""
        self._task.cancel()
        self._idle.set()

    async def finish_deletion(self) -> None:
        """Send the last status and delete the object for good; retries until the API server has done it."""
        await self._idle.wait()
        body: Json = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": self._uid},
        }
        async for _ in retry_delays():
            try:
                await self._api.request("DELETE", self._path, body=body)
            except ApiUnavailableError as error:
                logger.debug("%s", error)
                continue
            except ApiError as error:
                # 404: gone; 409: another pod has the name now.
                if error.status not in {404, 409}:
                    logger.warning("cannot delete %s: %s", self._path, error)
                    continue
            break
        self.stop()

    async def _run(self) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            async for _ in retry_delays():
                wanted = self._wanted
                if wanted == self._sent:
                    break
                if await self._send(wanted):
                    self._sent = wanted
                    break
            if not self._pending.is_set():
                self._idle.set()

    async def _send(self, status: Json | None) -> bool:
        body: Json = {"metadata": {"uid": self._uid}, "status": status}
        try:
            answer = await self._api.request(
                "PATCH", f"{self._path}/status", body=body, content_type=STRATEGIC_MERGE_PATCH
            )
        except ApiUnavailableError as error:
            logger.debug("%s", error)
            return False
        except ApiError as error:
            if error.status in {404, 409}:
                # The pod is gone; its removal arrives through the watch.
                return True
            logger.warning("status of %s refused: %s", self._path, error)
            # 403 is tried again: an API server that has just started refuses everybody until it knows its RBAC objects.
            return error.status in {400, 422}
        self._sent_version = int(answer["metadata"]["resourceVersion"])
        return True
