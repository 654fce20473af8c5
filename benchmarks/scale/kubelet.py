"""Plays the kubelet: pods that appear are reported ready after a moment, as if their workers had started."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
from engines import Engines

STARTUP_S = 3.0
_SELECTOR = "app.kubernetes.io/managed-by=prfaas"
_PATCHES = 8


class Kubelet:
    """Watches the pods of all namespaces, as an administrator."""

    def __init__(self, server: str, pki: Path, engines: Engines) -> None:
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._session = aiohttp.ClientSession(server, connector=aiohttp.TCPConnector(ssl=context, limit=2 * _PATCHES))
        self._engines = engines
        self._room = asyncio.Semaphore(_PATCHES)
        self._started: dict[str, asyncio.Task[None]] = {}
        self._numbers = itertools.count(1)
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watch = asyncio.create_task(self._run())

    async def stop(self) -> None:
        tasks = [*self._started.values(), *([self._watch] if self._watch else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def check(self) -> None:
        """Raise what ended the watch, if something did."""
        if self._watch is not None and self._watch.done():
            self._watch.result()
            raise RuntimeError("the watch of the kubelet has ended")

    async def _run(self) -> None:
        query = {"labelSelector": _SELECTOR}
        async with self._session.get("/api/v1/pods", params=query) as answer:
            found = await answer.json()
        for pod in found["items"]:
            self._seen("ADDED", pod)
        query |= {"watch": "true", "resourceVersion": found["metadata"]["resourceVersion"], "timeoutSeconds": "3600"}
        limit = aiohttp.ClientTimeout(total=None)
        async with self._session.get("/api/v1/pods", params=query, timeout=limit) as answer:
            while line := await answer.content.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise RuntimeError(event["object"]["message"])
                self._seen(event["type"], event["object"])

    def _seen(self, type_: str, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        uid, pool = metadata["uid"], metadata["labels"].get("prfaas.dev/pool", "")
        if type_ == "DELETED" or "deletionTimestamp" in metadata:
            self._engines.remove(metadata["namespace"], pool, metadata["name"])
            task = self._started.pop(uid, None)
            if task is not None:
                task.cancel()
        elif uid not in self._started:
            self._started[uid] = asyncio.create_task(self._start(metadata["namespace"], metadata["name"], pool))

    async def _start(self, namespace: str, name: str, pool: str) -> None:
        await asyncio.sleep(STARTUP_S)
        number = next(self._numbers)
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        condition = {"type": "Ready", "status": "True", "lastTransitionTime": now}
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [condition]}
        path, kind = f"/api/v1/namespaces/{namespace}/pods/{name}/status", "application/strategic-merge-patch+json"
        async with self._room:
            answer = await self._session.patch(path, json={"status": status}, headers={"Content-Type": kind})
            answer.release()
        if answer.status == 404:
            return
        answer.raise_for_status()
        self._engines.add(namespace, pool, name)
