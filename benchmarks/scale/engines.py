"""The pods of all pools, as Prometheus sees them: where they are, and vLLM's metrics of each under a load that moves.

The load of a pool is a total that its ready pods share, so it is the number of pods that decides how busy each is.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiohttp import web
from fleet import DECODE_TARGET, MAX_REPLICAS, PREFILL_TARGET, Pool

PROMPT_TOKENS, PREFILL_S, ANSWER_TOKENS = 8192, 0.09, 200
"""A prompt of this length takes a worker this long, by the profile of the fleet."""
_SWING_S = (400.0, 900.0)
_STEP_S = 90.0
_MOST_OF_MAXIMUM = 0.9

_TEXT = """\
vllm:num_requests_running{{{labels}}} {running:.6g}
vllm:num_requests_waiting{{{labels}}} {waiting:.6g}
vllm:num_requests_waiting_by_reason{{{labels},reason="capacity"}} {waiting:.6g}
vllm:kv_cache_usage_perc{{{labels}}} {cache:.6g}
vllm:request_prefill_kv_computed_tokens_sum{{{labels}}} {prompt_tokens:.9g}
vllm:request_prefill_kv_computed_tokens_count{{{labels}}} {requests:.9g}
vllm:request_queue_time_seconds_sum{{{labels}}} {waited_s:.9g}
vllm:request_queue_time_seconds_count{{{labels}}} {requests:.9g}
vllm:prompt_tokens_total{{{labels}}} {prompt_tokens:.9g}
vllm:generation_tokens_total{{{labels}}} {generated:.9g}
vllm:request_success_total{{{labels},finished_reason="stop"}} {requests:.9g}
vllm:nixl_bytes_transferred_sum{{{labels}}} {received_bytes:.9g}
"""
_LABELS = 'model_name="prfaas-1t",engine="0"'


@dataclass(slots=True)
class Counted:
    """What one pod has counted since it started."""

    requests: float = 0.0
    waited_s: float = 0.0


@dataclass(slots=True)
class Load:
    """The work of one pool: a swing between little and nearly all that the pool may grow to, and steps now and then."""

    pool: Pool
    began_s: float
    pods: dict[str, Counted] = field(default_factory=dict)
    _random: Random = field(init=False)
    _period_s: float = field(init=False)
    _phase: float = field(init=False)
    _at_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._random = Random("/".join(self.pool.key))
        self._period_s, self._phase = self._random.uniform(*_SWING_S), self._random.uniform(0, 2 * math.pi)
        self._at_s = self.began_s

    def workers(self, now_s: float) -> float:
        """Return how many workers the load would keep at their target."""
        swing = 0.5 + 0.5 * math.sin(2 * math.pi * (now_s - self.began_s) / self._period_s + self._phase)
        # Every other time there is a step, by the pool's own clock.
        step = 0.15 * (int((now_s - self.began_s) / _STEP_S + self._phase) % 2)
        return MAX_REPLICAS * (0.1 + (_MOST_OF_MAXIMUM - 0.1) * swing * (1 - step))

    def exposition(self, pod: str, now_s: float) -> str:
        """Return the metrics of a pod."""
        each = self.workers(now_s) / max(1, len(self.pods))
        self._advance(now_s, each)
        counted = self.pods[pod]
        prefill = self.pool.role == "prefill"
        busy = each * (PREFILL_TARGET if prefill else DECODE_TARGET)
        return _TEXT.format(
            labels=_LABELS,
            running=min(busy, 1.0) if prefill else busy,
            waiting=max(0.0, each - 1.4) * 10,
            cache=0.0 if prefill else min(0.98, 0.5 * each),
            requests=counted.requests,
            waited_s=counted.waited_s,
            prompt_tokens=counted.requests * PROMPT_TOKENS,
            generated=counted.requests * (1 if prefill else ANSWER_TOKENS),
            received_bytes=0.0 if prefill else counted.requests * 3e5,
        )

    def _advance(self, now_s: float, each: float) -> None:
        elapsed_s, self._at_s = now_s - self._at_s, now_s
        requests = elapsed_s * each * PREFILL_TARGET / PREFILL_S
        for counted in self.pods.values():
            counted.requests += requests
            counted.waited_s += requests * 0.1 * each


class Engines:
    """Serves the pods to Prometheus: their addresses, and their metrics."""

    def __init__(self, pools: list[Pool]) -> None:
        now_s = time.monotonic()
        self._loads = {pool.key: Load(pool, now_s) for pool in pools}
        self._runner: web.AppRunner | None = None
        self.address = ""
        self.scrapes = 0

    @property
    def pods(self) -> int:
        return sum(len(load.pods) for load in self._loads.values())

    def add(self, namespace: str, pool: str, pod: str) -> None:
        if (namespace, pool) in self._loads:
            self._loads[namespace, pool].pods[pod] = Counted()

    def remove(self, namespace: str, pool: str, pod: str) -> None:
        if (namespace, pool) in self._loads:
            self._loads[namespace, pool].pods.pop(pod, None)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/targets", self._targets)
        app.router.add_get("/metrics/{namespace}/{pool}/{pod}", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _targets(self, _: web.Request) -> web.Response:
        groups: list[dict[str, Any]] = [
            {
                "targets": [self.address],
                "labels": {
                    "__metrics_path__": f"/metrics/{pool.namespace}/{pool.name}/{pod}", "cluster": pool.cluster,
                    "namespace": pool.namespace, "pod": pod, "prfaas_pool": pool.name, "prfaas_role": pool.role,
                    "instance": pod,
                },
            }
            for pool, load in ((load.pool, load) for load in self._loads.values())
            for pod in load.pods
        ]  # fmt: skip
        return web.json_response(groups)

    async def _metrics(self, request: web.Request) -> web.Response:
        found = request.match_info
        load = self._loads[found["namespace"], found["pool"]]
        if found["pod"] not in load.pods:
            raise web.HTTPNotFound
        self.scrapes += 1
        return web.Response(text=load.exposition(found["pod"], time.monotonic()))
