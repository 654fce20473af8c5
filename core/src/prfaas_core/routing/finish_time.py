"""Our policy: where the request has its first token soonest, counting what it costs those who come later.

For the best worker of each candidate (local prefill pool, remote pools, decode workers) it adds up

1. the request's own time to first token: the work that the router has already sent to that worker, the service time of the
   uncached part by that pool's curve, the transfer behind what is already on its way over the link, and the wait for a
   decode slot, whichever ends last. Transfer and prefill overlap when KV is pushed, and follow each other when it is
   fetched;
2. what the work costs others on the shared worker and link (`prfaas_core.routing.prices`), and on a decode worker the
   tokens that are held up while it prefills, each second for `DECODE_WEIGHT` of a second of a first token;

and takes the least. The threshold is a prior only: it decides alone when a signal that the estimate needs is missing or
stale (reasons of their own), when the mode keeps everything local, and for requests that cannot be split. A remote pool
without a usable worker is `remote_unavailable` only if the threshold would have sent the request there.

Ties go to the local pool, then to the decode worker, then to remote pools, then by name. It errs towards what it knows: the
work of other routers is not in its backlogs, so that it takes their queues for shorter than they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

from prfaas_core.routing import estimates, paper
from prfaas_core.routing.reasons import Destination, Mode, Reason
from prfaas_core.routing.view import Decision, Pool, Request, View, Worker
from prfaas_core.routing.worker_choice import choose_worker

DECODE_WEIGHT = 0.4
"""Seconds of time to first token that one second of a held up decode stream counts for. Around this value the case study's
mean time to the last token is least; docs/scheduler.md has the measurements."""

ABSORB_UP_TO = 0.9
"""Share of a decode worker's slots that may be taken, with the new request, when it prefills although others could. What it
holds up ends later, so that a worker which is all but full would soon make requests wait for slots."""

BASE_GROWTH = 3.0
"""How much base prices grow with the local backlog, in times of its price: the planner's partition keeps its weight when
queues are long, so that both sides drain at the same time. In surges it takes some 5 % off the mean."""

_NOTHING = (math.inf, math.inf)

_SOONER = {
    Destination.LOCAL_PREFILL: Reason.FINISHES_SOONER_LOCAL,
    Destination.REMOTE_PREFILL: Reason.FINISHES_SOONER_REMOTE,
    Destination.DECODE: Reason.FINISHES_SOONER_DECODE,
}
_PRICED = {
    Destination.LOCAL_PREFILL: Reason.PRICE_LOCAL,
    Destination.REMOTE_PREFILL: Reason.PRICE_REMOTE,
    Destination.DECODE: Reason.PRICE_DECODE,
}
_MISSING = {
    Reason.UNCACHED_WITHIN_THRESHOLD: Reason.SIGNALS_MISSING_WITHIN_THRESHOLD,
    Reason.UNCACHED_ABOVE_THRESHOLD: Reason.SIGNALS_MISSING_ABOVE_THRESHOLD,
}
_STALE = {
    Reason.UNCACHED_WITHIN_THRESHOLD: Reason.SIGNALS_STALE_WITHIN_THRESHOLD,
    Reason.UNCACHED_ABOVE_THRESHOLD: Reason.SIGNALS_STALE_ABOVE_THRESHOLD,
}


def decide(request: Request, view: View) -> Decision:
    """Return where the prefill and the decode of `request` run.

    Raises:
        NoDecodeWorkerError: the decode pool has no usable worker.
    """
    if request.ineligible is not None or view.mode is Mode.LOCAL_ONLY:
        return paper.decide(request, view)
    if _lacks_signals(view):
        return _degraded(paper.decide(request, view), _MISSING)
    if view.signals_age_s > view.stale_after_s:
        return _degraded(paper.decide(request, view), _STALE)

    total_tokens, now_s = request.total_tokens, view.now_s
    decode_worker = paper.decode_worker_of(view)
    slot_wait_s = estimates.slot_wait_s(decode_worker, view)

    best_cost_s = least_own_s = own_s = math.inf
    destination = Destination.DECODE
    pool: Pool | None = None
    worker = decode_worker

    local_pool = view.local_prefill
    local: Worker | None = None
    scale = 1.0
    if local_pool is not None:
        local, wait_s, service_s, usable = _best_worker(local_pool, total_tokens, now_s)
        if local is not None:
            least_own_s = own_s = max(wait_s + service_s, slot_wait_s)
            price, base = local_pool.price or 0.0, local_pool.base_price
            if base > 0.0:
                scale += BASE_GROWTH * price * wait_s / base
            best_cost_s = own_s + service_s * (base * scale + price * (wait_s + service_s / (2 * usable)))
            destination, pool, worker = Destination.LOCAL_PREFILL, local_pool, local

    if view.absorb or local is None:
        absorber, absorbed_own_s, absorbed_cost_s = _best_decode_worker(view, total_tokens, scale, needed=local is None)
        if absorber is not None:
            least_own_s = min(least_own_s, absorbed_own_s)
            if absorbed_cost_s < best_cost_s:
                best_cost_s, own_s = absorbed_cost_s, absorbed_own_s
                destination, pool, worker = Destination.DECODE, None, absorber

    remote_usable = False
    for remote_pool in view.remote_prefill:
        remote, wait_s, service_s, usable = _best_worker(remote_pool, total_tokens, now_s)
        link = remote_pool.link
        if remote is None or link is None:
            continue
        remote_usable = True
        arrival_s, link_cost_s = estimates.transfer(
            link, remote_pool.push, wait_s, service_s, total_tokens - decode_worker.cached_tokens, scale
        )
        remote_own_s = max(arrival_s, slot_wait_s)
        least_own_s = min(least_own_s, remote_own_s)
        price = remote_pool.price or 0.0
        work_cost_s = service_s * (remote_pool.base_price * scale + price * (wait_s + service_s / (2 * usable)))
        cost_s = remote_own_s + link_cost_s + work_cost_s
        if cost_s < best_cost_s or (
            cost_s == best_cost_s
            and destination is Destination.REMOTE_PREFILL
            and pool is not None
            and remote_pool.name < pool.name
        ):
            best_cost_s, own_s = cost_s, remote_own_s
            destination, pool, worker = Destination.REMOTE_PREFILL, remote_pool, remote

    uncached_tokens = max(0, total_tokens - (worker.cached_tokens if pool is not None else decode_worker.cached_tokens))
    if destination is Destination.REMOTE_PREFILL and view.mode is Mode.SHADOW and pool is not None:
        return paper.shadowed(
            request, view, (pool, worker), local, decode_worker, _uncached(total_tokens, local, decode_worker)
        )
    reason = (_SOONER if own_s <= least_own_s else _PRICED)[destination]
    if destination is Destination.DECODE:
        uncached_tokens = max(0, total_tokens - worker.cached_tokens)
        if view.local_prefill is not None and local is None:
            reason = Reason.LOCAL_PREFILL_UNAVAILABLE
    if view.remote_prefill and not remote_usable and uncached_tokens > view.threshold_tokens:
        reason = Reason.REMOTE_UNAVAILABLE
    if pool is None:
        return Decision(destination, reason, None, None, worker.name, worker.cached_tokens, uncached_tokens, own_s)
    return Decision(
        destination,
        reason,
        pool.name,
        worker.name,
        decode_worker.name,
        worker.cached_tokens,
        uncached_tokens,
        own_s,
    )


def _lacks_signals(view: View) -> bool:
    local = view.local_prefill if view.local_prefill is not None else view.decode
    if local.prefill_s is None or local.price is None:
        return True
    for pool in view.remote_prefill:
        if pool.prefill_s is None or pool.price is None or pool.link is None or pool.link.price is None:
            return True
    return False


def _degraded(decision: Decision, reasons: dict[Reason, Reason]) -> Decision:
    reason = reasons.get(decision.reason)
    return decision if reason is None else replace(decision, reason=reason)


def _uncached(total_tokens: int, local: Worker | None, decode_worker: Worker) -> int:
    return max(0, total_tokens - (local if local is not None else decode_worker).cached_tokens)


def _best_worker(pool: Pool, total_tokens: int, now_s: float) -> tuple[Worker | None, float, float, int]:
    """Return the worker of a prefill pool with the least cost, its wait and its service time in seconds, and how many are
    usable."""
    curve = pool.prefill_s
    if curve is None:
        return None, 0.0, 0.0, 0
    usable = 0
    cold: Worker | None = None
    cold_until_s = math.inf
    warm: list[Worker] | None = None
    for worker in pool.workers:
        if not worker.usable:
            continue
        usable += 1
        if worker.cached_tokens:
            if warm is None:
                warm = []
            warm.append(worker)
            continue
        until_s = worker.busy_until_s
        if until_s <= now_s:
            until_s = now_s
        if until_s < cold_until_s or (until_s == cold_until_s and (cold is None or worker.name < cold.name)):
            cold, cold_until_s = worker, until_s
    if warm is None:
        if cold is None:
            return None, 0.0, 0.0, 0
        return cold, cold_until_s - now_s, curve(total_tokens) * pool.pace, usable
    worker, wait_s, service_s = _best_warm_worker(
        pool,
        (pool.base_price, pool.price or 0.0, usable),
        total_tokens,
        now_s,
        warm if cold is None else [*warm, cold],
    )
    return worker, wait_s, service_s, usable


def _best_warm_worker(
    pool: Pool, shared: tuple[float, float, int], total_tokens: int, now_s: float, workers: list[Worker]
) -> tuple[Worker, float, float]:
    """Return the worker with the least cost when they hold different prefixes; `shared` is base price, price and usable
    workers."""
    base, price, usable = shared
    halves = 2 * usable
    best, best_cost_s, best_wait_s, best_service_s = workers[0], math.inf, 0.0, 0.0
    for worker in workers:
        wait_s = worker.busy_until_s - now_s
        if wait_s < 0.0:
            wait_s = 0.0
        if wait_s > best_cost_s:
            continue  # its wait alone costs more
        service_s = estimates.work_s(pool, total_tokens - worker.cached_tokens)
        cost_s = wait_s + service_s * (1.0 + base + price * (wait_s + service_s / halves))
        if cost_s < best_cost_s or (cost_s == best_cost_s and worker.name < best.name):
            best, best_cost_s, best_wait_s, best_service_s = worker, cost_s, wait_s, service_s
    return best, best_wait_s, best_service_s


def _best_decode_worker(
    view: View, total_tokens: int, scale: float, *, needed: bool
) -> tuple[Worker | None, float, float]:
    """Return the decode worker that prefills at the least cost, its own time and the cost, seconds.

    Without `needed`, workers that prefill already or have few slots left are passed over.
    """
    decode = view.decode
    curve, slots = decode.prefill_s, decode.slots
    room = ABSORB_UP_TO * slots - 1
    if curve is None:
        # Nothing is known about prefill here; it is the last resort only.
        last = choose_worker(decode) if needed else None
        return last, *_NOTHING
    price = decode.price or 0.0
    cold_s = curve(total_tokens) * decode.pace
    usable_twice = 2 * max(1, sum(worker.usable for worker in decode.workers))
    best: Worker | None = None
    best_key = (math.inf, "")
    best_own_s = math.inf
    for worker in decode.workers:
        decoding = worker.decoding
        wait_s = worker.busy_until_s - view.now_s
        if not worker.usable or (not needed and (decoding > room or wait_s > 0)):
            continue
        service_s = estimates.work_s(decode, total_tokens - worker.cached_tokens) if worker.cached_tokens else cold_s
        if wait_s < 0.0:
            wait_s = 0.0
        own_s = wait_s + service_s
        if decoding >= slots:
            own_s = max(own_s, estimates.slot_wait_s(worker, view))
        cost_s = own_s + service_s * (
            decode.base_price * scale + price * (wait_s + service_s / usable_twice) + DECODE_WEIGHT * decoding
        )
        if cost_s < best_key[0] or (cost_s == best_key[0] and worker.name < best_key[1]):
            best, best_key, best_own_s = worker, (cost_s, worker.name), own_s
    return best, best_own_s, best_key[0]
