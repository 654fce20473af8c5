"""When a request has its first token, as far as a router can tell: queue, service time, transfer and decode slot.

`finish_time` compares these estimates. In shadow mode every policy states with them what its decision would have been worth:
`regret_s`.
"""

from __future__ import annotations

from prfaas_core.routing.view import Link, Pool, View, Worker


def work_s(pool: Pool, uncached_tokens: int) -> float:
    """Return how long a worker of a pool should compute, seconds; 0 when its profile is not known."""
    return pool.prefill_s(max(1, uncached_tokens)) * pool.pace if pool.prefill_s is not None else 0.0


def slot_wait_s(worker: Worker, view: View) -> float:
    """Return the seconds until a decode slot is free, when those in front leave one after the other."""
    slots = view.decode.slots
    if slots == 0 or worker.decoding < slots:
        return 0.0
    return (worker.decoding - slots + 1) * view.decode_s / slots


def transfer(link: Link, push: bool, wait_s: float, service_s: float, tokens: int, scale: float) -> tuple[float, float]:
    """Return when the KV is there, seconds from now, and what it costs others on the link.

    What is on its way now is drained until this request's transfer begins; what later requests put on the link is theirs
    to count.
    """
    own_s = 8 * link.kv_bytes(max(1, tokens)) / link.capacity_bps
    backlog_s = 8 * link.backlog_bytes / link.capacity_bps
    prefilled_s = wait_s + service_s
    if push:
        backlog_s = max(0.0, backlog_s - wait_s)
        arrival_s = max(prefilled_s, wait_s + backlog_s + own_s)
    else:
        backlog_s = max(0.0, backlog_s - prefilled_s)
        arrival_s = prefilled_s + backlog_s + own_s
    return arrival_s, own_s * (link.base_price * scale + (link.price or 0.0) * (backlog_s + own_s / 2))


def first_token_s(total_tokens: int, view: View, pool: Pool, worker: Worker, decode_worker: Worker) -> float | None:
    """Return seconds from now to the first token of a prompt that `worker` of `pool` prefills; None without a curve.

    A link that is not known counts for no time, as in a snapshot that says nothing about it.
    """
    if pool.prefill_s is None:
        return None
    wait_s = max(0.0, worker.busy_until_s - view.now_s)
    service_s = work_s(pool, total_tokens - worker.cached_tokens)
    arrival_s = wait_s + service_s
    if pool.link is not None:
        missing = total_tokens - decode_worker.cached_tokens
        arrival_s, _ = transfer(pool.link, pool.push, wait_s, service_s, missing, 1.0)
    return max(arrival_s, slot_wait_s(decode_worker, view))


def regret_s(
    total_tokens: int, view: View, remote: tuple[Pool, Worker], local: Worker | None, decode_worker: Worker
) -> float | None:
    """Return by how many seconds the first token comes later in the decode cluster than it would from `remote`.

    Below 0: it comes sooner here. None: a curve is missing. `local` is the local prefill worker that is taken; without one
    the decode worker prefills.
    """
    here_pool = view.local_prefill if view.local_prefill is not None and local is not None else view.decode
    here_s = first_token_s(total_tokens, view, here_pool, local or decode_worker, decode_worker)
    there_s = first_token_s(total_tokens, view, *remote, decode_worker)
    return None if here_s is None or there_s is None else here_s - there_s
