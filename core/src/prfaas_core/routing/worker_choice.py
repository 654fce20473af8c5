"""Which worker of a pool, and which remote pool, when only requests in flight and caches are counted."""

from __future__ import annotations

from prfaas_core.routing.reasons import Bandwidth
from prfaas_core.routing.view import Pool, Worker

AFFINITY_SLACK = 4
"""Requests by which a cache-affine worker may be busier than the least busy one and still be taken."""


def choose_worker(pool: Pool, exclude: frozenset[str] = frozenset()) -> Worker | None:
    """Return the worker of a pool to take: cache-affine, then least loaded, then by name; None when none is usable."""
    least: Worker | None = None
    warm = False
    for worker in pool.workers:
        if not worker.usable or (exclude and worker.name in exclude):
            continue
        warm = warm or worker.cached_tokens > 0
        if (
            least is None
            or worker.load < least.load
            or (worker.load == least.load and (-worker.cached_tokens, worker.name) < (-least.cached_tokens, least.name))
        ):
            least = worker
    if least is None or not warm:
        return least
    limit, best = least.load + AFFINITY_SLACK, least
    for worker in pool.workers:
        if (
            worker.cached_tokens >= best.cached_tokens
            and worker.load <= limit
            and worker.usable
            and worker.name not in exclude
            and (-worker.cached_tokens, worker.load, worker.name) < (-best.cached_tokens, best.load, best.name)
        ):
            best = worker
    return best


def choose_remote(pools: tuple[Pool, ...], bandwidth: Bandwidth) -> tuple[Pool | None, Worker | None]:
    """Return the remote pool to take and its worker: the longest cached prefix (abundant) or the least load (scarce)."""
    found: tuple[Pool | None, Worker | None] = (None, None)
    best: tuple[float, float, str] | None = None
    for pool in pools:
        worker = choose_worker(pool)
        if worker is None:
            continue
        if len(pools) == 1:
            return pool, worker
        usable = pool.usable()
        load = sum(other.load for other in usable) / len(usable)
        cached = float(-worker.cached_tokens)
        key = (cached, load, pool.name) if bandwidth is Bandwidth.ABUNDANT else (load, cached, pool.name)
        if best is None or key < best:
            best, found = key, (pool, worker)
    return found
