"""A small client of one Kubernetes API server, on `kubernetes.aio`'s transport.

Objects are plain dictionaries, as the API gives them: the operator reads and writes fields of the user's pod templates that
no typed model of this client may drop. Every call has a time limit, and every failure is an `ApiError` that says whether
the cluster answered. Calls that write pass the fence first, so that an operator that lost its Lease changes nothing.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient

from prfaas_operator.clusters.resources import Resource

FIELD_MANAGER = "prfaas-operator"
_MERGE_PATCH = "application/merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"


class ApiError(Exception):
    """The API server refused a call, or did not answer (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def unreachable(self) -> bool:
        """Whether the cluster itself is the problem, rather than what was asked of it."""
        return self.status == 0 or self.status in (401, 429) or self.status >= 500

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        return self.status == 409

    @property
    def expired(self) -> bool:
        """Whether the resourceVersion asked for is no longer kept."""
        return self.status == 410


class FencedError(Exception):
    """This operator no longer holds the Lease and must not write."""


class ClusterApi:
    """Reads and writes objects of one cluster."""

    def __init__(self, client: ApiClient, *, timeout_s: float, fence: Callable[[], bool] | None = None) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._fence = fence
        self._closed = False

    @property
    def host(self) -> str:
        return str(self._client.configuration.host)

    async def close(self) -> None:
        self._closed = True
        await self._client.close()

    async def version(self) -> str:
        """Return the version of the API server, as `v1.36.3`."""
        answer = await self._call("GET", "/version")
        return str(answer.get("gitVersion", ""))

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any] | None:
        """Return one object, or None when there is none."""
        try:
            return await self._call("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def list(
        self, resource: Resource, namespace: str | None, *, label_selector: str | None = None
    ) -> tuple[list[dict[str, Any]], str]:
        """Return all objects and the resourceVersion at which a watch continues."""
        items: list[dict[str, Any]] = []
        query: dict[str, str] = {"limit": "500"}
        if label_selector:
            query["labelSelector"] = label_selector
        while True:
            page = await self._call("GET", resource.path(namespace), query=query)
            # Items of a list carry neither kind nor apiVersion.
            items.extend(
                {"apiVersion": resource.api_version, "kind": resource.kind, **item} for item in page.get("items") or []
            )
            metadata = page.get("metadata") or {}
            token = metadata.get("continue")
            if not token:
                return items, str(metadata.get("resourceVersion", ""))
            query["continue"] = token

    async def create(self, resource: Resource, namespace: str | None, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._call(
            "POST", resource.path(namespace), query={"fieldManager": FIELD_MANAGER}, body=body, write=True
        )

    async def review_token(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask a question that is phrased as a create and stores nothing."""
        return await self._call("POST", resource.path(), body=body)

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write a whole object; its resourceVersion guards against an overwrite."""
        return await self._call("PUT", resource.path(namespace, name), body=body, write=True)

    async def apply(self, resource: Resource, body: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        """Server-side apply `body` under the operator's field manager."""
        metadata = body["metadata"]
        return await self._call(
            "PATCH",
            resource.path(metadata.get("namespace"), metadata["name"]),
            query={"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"},
            body=body,
            content_type=_APPLY_PATCH,
            write=True,
        )

    async def merge(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Mapping[str, Any],
        *,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """Merge-patch an object, or its status."""
        return await self._call(
            "PATCH",
            resource.path(namespace, name, subresource),
            query={"fieldManager": FIELD_MANAGER},
            body=body,
            content_type=_MERGE_PATCH,
            write=True,
        )

    async def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str | None = None) -> bool:
        """Delete an object, of this uid if given; return False when it was gone already."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", resource.path(namespace, name), body=body, write=True)
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return True

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        resource_version: str,
        label_selector: str | None,
        lifetime_s: int,
        silence_s: float,
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield watch events until the server ends the stream.

        Raises `ApiError`, also for an ERROR event (410 when the resourceVersion has expired), and when nothing, not even a
        bookmark, arrives for `silence_s`.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(lifetime_s),
        }
        if label_selector:
            query["labelSelector"] = label_selector
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=silence_s)
        response = await self._send("GET", resource.path(namespace), query=query, limit=timeout)
        try:
            if response.status != 200:
                raise _refusal(response.status, response.reason, await response.read())
            while line := await response.content.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(
                        int(status.get("code", 500)), str(status.get("reason", "")), str(status.get("message", ""))
                    )
                yield event
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(0, "StreamBroken", f"watch of {resource.plural} broke: {_text(error)}") from error
        finally:
            response.close()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        write: bool = False,
    ) -> dict[str, Any]:
        if write and self._fence is not None and not self._fence():
            raise FencedError("the Lease is not held any more; nothing is written")
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        response = await self._send(method, path, query=query, body=body, content_type=content_type, limit=timeout)
        try:
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{method} {self.host}{path}: {_text(error)}") from error
        if not 200 <= response.status < 300:
            raise _refusal(response.status, response.reason, data)
        answer: dict[str, Any] = json.loads(data)
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        limit: aiohttp.ClientTimeout,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> aiohttp.ClientResponse:
        try:
            method, url, headers, payload, _ = await self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self._client.call_api(method, url, headers, payload, _request_timeout=limit)
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{method} {self.host}{path}: {_text(error)}") from error
        except (RuntimeError, AssertionError) as error:
            # What aiohttp raises in a call that is under way while its session is closed.
            if not self._closed:
                raise
            raise ApiError(0, "Closed", f"{method} {self.host}{path}: the client was closed") from error
        response: aiohttp.ClientResponse = answer.response
        return response


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _refusal(status: int, reason: str | None, data: bytes) -> ApiError:
    """Turn an error answer into an exception; proxies answer with pages, not with a Status object."""
    try:
        body = json.loads(data)
        return ApiError(status, str(body.get("reason", reason)), str(body.get("message", "")))
    except (ValueError, AttributeError):
        return ApiError(status, reason or "", data[:200].decode(errors="replace"))
