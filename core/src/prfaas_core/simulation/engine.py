"""The discrete-event engine: requests, prefill queues, transfers and decode slots.

Time is a heap of `(time, order, handler, subject, token)`; a handler whose token is no longer the subject's is out of date
and does nothing. Requests come one at a time from their iterator, never through the heap. Decode ends are known when a slot
is taken; a prefill that runs on a decode worker holds decoding up, which is found when the planned end comes (an end is
never planned too late, so nothing has to be planned again before).

A worker behaves as the simulated worker of the local clusters does: prefill one after the other in order of arrival, for
T_prefill of the tokens not cached when it starts; the first token comes with the decode slot, and each further one takes a
step. What breaks and changes is in `disruption`, what is measured and ordered in `steering`.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Any

from prfaas_core import errors, routing
from prfaas_core.routing import backlog
from prfaas_core.simulation.job import Job, Worker
from prfaas_core.simulation.pool import PoolState, pool_states
from prfaas_core.simulation.scenario import Scenario
from prfaas_core.simulation.traffic import Arrival

Handler = Callable[[Any, int], None]
_ROUNDING_S = 1e-9


class Engine:
    """One run. `simulate` is the way to use it."""

    def __init__(self, scenario: Scenario, arrivals: Iterable[Arrival]) -> None:
        self.scenario = scenario
        self.now_s = 0.0
        self.heap: list[tuple[float, int, Handler, Any, int]] = []
        self.order = 0
        self.arrivals: Iterator[Arrival] = iter(arrivals)
        self.in_flight = 0
        self.decode, self.local, self.remote = pool_states(scenario)
        self.pools = {
            pool.spec.name: pool for pool in (self.decode, *((self.local,) if self.local else ()), *self.remote)
        }
        self.caches = tuple(pool for pool in self.pools.values() if pool.cache is not None)
        self.policy = scenario.policy
        self.noise = scenario.noise
        self.slots = scenario.decode.profile.decode_slots
        self.step_s = scenario.decode.profile.step_s
        self.chunk_share = scenario.decode.chunk_share
        self.fabric_bps = scenario.decode.fabric_bps
        self.view = routing.View(
            threshold_tokens=scenario.threshold_tokens,
            mode=scenario.mode,
            bandwidth=scenario.bandwidth,
            decode=self.decode.seen,
            local_prefill=self.local.seen if self.local is not None else None,
            remote_prefill=tuple(pool.seen for pool in self.remote),
            algorithm=scenario.algorithm,
            absorb=scenario.absorb,
        )
        self.moving: dict[int, Job] = {}
        self.recent_uncached: deque[int] = deque(maxlen=scenario.window)
        self.arrived = 0
        self.output_tokens = 0.0
        self.waiting_decode = 0
        self.arrived_s: array[float] = array("d")
        self.ttft_s: array[float] = array("d")
        self.itl_s: array[float] = array("d")
        self.tokens: array[int] = array("q")
        self.destinations: array[int] = array("b")
        self.reasons: Counter[routing.Reason] = Counter()
        self.finished = self.failed = 0
        self.history: list[tuple[float, str, float]] = []
        # What is left of a drained worker is up to whoever made it leave.
        self.on_drained: Callable[[Worker], None] = lambda _worker: None

    def at(self, time_s: float, handler: Handler, subject: Any, token: int = 0) -> None:
        """Plan an event."""
        self.order += 1
        heappush(self.heap, (time_s, self.order, handler, subject, token))

    def run(self, end_s: float) -> None:
        """Go on until everything that arrived is answered, or to `end_s`."""
        heap, arrivals, arrive = self.heap, self.arrivals, self.arrive
        following = next(arrivals, None)
        while following is not None or self.in_flight:
            if heap and (following is None or heap[0][0] <= following[0]):
                time_s, _, handler, subject, token = heappop(heap)
                if time_s > end_s:
                    self.now_s = end_s
                    return
                self.now_s = time_s
                handler(subject, token)
            elif following is not None:
                if following[0] > end_s:
                    self.now_s = end_s
                    return
                if following[0] < self.now_s:
                    raise errors.InvalidValueError("arrival_s", following[0], f"order them; {self.now_s:g} was before")
                self.now_s = following[0]
                arrive(following)
                following = next(arrivals, None)
            else:
                # Requests that nothing will ever move: a dead link, or no workers that come back.
                return

    # A request comes

    def arrive(self, arrival: Arrival) -> None:
        """Decide where a request goes, and send it there."""
        now_s, tokens, output_tokens, keys = arrival
        job = Job(self.arrived, now_s, tokens, output_tokens, keys)
        self.arrived += 1
        self.in_flight += 1
        self.arrived_s.append(now_s)
        self.ttft_s.append(math.nan)
        self.itl_s.append(math.nan)
        self.tokens.append(tokens)
        self.destinations.append(0)
        self.output_tokens += (output_tokens - self.output_tokens) * (0.02 if self.arrived > 1 else 1.0)
        view = self.view
        view.now_s = now_s
        for pool in self.remote:
            pool.show_link(now_s)
        warm = self._show_caches(job) if keys and self.caches else None
        try:
            decision = self.policy(routing.Request(tokens), view)
        except routing.NoDecodeWorkerError:
            self._fail(job)
            return
        finally:
            if warm is not None:
                have = {worker.name: worker.cached_tokens for worker in warm if worker.pool is self.decode}
                for worker in warm:
                    worker.cached_tokens = 0
        job.reason = decision.reason
        self.recent_uncached.append(decision.uncached_tokens)
        decode_worker = self.decode.workers[decision.decode_worker]
        have_tokens = have.get(decode_worker.name, 0) if warm is not None else 0
        decode_worker.load += 1
        job.decode = decode_worker
        if decision.prefill_pool is None or decision.prefill_worker is None:
            self.prefill_at(job, self.decode, decode_worker, decision.cached_tokens)
            return
        pool = self.pools[decision.prefill_pool]
        worker = pool.workers[decision.prefill_worker]
        worker.load += 1
        if pool.link is not None:
            job.link = pool.link
            job.kv_bytes = pool.profile.kv_bytes(max(1, tokens - have_tokens))
            pool.link.backlog_bytes += job.kv_bytes
            self.destinations[job.number] = 2
        else:
            self.destinations[job.number] = 1
        self.prefill_at(job, pool, worker, decision.cached_tokens)

    def _show_caches(self, job: Job) -> list[Worker]:
        warm: list[Worker] = []
        most = job.tokens - 1
        for pool in self.caches:
            if pool.cache is not None:
                for name, tokens in pool.cache.match(job.keys).items():
                    worker = pool.workers[name]
                    worker.cached_tokens = min(tokens, most)
                    warm.append(worker)
        return warm

    def _fail(self, job: Job) -> None:
        job.token += 1
        self.failed += 1
        self.in_flight -= 1
        self.ttft_s[job.number] = math.nan

    # Prefill

    def prefill_at(self, job: Job, pool: PoolState, worker: Worker, cached_tokens: int) -> None:
        """Put a request into a worker's prefill queue."""
        job.prefill = worker
        job.work_s = work_s = (pool.seen.prefill_s or worker.prefill_s)(max(1, job.tokens - cached_tokens))
        pool.requests += 1
        pool.work_s += work_s
        backlog.assign(worker, self.now_s, work_s)
        worker.queue.append(job)
        if not worker.running:
            self.start_prefill(worker)

    def start_prefill(self, worker: Worker) -> None:
        """Begin what is at the head of a worker's queue."""
        queue, pool, now_s = worker.queue, worker.pool, self.now_s
        job = queue.popleft()
        batch = worker.running = [job]
        uncached_tokens = self._uncached(job, pool, worker)
        if pool.batch_tokens:
            while queue:
                more = self._uncached(queue[0], pool, worker)
                if uncached_tokens + more > pool.batch_tokens:
                    break
                uncached_tokens += more
                batch.append(queue.popleft())
        service_s = worker.prefill_s(uncached_tokens)
        if self.noise is not None:
            service_s *= self.noise()
        if pool.decodes:
            service_s /= self.chunk_share
        worker.began_s = now_s
        worker.ends_s = ends_s = now_s + service_s
        worker.token += 1
        for part in batch:
            part.service_s = service_s
            if part.link is not None and pool.seen.push:
                part.link.pace(part, part.kv_bytes, ends_s, pool.layers, now_s)
                part.due_s = service_s + 8 * part.kv_bytes / part.link.spec.told_bps
                part.link.meter.start(now_s, part.due_s)
                self.moving[part.number] = part
                self.plan_link(part.link)
        self.at(ends_s, self.prefill_done, worker, worker.token)

    def _uncached(self, job: Job, pool: PoolState, worker: Worker) -> int:
        if job.keys and pool.cache is not None:
            job.cached_tokens = min(pool.cache.match(job.keys).get(worker.name, 0), job.tokens - 1)
            return job.tokens - job.cached_tokens
        return job.tokens

    def prefill_done(self, worker: Worker, token: int) -> None:
        """Hand over what was computed, and begin the next."""
        if token != worker.token:
            return
        now_s, pool = self.now_s, worker.pool
        batch, worker.running = worker.running, []
        decodes, counters = pool.decodes, pool.counters
        if decodes:
            worker.lost_s += worker.loss_rate * (now_s - worker.began_s)
        for job in batch:
            backlog.release(worker, now_s, job.work_s)
            job.prefilled_s = now_s
            if counters is not None and not decodes:
                counters.prefilled(
                    job.tokens - job.cached_tokens, worker.began_s - job.arrived_s, now_s - job.arrived_s
                )
            if pool.cache is not None and job.keys:
                pool.cache.insert(worker.name, job.keys)
            if decodes:
                self.admit(job)
                continue
            worker.load -= 1
            link = job.link
            if link is None:
                if self.fabric_bps == math.inf:
                    self.received(job, job.token)
                else:
                    size_bytes = pool.profile.kv_bytes(job.tokens)
                    self.at(now_s + 8 * size_bytes / self.fabric_bps, self.received, job, job.token)
                continue
            if pool.seen.push:
                link.release(job, now_s)
            else:
                link.send(job, job.kv_bytes, now_s)
                job.due_s = 8 * job.kv_bytes / link.spec.told_bps
                link.meter.start(now_s, job.due_s)
                self.moving[job.number] = job
            if self.scenario.transfer_timeout_s != math.inf:
                self.at(now_s + self.scenario.transfer_timeout_s, self.transfer_late, job, job.token)
            self.plan_link(link)
        if worker.queue:
            self.start_prefill(worker)
        elif not worker.usable and worker.load == 0:
            self.on_drained(worker)

    # Transfers

    def plan_link(self, link: Any) -> None:
        """Plan the end of the next transfer of a link."""
        end_s = link.next_end_s()
        if end_s != math.inf:
            self.at(end_s, self.link_due, link, link.token)

    def link_due(self, link: Any, token: int) -> None:
        """Hand over the transfers that are over."""
        if token != link.token:
            return
        delay_s = link.spec.delay_s
        for job in link.ended(self.now_s):
            if delay_s:
                self.at(self.now_s + delay_s, self.received, job, job.token)
            else:
                self.received(job, job.token)
        self.plan_link(link)

    def received(self, job: Job, token: int) -> None:
        """Take KV in on the decode side."""
        if token != job.token:
            return
        if job.link is not None:
            self.off_link(job, moved=True)
        if self.decode.cache is not None and job.keys and job.decode.alive:
            self.decode.cache.insert(job.decode.name, job.keys)
        self.admit(job)

    def off_link(self, job: Job, *, moved: bool) -> None:
        """Close the account of a transfer."""
        link = job.link
        if link is None:
            return
        self.moving.pop(job.number, None)
        job.token += 1
        job.link = None
        link.backlog_bytes = max(0.0, link.backlog_bytes - job.kv_bytes)
        late_s = self.now_s - job.prefilled_s if moved else math.inf
        saturated = not job.prefill.pool.seen.push or late_s > 0.3 * job.service_s
        link.meter.finish(self.now_s, job.due_s, job.kv_bytes if moved else 0.0, saturated=saturated)
        if moved:
            pool = job.prefill.pool
            pool.moved_bytes += job.kv_bytes
            pool.moved_requests += 1

    def transfer_late(self, job: Job, token: int) -> None:
        """Give up a transfer that takes too long; the decode worker prefills."""
        link = job.link
        if token != job.token or link is None:
            return
        link.give_up(job, self.now_s)
        self.off_link(job, moved=False)
        self.plan_link(link)
        self.prefill_on_decode(job, routing.Reason.KV_TRANSFER_FAILED)

    def prefill_on_decode(self, job: Job, reason: routing.Reason) -> None:
        """Let the decode worker prefill, as the last resort."""
        job.reason = reason
        self.destinations[job.number] = 0
        if self.decode_alive(job):
            self.prefill_at(job, self.decode, job.decode, 0)

    def decode_alive(self, job: Job) -> bool:
        """Make sure that a job's decode worker lives, with another one if need be; else the request has failed."""
        if job.decode.alive:
            return True
        chosen = routing.choose_worker(self.decode.seen)
        if chosen is None:
            self._fail(job)
            return False
        job.decode = self.decode.workers[chosen.name]
        job.decode.load += 1
        return True

    # Decode

    def admit(self, job: Job) -> None:
        """Give a request a decode slot, or let it wait for one."""
        if not self.decode_alive(job):
            return
        worker = job.decode
        worker.decoding += 1
        if len(worker.in_slots) < self.slots:
            self.begin_decode(job, worker)
        else:
            worker.waiting.append(job)
            self.waiting_decode += 1

    def begin_decode(self, job: Job, worker: Worker) -> None:
        """Emit the first token, and plan the last."""
        now_s, number = self.now_s, job.number
        worker.in_slots[number] = job
        job.first_token_s = now_s
        self.ttft_s[number] = now_s - job.arrived_s
        self.reasons[job.reason] += 1
        job.lost_mark_s = worker.lost_until(now_s)
        self.at(now_s + (job.output_tokens - 1) * self.step_s, self.decode_done, job, job.token)

    def decode_done(self, job: Job, token: int) -> None:
        """Free the slot of a request that has its last token, or plan what prefills have held up."""
        if token != job.token:
            return
        now_s, worker = self.now_s, job.decode
        held_up_s = worker.lost_until(now_s) - job.lost_mark_s
        if held_up_s > _ROUNDING_S:
            rate, left_s = 1.0, 0.0
            if worker.running:
                rate, left_s = 1.0 - worker.loss_rate, worker.ends_s - now_s
            in_prefill_s = rate * left_s
            wait_s = held_up_s / rate if in_prefill_s >= held_up_s > 0 else left_s + held_up_s - in_prefill_s
            job.lost_mark_s = worker.lost_until(min(now_s + wait_s, now_s + left_s))
            self.at(now_s + wait_s, self.decode_done, job, token)
            return
        worker.decoding -= 1
        del worker.in_slots[job.number]
        worker.load -= 1
        self.finished += 1
        self.in_flight -= 1
        held_s = now_s - job.first_token_s
        if job.output_tokens > 1:
            self.itl_s[job.number] = held_s / (job.output_tokens - 1)
        if self.decode.counters is not None:
            self.decode.counters.answered(job.output_tokens, held_s)
        view = self.view
        view.decode_s = view.decode_s + 0.02 * (held_s - view.decode_s) if view.decode_s else held_s
        if worker.waiting:
            self.waiting_decode -= 1
            self.begin_decode(worker.waiting.popleft(), worker)
        elif worker.load == 0 and not worker.usable:
            self.on_drained(worker)
