"""What breaks and what changes: links, workers that die and come back, roles that are converted."""

from __future__ import annotations

import math

from prfaas_core import routing
from prfaas_core.simulation.engine import Engine
from prfaas_core.simulation.job import Job, Worker
from prfaas_core.simulation.pool import PoolState
from prfaas_core.simulation.scenario import Conversion, Failure, LinkChange


class Disruption:
    """Plans and carries out the changes of a scenario."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        scenario = engine.scenario
        self._switch_s = scenario.conversion_switch_s
        engine.on_drained = self._drained
        for pool in engine.remote:
            if pool.link is not None:
                for change in pool.link.spec.changes:
                    engine.at(change.at_s, self._change_link, (pool, change))
        for failure in scenario.failures:
            engine.at(failure.at_s, self._die, failure)
        for conversion in scenario.conversions:
            engine.at(conversion.at_s, self._convert, conversion)

    def convert(self, workers: int, *, to_decode: bool) -> None:
        """Convert workers of the decode cluster now."""
        self._convert(Conversion(self._engine.now_s, to_decode, workers, self._switch_s), 0)

    def _change_link(self, subject: tuple[PoolState, LinkChange], _token: int) -> None:
        pool, change = subject
        if pool.link is not None:
            pool.link.change(change, self._engine.now_s)
            self._engine.plan_link(pool.link)

    # Failures

    def _die(self, failure: Failure, _token: int) -> None:
        pool = self._engine.pools[failure.pool]
        victims = [pool.workers[name] for name in sorted(pool.workers)[: failure.workers]]
        for worker in victims:
            self._kill(pool, worker)
        if victims and failure.restore_after_s != math.inf:
            for _ in victims:
                self._engine.at(self._engine.now_s + failure.restore_after_s, self.add, pool)
        self._note(pool)

    def _kill(self, pool: PoolState, worker: Worker) -> None:
        engine = self._engine
        pool.remove(worker)
        worker.token += 1
        prefilling = [*worker.running, *worker.queue]
        worker.running, moved_out = [], worker.waiting
        worker.queue.clear()
        # Paced transfers of running prefills are among the moving ones; the others wait or are computed here only.
        for job in [job for job in engine.moving.values() if worker in (job.prefill, job.decode)]:
            link = job.link
            if link is None:
                continue
            link.give_up(job, engine.now_s)
            still_prefilling = job in prefilling or (job.prefill.alive and job in job.prefill.running)
            engine.off_link(job, moved=False)
            engine.plan_link(link)
            if not still_prefilling:
                self._again(job)
        for job in prefilling:
            self._resort(job, pool)
        engine.waiting_decode -= len(moved_out)
        for job in list(moved_out):
            self._again(job)
        for job in list(worker.in_slots.values()):
            # Its answer broke off after the first token; nothing can be sent again.
            job.token += 1
            engine.failed += 1
            engine.in_flight -= 1
        worker.in_slots.clear()
        worker.waiting.clear()

    def _again(self, job: Job) -> None:
        self._engine.prefill_on_decode(job, routing.Reason.KV_TRANSFER_FAILED)

    def _resort(self, job: Job, pool: PoolState) -> None:
        """Send a request whose prefill worker died to the next resort, as the router does."""
        engine = self._engine
        if pool.decodes:
            engine.prefill_on_decode(job, job.reason)
            return
        if job.link is not None:
            # It had not begun to move, so that only the router's account of the link knows it.
            job.link.backlog_bytes = max(0.0, job.link.backlog_bytes - job.kv_bytes)
            job.link = None
        remote = pool is not engine.local
        if remote and engine.local is not None:
            chosen = routing.choose_worker(engine.local.seen)
            if chosen is not None:
                worker = engine.local.workers[chosen.name]
                worker.load += 1
                job.reason = routing.Reason.REMOTE_PREFILL_FAILED
                engine.destinations[job.number] = 1
                engine.prefill_at(job, engine.local, worker, 0)
                return
        engine.prefill_on_decode(
            job,
            routing.Reason.REMOTE_PREFILL_FAILED_DECODE if remote else routing.Reason.LOCAL_PREFILL_FAILED,
        )

    def add(self, pool: PoolState, _token: int = 0) -> None:
        """Let a worker serve from now on."""
        pool.add()
        self._note(pool)

    # Roles

    def _convert(self, conversion: Conversion, _token: int) -> None:
        engine = self._engine
        if engine.local is None:
            return
        source, target = (engine.local, engine.decode) if conversion.to_decode else (engine.decode, engine.local)
        self._switch_s = conversion.switch_s
        for _ in range(conversion.workers):
            serving = source.serving()
            if source.decodes and len(serving) < 2:
                return  # the last decode worker stays, or nothing could be served
            if serving:
                self.drain(min(serving, key=lambda worker: (worker.load, worker.name)), target)

    def drain(self, worker: Worker, target: PoolState | None = None) -> None:
        """Let a worker finish what it has, and then go to `target`, or away."""
        worker.usable = False
        worker.leaving = target
        if worker.load == 0:
            self._drained(worker)

    def _drained(self, worker: Worker) -> None:
        engine = self._engine
        if not worker.alive:
            return
        pool = worker.pool
        pool.remove(worker)
        self._note(pool)
        if worker.leaving is not None:
            engine.at(engine.now_s + self._switch_s, self.add, worker.leaving)

    def _note(self, pool: PoolState) -> None:
        self._engine.history.append((self._engine.now_s, f"workers {pool.spec.name}", len(pool.serving())))
