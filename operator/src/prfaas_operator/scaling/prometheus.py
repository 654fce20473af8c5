"""One number from Prometheus, or the reason why there is none.

prometheus-api-client is synchronous, so questions are asked in threads of their own; each has a time limit, and a Prometheus
that hangs holds up neither the event loop nor the process's other threads.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from prfaas_operator.api.conditions import Reason

_THREADS = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """The answer to one question; `value` is None exactly when `reason` says why."""

    value: float | None
    age_s: float
    reason: Reason | None
    message: str


@dataclass(frozen=True, slots=True)
class ByPod:
    """The answer to a question that has one number for each pod; `fault` says why there is none."""

    values: Mapping[str, float]
    fault: str


class Prometheus:
    """Asks one Prometheus server."""

    def __init__(self, url: str | None, *, timeout_s: float, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._clock = clock
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="prometheus")
        self._connections = threading.local()

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def ask(self, query: str) -> Sample:
        """Return the value of an instant query that has one, and for every other answer the reason."""
        result = await self._result(query)
        return result if isinstance(result, Sample) else sample(result, self._clock())

    async def by_pod(self, query: str) -> ByPod:
        """Return the values of an instant query that has one for each pod, and for every other answer the reason."""
        result = await self._result(query)
        return ByPod({}, result.message) if isinstance(result, Sample) else by_pod(result)

    async def _result(self, query: str) -> Any:
        """Return what the result of an instant query is, or a `Sample` that says why there is none."""
        if self._url is None:
            return Sample(
                None, 0, Reason.PROMETHEUS_NOT_CONFIGURED, "the operator was started without --prometheus-url"
            )
        loop = asyncio.get_running_loop()
        try:
            # `requests` limits each read; the limit here is on the whole.
            async with asyncio.timeout(2 * self._timeout_s):
                return await loop.run_in_executor(self._executor, self._query, query)
        except TimeoutError:
            return Sample(None, 0, Reason.PROMETHEUS_UNREACHABLE, f"no answer within {2 * self._timeout_s:g} s")
        except (requests.RequestException, PrometheusApiClientException, ValueError) as error:
            return Sample(None, 0, Reason.PROMETHEUS_UNREACHABLE, str(error))

    def _query(self, query: str) -> Any:
        connection = getattr(self._connections, "connection", None)
        if connection is None:
            # The caller asks again anyway, so a retry here would only make it wait.
            connection = self._connections.connection = PrometheusConnect(
                self._url, retry=Retry(total=0), timeout=self._timeout_s
            )
        return connection.custom_query(query)


def sample(result: Any, now_s: float) -> Sample:
    """Return what the result of an instant query says at `now_s`, Unix time in seconds."""
    if not isinstance(result, list):
        return Sample(None, 0, Reason.SIGNAL_INVALID, "the answer is not an instant vector")
    if not result:
        return Sample(None, 0, Reason.SIGNAL_MISSING, "the query returns no sample")
    if len(result) > 1:
        return Sample(None, 0, Reason.SIGNAL_INVALID, f"the query returns {len(result)} series; aggregate them to one")
    try:
        at_s, text = result[0]["value"]
        value, age_s = float(text), max(0.0, now_s - float(at_s))
    except (KeyError, TypeError, ValueError):
        return Sample(None, 0, Reason.SIGNAL_INVALID, "the answer is not one sample of an instant vector")
    if not math.isfinite(value):
        return Sample(None, age_s, Reason.SIGNAL_INVALID, f"the value is {text}")
    return Sample(value, age_s, None, "")


def by_pod(result: Any) -> ByPod:
    """Return the numbers of an instant vector by the label `pod`; those that are not finite are left out."""
    if not isinstance(result, list):
        return ByPod({}, "the answer is not an instant vector")
    values: dict[str, float] = {}
    for series in result:
        try:
            pod, value = str(series["metric"]["pod"]), float(series["value"][1])
        except (KeyError, TypeError, ValueError, IndexError):
            return ByPod({}, "the answer is not one number for each pod")
        if math.isfinite(value):
            values[pod] = value
    return ByPod(values, "" if values else "Prometheus knows none of the workers")
