"""The rule of the paper's section 3.4.3, and what it leaves open.

The rule compares the uncached length of a prompt with the threshold t: up to t it stays in the decode cluster, above t it
goes to a remote prefill pool. With a scarce link each cluster's cache is judged on its own; with an abundant link the
longest cached prefix anywhere counts. What the paper leaves open is settled here:

| open in the paper | settled as |
| --- | --- |
| which local cache counts | the best worker of the local prefill pool; without such a pool, of the decode pool |
| scarce, and the remote cluster holds more of the prefix | it shortens the work there, and does not enter the comparison |
| abundant, and the longest prefix is in the other cluster | it counts in the comparison; moving it is left to the engines, so the chosen worker may compute more than was compared |
| several remote pools | the one with the longest cached prefix (abundant) or the least load a worker (scarce), ties by the other, then by name |
| which worker in a pool | longest cached prefix first, as long as its load is at most `AFFINITY_SLACK` above the least, then least load, then name |
| uncached length equal to t | local, as the paper's "<= t" says |
| requests that wait when t changes | keep the decision they were given |
| the chosen side has no worker | the other prefill side, then the decode worker itself, each with a reason of its own: a fault, not policy |
| nothing to prefill with and no decode worker | no decision: `NoDecodeWorkerError` |

It errs towards local: whatever is unknown or not eligible never leaves the cluster.
"""

from __future__ import annotations

from dataclasses import replace

from prfaas_core.routing import estimates
from prfaas_core.routing.reasons import Bandwidth, Destination, Mode, NoDecodeWorkerError, Reason
from prfaas_core.routing.view import Decision, Pool, Request, View, Worker
from prfaas_core.routing.worker_choice import choose_remote, choose_worker


def decide(request: Request, view: View) -> Decision:
    """Return where the prefill and the decode of `request` run.

    Raises:
        NoDecodeWorkerError: the decode pool has no usable worker.
    """
    decode_worker = decode_worker_of(view)
    local_pool = view.local_prefill
    local = choose_worker(local_pool) if local_pool is not None else None
    remote_pool, remote = choose_remote(view.remote_prefill, view.bandwidth)

    compared_cached = local.cached_tokens if local is not None else decode_worker.cached_tokens
    if view.bandwidth is Bandwidth.ABUNDANT and remote is not None:
        compared_cached = max(compared_cached, remote.cached_tokens)
    uncached_tokens = max(0, request.total_tokens - compared_cached)

    if request.ineligible is not None:
        return on_decode(decode_worker, request.ineligible, uncached_tokens)
    if view.mode is Mode.LOCAL_ONLY:
        reason = Reason.MODE_LOCAL_ONLY
    elif uncached_tokens <= view.threshold_tokens:
        reason = Reason.UNCACHED_WITHIN_THRESHOLD
    elif not view.remote_prefill:
        reason = Reason.NO_REMOTE_POOL
    elif remote_pool is None or remote is None:
        reason = Reason.REMOTE_UNAVAILABLE
    elif view.mode is Mode.SHADOW:
        return shadowed(request, view, (remote_pool, remote), local, decode_worker, uncached_tokens)
    else:
        return Decision(
            Destination.REMOTE_PREFILL,
            Reason.UNCACHED_ABOVE_THRESHOLD,
            remote_pool.name,
            remote.name,
            decode_worker.name,
            remote.cached_tokens,
            uncached_tokens,
        )
    return here(view, reason, local, decode_worker, uncached_tokens)


def decode_worker_of(view: View) -> Worker:
    """Return the decode worker to take.

    Raises:
        NoDecodeWorkerError: none is usable.
    """
    worker = choose_worker(view.decode)
    if worker is None:
        raise NoDecodeWorkerError(f"decode pool {view.decode.name} has no ready worker; scale it up or wait")
    return worker


def on_decode(worker: Worker, reason: Reason, uncached_tokens: int) -> Decision:
    """Return the decision that the decode worker prefills."""
    return Decision(Destination.DECODE, reason, None, None, worker.name, worker.cached_tokens, uncached_tokens)


def shadowed(
    request: Request,
    view: View,
    remote: tuple[Pool, Worker],
    local: Worker | None,
    decode_worker: Worker,
    uncached_tokens: int,
) -> Decision:
    """Return the decision that the prefill stays because of the mode, with what that costs or saves it."""
    decision = here(view, Reason.SHADOW_WOULD_BE_REMOTE, local, decode_worker, uncached_tokens)
    return replace(decision, regret_s=estimates.regret_s(request.total_tokens, view, remote, local, decode_worker))


def here(view: View, reason: Reason, local: Worker | None, decode_worker: Worker, uncached_tokens: int) -> Decision:
    """Return the decision that the prefill stays in the decode cluster: on `local`, else on the decode worker."""
    if view.local_prefill is None:
        return on_decode(decode_worker, reason, uncached_tokens)
    if local is None:
        return on_decode(decode_worker, Reason.LOCAL_PREFILL_UNAVAILABLE, uncached_tokens)
    return Decision(
        Destination.LOCAL_PREFILL,
        reason,
        view.local_prefill.name,
        local.name,
        decode_worker.name,
        local.cached_tokens,
        uncached_tokens,
    )
