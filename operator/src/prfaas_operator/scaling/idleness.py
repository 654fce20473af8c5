"""Which workers of a pool have nothing to do, and since when, by Prometheus.

Asked only while a pool has workers too many. A worker has something to do while requests run or wait in it, and while it
holds KV for others to fetch: vLLM counts the blocks of such KV as used, and SGLang counts the requests behind it.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from prfaas_operator.objects import Ref
from prfaas_operator.scaling.prometheus import Fault, Vector
from prfaas_operator.scaling.queries import Workers

_log = structlog.get_logger(__name__)

HISTORY_S = 3600
"""How far back the last work of a worker is looked for."""
_STEP_S = 15
_BUSY = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "sglang:num_running_reqs",
    "sglang:num_queue_reqs",
    "sglang:num_prefill_bootstrap_queue_reqs",
    "sglang:num_prefill_inflight_queue_reqs",
    "sglang:num_decode_prealloc_queue_reqs",
    "sglang:num_decode_transfer_queue_reqs",
)
_ENDED = ("vllm:request_success_total", "sglang:num_requests_total")


@dataclass(frozen=True, slots=True)
class Work:
    """What one worker has to do.

    Attributes:
        load: requests that run or wait, plus the part of the KV cache in use.
        measured_s: Unix time of the measurement, by this process's clock.
        idle_s: for how long it has had nothing to do, up to `HISTORY_S`.
    """

    load: float
    measured_s: float
    idle_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """The workers of a pool by pod name, those that are known; `fault` says why some or all are not."""

    work: Mapping[str, Work]
    fault: str = ""


# Asks the Prometheus that knows these workers.
Ask = Callable[[Workers, str], Awaitable[Vector | Fault]]


def age(workers: Workers) -> str:
    """Return the PromQL of the age of each worker's newest sample, seconds."""
    selector = workers.selector
    newest = f"timestamp(vllm:num_requests_running{selector}) or timestamp(sglang:num_running_reqs{selector})"
    return f"time() - min by (pod) ({newest})"


def load(workers: Workers) -> str:
    """Return the PromQL of what each worker has to do; 0 means nothing."""
    return f"sum by (pod) ({_named(_BUSY, workers)})"


def idle_time(workers: Workers, *, step_s: int = _STEP_S) -> str:
    """Return the PromQL of the time since each worker had something to do; a Unix time when it was never seen at work."""
    # Work that is shorter than a step shows in the count of requests that ended.
    ended = f"sum by (pod) (increase({_named(_ENDED, workers)}[{2 * step_s}s]))"
    busy = f"({load(workers)} + ({ended} or {load(workers)} * 0) > bool 0)"
    return f"time() - max_over_time(({busy} * time())[{HISTORY_S}s:{step_s}s])"


def _named(names: tuple[str, ...], workers: Workers) -> str:
    return f'{{__name__=~"{"|".join(names)}",{workers.selector[1:]}'


def _by_pod(answer: Vector | Fault) -> dict[str, float]:
    found = answer.by_label("pod") if isinstance(answer, Vector) else {}
    return {pod: value for pod, value in found.items() if math.isfinite(value)}


class IdlenessMeter:
    """Reads, at a steady pace, the pools that it was told to watch; `on_change` hears of every reading."""

    def __init__(self, ask: Ask, *, on_change: Callable[[Ref], None], interval_s: float) -> None:
        self._ask = ask
        self._on_change = on_change
        self._interval_s = interval_s
        self._watched: dict[Ref, Workers] = {}
        self._readings: dict[Ref, Reading] = {}
        self._fresh = asyncio.Event()

    def watch(self, ref: Ref, workers: Workers) -> Reading | None:
        """Read a pool from now on; return what was read last, None before the first time."""
        if self._watched.get(ref) != workers:
            self._watched[ref] = workers
            self._readings.pop(ref, None)
            self._fresh.set()
        return self._readings.get(ref)

    def forget(self, ref: Ref) -> None:
        """Read a pool no more."""
        self._watched.pop(ref, None)
        self._readings.pop(ref, None)

    async def run(self) -> None:
        """Read until cancelled. A pool that is new is read at once."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._interval_s
        while True:
            self._fresh.clear()
            await self._read_all([ref for ref in self._watched if ref not in self._readings])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._fresh.wait()
            if loop.time() >= due_s:
                due_s = loop.time() + self._interval_s
                await self._read_all(list(self._watched))

    async def _read_all(self, refs: list[Ref]) -> None:
        await asyncio.gather(*(self._guarded(ref) for ref in refs))

    async def _guarded(self, ref: Ref) -> None:
        workers = self._watched.get(ref)
        if workers is None:
            return
        try:
            reading = await self.read(workers, self._readings.get(ref))
        except Exception as error:  # noqa: BLE001  one failure must not stop the others
            _log.exception("idle workers not read", pool=str(ref))
            reading = Reading({}, f"{type(error).__name__}: {error}")
        if self._watched.get(ref) == workers:
            self._readings[ref] = reading
            self._on_change(ref)

    async def read(self, workers: Workers, before: Reading | None = None) -> Reading:
        """Read one pool. For how long its workers were idle is asked once: that is dear, and chooses among them at the start."""
        asked_s = time.time()
        # The age first: what is read afterwards is as new at least.
        ages = await self._ask(workers, age(workers))
        loads = await self._ask(workers, load(workers))
        answers = [ages, loads]
        if before is not None and before.work:
            idle_s = {pod: work.idle_s for pod, work in before.work.items()}
        else:
            answers.append(await self._ask(workers, idle_time(workers)))
            idle_s = _by_pod(answers[-1])
        faults = [answer.message for answer in answers if isinstance(answer, Fault)]
        by_pod = _by_pod(loads)
        work = {
            pod: Work(by_pod[pod], asked_s - age_s, min(idle_s.get(pod, 0.0), HISTORY_S))
            for pod, age_s in _by_pod(ages).items()
            if pod in by_pod
        }
        return Reading(work, faults[0] if faults else "" if work else "Prometheus knows none of the workers")
