"""Pools that are scaled: what their scalers see, and their answers carried out.

A worker that is asked for serves after its start-up time. When fewer are asked for, those that have not started go first, as
Kubernetes does it; then those with the least to do stop taking requests and go when they have done what they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prfaas_core.autoscaling import Observed, SignalName
from prfaas_core.simulation.disruption import Disruption
from prfaas_core.simulation.engine import Engine
from prfaas_core.simulation.metrics import Counters, Scrape, Scrapes
from prfaas_core.simulation.pool import PoolState
from prfaas_core.simulation.scenario import Scaling


@dataclass(slots=True)
class _Sized:
    """A pool that is scaled.

    Attributes:
        starting: numbers of the workers that were asked for and do not serve yet, oldest first.
        asked: how many were asked for in all.
        replica_s, counted_s: time of workers up to `counted_s`.
    """

    pool: PoolState
    counters: Counters
    scaling: Scaling
    scrapes: Scrapes
    replicas: int
    starting: list[int] = field(default_factory=list)
    asked: int = 0
    replica_s: float = 0.0
    counted_s: float = 0.0

    def count(self, now_s: float) -> None:
        """Account for the workers that were there since it was last called."""
        self.replica_s += (now_s - self.counted_s) * (len(self.pool.workers) + len(self.starting))
        self.counted_s = now_s


class Resizing:
    """Scrapes the pools that are scaled, asks their scalers, and obeys."""

    def __init__(self, engine: Engine, disruption: Disruption) -> None:
        self._engine = engine
        self._disruption = disruption
        self._sized: dict[str, _Sized] = {}
        for name, pool in engine.pools.items():
            scaling = pool.spec.scaling
            if scaling is None or pool.counters is None:
                continue
            scrapes = Scrapes(scaling.metrics, pool.profile)
            sized = self._sized[name] = _Sized(pool, pool.counters, scaling, scrapes, len(pool.workers))
            # Not at the times of looks, or a scaler that looks as rarely as this would always be a scrape behind.
            engine.at(scaling.scrape_s / 2, self._scrape, sized)
            engine.at(scaling.scrape_s, self._look, sized)
            engine.history.append((0.0, f"replicas {name}", sized.replicas))

    def replica_s(self) -> Mapping[str, float]:
        """Return the time of workers by pool, up to now."""
        for sized in self._sized.values():
            sized.count(self._engine.now_s)
        return {name: sized.replica_s for name, sized in self._sized.items()}

    def _scrape(self, sized: _Sized, _token: int) -> None:
        engine, pool, counters = self._engine, sized.pool, sized.counters
        sized.count(engine.now_s)
        workers = pool.workers.values()
        generated, kv_use = counters.generated, 0.0
        if pool.decodes:
            waiting, running = (
                sum(len(worker.waiting) for worker in workers),
                sum(len(worker.in_slots) for worker in workers),
            )
            names = {metric.name for metric in sized.scaling.metrics}
            if SignalName.GENERATION_TOKENS in names:
                generated += self._being_generated(pool)
            if SignalName.KV_CACHE_USE in names:
                kv_use = _kv_use(pool)
        else:
            waiting = sum(len(worker.queue) for worker in workers)
            running = sum(len(worker.running) for worker in workers)
        sized.scrapes.add(
            Scrape(
                engine.now_s, counters.prefills, counters.prefilled_tokens, counters.waited_s, tuple(counters.ttft),
                waiting, running, counters.answers, counters.held_s, generated, tuple(counters.itl), kv_use,
            )
        )  # fmt: skip
        engine.at(engine.now_s + sized.scaling.scrape_s, self._scrape, sized)

    def _being_generated(self, pool: PoolState) -> float:
        engine = self._engine
        return sum(
            min(job.output_tokens, 1 + (engine.now_s - job.first_token_s) / engine.step_s)
            for worker in pool.workers.values()
            for job in worker.in_slots.values()
        )

    def _look(self, sized: _Sized, _token: int) -> None:
        engine, scaling = self._engine, sized.scaling
        sized.count(engine.now_s)
        serving = sized.pool.serving()
        readings = sized.scrapes.readings(engine.now_s)
        answer = scaling.scaler(Observed(sized.replicas, len(serving), readings), engine.now_s)
        self._resize(sized, answer.replicas)
        engine.at(answer.next_look_s, self._look, sized)

    def _resize(self, sized: _Sized, replicas: int) -> None:
        engine, pool = self._engine, sized.pool
        if replicas == sized.replicas:
            return
        sized.replicas = replicas
        engine.history.append((engine.now_s, f"replicas {pool.spec.name}", replicas))
        serving = pool.serving()
        for _ in range(replicas - len(serving) - len(sized.starting)):
            sized.asked += 1
            sized.starting.append(sized.asked)
            engine.at(engine.now_s + sized.scaling.start_up_s, self._started, sized, sized.asked)
        while sized.starting and len(serving) + len(sized.starting) > replicas:
            sized.starting.pop()
        leaving = max(0, len(serving) - replicas)
        for worker in sorted(serving, key=lambda worker: (worker.load, worker.name))[:leaving]:
            # The last decode worker stays, or nothing could be served.
            if not pool.decodes or len(pool.serving()) > 1:
                self._disruption.drain(worker)

    def _started(self, sized: _Sized, number: int) -> None:
        if number in sized.starting:
            sized.count(self._engine.now_s)
            sized.starting.remove(number)
            self._disruption.add(sized.pool)


def _kv_use(pool: PoolState) -> float:
    """Return the part of the workers' slots that is taken; a simulated worker's room for KV is that of its slots."""
    serving = pool.serving()
    slots = pool.profile.decode_slots * len(serving)
    return sum(len(worker.in_slots) for worker in serving) / slots if slots else 0.0
