"""A thin asynchronous client of the Kubernetes API: plain JSON objects, one connection pool.

The generated client's models cost more memory and time than everything else an agent does, so objects stay dicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from prfaas_local.node.kubeconfig import Credentials

Json = dict[str, Any]

REQUEST_TIMEOUT_S = 15.0
WATCH_TIMEOUT_S = 300
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """The API server answered with an error status."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class ApiUnavailableError(Exception):
    """The API server did not answer: refused, reset or timed out."""


class ApiServer:
    """One API server. Use as an asynchronous context manager."""

    def __init__(self, credentials: Credentials, *, user_agent: str) -> None:
        self.credentials = credentials
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            # Watches hold connections for minutes; a bound on the pool would starve short requests.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            headers={"User-Agent": self._user_agent, "Accept": "application/json"},
            auto_decompress=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        """Send one request and return the decoded object.

        Raises `ApiError` for an error status and `ApiUnavailableError` when no answer came.
        """
        try:
            async with self._open(
                method,
                path,
                params=params,
                data=None if body is None else orjson.dumps(body),
                headers={"Content-Type": content_type},
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailableError(f"{method} {path}: {str(error) or type(error).__name__}") from error
        if response.status >= 400:
            raise _api_error(response.status, content)
        decoded: Json = orjson.loads(content)
        return decoded

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[Json]:
        """Yield watch events until the server ends the watch. Raises as `request` does."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT_S, sock_read=WATCH_TIMEOUT_S + 30)
        query = {**params, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_TIMEOUT_S)}
        try:
            async with self._open("GET", path, params=query, timeout=timeout) as response:
                if response.status >= 400:
                    raise _api_error(response.status, await response.read())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event: Json = orjson.loads(line)
                        if event["type"] == "ERROR":
                            status = event["object"]
                            raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
                        yield event
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailableError(f"watch {path}: {str(error) or type(error).__name__}") from error

    def _open(self, method: str, path: str, **options: Any) -> Any:
        if self._session is None:
            raise RuntimeError("ApiServer is used outside of its context")
        headers = {**self.credentials.headers(), **options.pop("headers", {})}
        return self._session.request(
            method,
            self.credentials.server + path,
            ssl=self.credentials.tls or True,
            server_hostname=self.credentials.tls_server_name,
            headers=headers,
            **options,
        )


def _api_error(status: int, content: bytes) -> ApiError:
    try:
        decoded = orjson.loads(content)
        return ApiError(status, decoded.get("reason") or "", decoded.get("message") or "")
    except (orjson.JSONDecodeError, AttributeError):
        return ApiError(status, "", content[:200].decode(errors="replace"))


async def retry_delays(first_s: float = 0.1, most_s: float = 5.0) -> AsyncIterator[int]:
    """Yield attempt numbers, pausing between them with a delay that doubles up to a limit."""
    attempt, delay_s = 0, first_s
    while True:
        yield attempt
        attempt += 1
        await asyncio.sleep(delay_s)
        delay_s = min(most_s, delay_s * 2)
