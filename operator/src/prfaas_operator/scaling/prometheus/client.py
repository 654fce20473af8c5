"""One Prometheus server: a question, and within a deadline an answer or the reason why there is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog
from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from prfaas_operator.api.conditions import Reason
from prfaas_operator.scaling.prometheus.access import Access, AccessSource, SourceUnavailableError
from prfaas_operator.scaling.prometheus.results import Fault, QueryError, Sample, Vector, read, single
from prfaas_operator.scaling.prometheus.session import BoundedSession, Exchange

_log = structlog.get_logger(__name__)

_THREADS: Final = 4
_REREAD_S: Final = 10.0
"""Time after which credentials are looked at again; at once after the server refused them."""


class Prometheus:
    """Asks one Prometheus server; its credentials are followed as they change."""

    def __init__(self, source: AccessSource, *, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="prometheus")
        self._under_way: set[Exchange] = set()
        self._access: Access | None = None
        self._client: PrometheusConnect | None = None
        self._read_at_s = float("-inf")
        self._reading = asyncio.Lock()
        self._quiet_until_s = float("-inf")
        self._closed = False

    def close(self) -> None:
        """Stop asking, also what is under way."""
        self._closed = True
        for exchange in tuple(self._under_way):
            exchange.cut()
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    async def ask(self, query: str) -> Sample:
        """Return the value of an instant query that has one, and for every other answer the reason."""
        found = await self.select(query)
        if isinstance(found, Fault):
            return Sample(None, found.reason, found.message)
        return single(found)

    async def select(self, query: str) -> Vector | Fault:
        """Return the instant vector of a query as of now, or why there is none."""
        try:
            client, access = await self._connected()
            self._check_quiet()
            return await self._answer(client, access, query)
        except QueryError as error:
            if error.fault.reason is Reason.PROMETHEUS_UNAUTHORIZED:
                self._read_at_s = float("-inf")
            if error.retry_after_s:
                self._quiet_until_s = time.monotonic() + error.retry_after_s
            where = f"{self._access.url}: " if self._access is not None else ""
            return Fault(error.fault.reason, f"{where}{error.fault.message}")

    async def _answer(self, client: PrometheusConnect, access: Access, query: str) -> Vector:
        if self._closed:
            raise QueryError(Reason.PROMETHEUS_NOT_CONFIGURED, "it is not asked any more")
        exchange, asked_s = Exchange(), self._clock()
        self._under_way.add(exchange)
        try:
            # `requests` limits each read; the limit here is on the whole, the wait for a thread included.
            async with asyncio.timeout(access.timeout_s):
                result = await asyncio.get_running_loop().run_in_executor(
                    self._executor, _ask, client, exchange, query, access.timeout_s
                )
        except TimeoutError:
            raise QueryError(Reason.PROMETHEUS_TIMEOUT, f"no answer within {access.timeout_s:g} s") from None
        finally:
            # Also on a deadline, and when the caller is cancelled: the thread is needed for others.
            exchange.cut()
            self._under_way.discard(exchange)
        return read(result, asked_s, self._clock())

    async def _connected(self) -> tuple[PrometheusConnect, Access]:
        async with self._reading:
            now_s = time.monotonic()
            if now_s - self._read_at_s >= _REREAD_S:
                try:
                    access = await self._source.read()
                except SourceUnavailableError as error:
                    if self._access is None:
                        raise QueryError(Reason.PROMETHEUS_NOT_CONFIGURED, str(error)) from error
                    _log.debug("credentials not read", error=str(error))
                else:
                    if access != self._access:
                        self._connect(access)
                self._read_at_s = now_s
        assert self._client is not None and self._access is not None  # noqa: S101, PT018  for the type checker
        return self._client, self._access

    def _connect(self, access: Access) -> None:
        headers = dict(access.headers)
        if access.bearer_token is not None:
            headers["Authorization"] = f"Bearer {access.bearer_token}"
        before = self._client
        self._client = PrometheusConnect(
            access.url,
            headers=headers,
            auth=access.basic_auth,
            session=BoundedSession(access),
            # The caller asks again anyway, so a retry here would only make it wait.
            retry=Retry(total=0),
            timeout=access.timeout_s,
            method="POST",
        )
        self._access, self._quiet_until_s = access, float("-inf")
        if before is not None:
            before.close()

    def _check_quiet(self) -> None:
        rest_s = self._quiet_until_s - time.monotonic()
        if rest_s > 0:
            raise QueryError(Reason.PROMETHEUS_THROTTLED, f"it wants to be asked again in {rest_s:.0f} s")


def _ask(client: PrometheusConnect, exchange: Exchange, query: str, timeout_s: float) -> Any:
    with exchange.here():
        # A server that knows how long it is waited for ends the evaluation then. Thanos leaves out what it cannot reach
        # unless told not to; others pass over that parameter.
        return client.custom_query(query, params={"timeout": f"{timeout_s:g}", "partial_response": "false"})
