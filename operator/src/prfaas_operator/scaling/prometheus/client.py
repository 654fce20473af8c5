"""One Prometheus server: a question, and within a deadline an answer or the reason why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import structlog
from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from prfaas_operator.api.conditions import Reason
from prfaas_operator.scaling.prometheus.access import Access, AccessSource, SourceUnavailableError
from prfaas_operator.scaling.prometheus.results import (
    Fault,
    QueryError,
    Sample,
    Series,
    Vector,
    read,
    read_range,
    single,
)
from prfaas_operator.scaling.prometheus.session import BoundedSession, Exchange

_log = structlog.get_logger(__name__)

_THREADS: Final = 8
_REREAD_S: Final = 10.0
"""Time after which credentials are looked at again."""
_REREAD_SOON_S: Final = 1.0
"""The same while they are missing or refused, so that many questions at once do not each look."""

_Answer = TypeVar("_Answer")
# Asks in a thread; it is told within how many seconds the answer is needed.
_Ask = Callable[[PrometheusConnect, Exchange, float], Any]


class Prometheus:
    """Asks one Prometheus server; its credentials are followed as they change."""

    def __init__(self, source: AccessSource, *, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="prometheus")
        self._under_way: set[Exchange] = set()
        self._access: Access | None = None
        self._client: PrometheusConnect | None = None
        self._missing: Fault | None = Fault(Reason.PROMETHEUS_NOT_CONFIGURED, "nothing is known of it yet")
        self._read_at_s = self._reread_at_s = float("-inf")
        self._reading = asyncio.Lock()
        self._quiet_until_s = float("-inf")
        self._threads = asyncio.Semaphore(_THREADS)
        self._hangs = False  # the last answer did not come
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
        return await self._guarded(functools.partial(_ask, query=query), read)

    async def history(self, query: str, start_s: float, end_s: float, step_s: float) -> Series | Fault:
        """Return the one series of a query between two Unix times, or why there is none."""
        return await self._guarded(
            functools.partial(_ask_range, query=query, start_s=start_s, end_s=end_s, step_s=step_s), read_range
        )

    async def _guarded(self, ask: _Ask, understand: Callable[[Any, float, float], _Answer]) -> _Answer | Fault:
        try:
            client, access = await self._connected()
            self._check_quiet()
            asked_s = self._clock()
            result = await self._answer(client, access, ask)
            return understand(result, asked_s, self._clock())
        except QueryError as error:
            if error.fault.reason is Reason.PROMETHEUS_UNAUTHORIZED:
                self._reread_at_s = min(self._reread_at_s, self._read_at_s + _REREAD_SOON_S)
            if error.retry_after_s:
                self._quiet_until_s = time.monotonic() + error.retry_after_s
            where = f"{self._access.url}: " if self._access is not None else ""
            return Fault(error.fault.reason, f"{where}{error.fault.message}")

    async def _answer(self, client: PrometheusConnect, access: Access, ask: _Ask) -> Any:
        if self._closed:
            raise QueryError(Reason.PROMETHEUS_NOT_CONFIGURED, "it is not asked any more")
        if self._hangs and self._threads.locked():
            # Those that are under way find out whether it answers again; nobody else needs to wait for that.
            raise QueryError(Reason.PROMETHEUS_TIMEOUT, f"no answer within {access.timeout_s:g} s to others")
        exchange = Exchange()
        self._under_way.add(exchange)
        try:
            async with asyncio.timeout(access.timeout_s):
                await self._threads.acquire()
            try:
                # `requests` limits each read; the limit here is on the whole.
                async with asyncio.timeout(access.timeout_s):
                    result = await asyncio.get_running_loop().run_in_executor(
                        self._executor, ask, client, exchange, access.timeout_s
                    )
            finally:
                self._threads.release()
        except TimeoutError:
            self._hangs = True
            raise QueryError(Reason.PROMETHEUS_TIMEOUT, f"no answer within {access.timeout_s:g} s") from None
        finally:
            # Also on a deadline, and when the caller is cancelled: the thread is needed for others.
            exchange.cut()
            self._under_way.discard(exchange)
        self._hangs = False
        return result

    async def _connected(self) -> tuple[PrometheusConnect, Access]:
        async with self._reading:
            if time.monotonic() >= self._reread_at_s:
                await self._reread()
        if self._missing is not None:
            raise QueryError(self._missing.reason, self._missing.message)
        assert self._client is not None and self._access is not None  # noqa: S101, PT018  for the type checker
        return self._client, self._access

    async def _reread(self) -> None:
        self._read_at_s = time.monotonic()
        self._reread_at_s = self._read_at_s + _REREAD_SOON_S
        try:
            access = await self._source.read()
            if access != self._access:
                self._connect(access)
        except SourceUnavailableError as error:
            # What was read last goes on.
            if self._client is None:
                self._missing = Fault(Reason.PROMETHEUS_NOT_CONFIGURED, str(error))
            _log.debug("credentials not read", error=str(error))
        except QueryError as error:
            self._missing = error.fault
        else:
            self._missing = None
            self._reread_at_s = self._read_at_s + _REREAD_S

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


def _ask(client: PrometheusConnect, exchange: Exchange, timeout_s: float, *, query: str) -> Any:
    with exchange.here(), _understood():
        return client.custom_query(query, params=_limits(timeout_s))


def _ask_range(
    client: PrometheusConnect,
    exchange: Exchange,
    timeout_s: float,
    *,
    query: str,
    start_s: float,
    end_s: float,
    step_s: float,
) -> Any:
    start, end = (datetime.fromtimestamp(at_s, UTC) for at_s in (start_s, end_s))
    with exchange.here(), _understood():
        return client.custom_query_range(query, start, end, f"{step_s:g}", params=_limits(timeout_s))


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Say so where `PrometheusConnect` finds no result in an answer."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise QueryError(
            Reason.PROMETHEUS_ANSWER_INVALID, f"the answer is not the JSON of Prometheus' API: {error}"
        ) from error
    except (KeyError, TypeError) as error:
        raise QueryError(
            Reason.PROMETHEUS_ANSWER_INVALID, "the answer is JSON, but not of Prometheus' API; check the base URL"
        ) from error


def _limits(timeout_s: float) -> dict[str, str]:
    # A server that knows how long it is waited for ends the evaluation then. Thanos leaves out what it cannot reach
    # unless told not to; others pass over that parameter.
    return {"timeout": f"{timeout_s:g}", "partial_response": "false"}
