"""Pools that sleep: scaled to zero until requests want them.

No request goes to a pool without workers, so each is decided as if its route did not have the pools that sleep. What it would
be if they had one idle worker each says which of them it wants: those requests are the demand that wakes a pool. A pool whose
awakening would change nothing is not wanted, and sleeps on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prfaas_core.routing.reasons import Destination, Reason, ReasonKind
from prfaas_core.routing.view import Decision, Pool, Request, View, Worker


def decide(policy: Callable[[Request, View], Decision], request: Request, view: View) -> Decision:
    """Return the decision of a policy on a route with pools that sleep; `Decision.wanted` is the one that it would take.

    A fault stays the reason when there is one: that a pool sleeps is none.

    Raises:
        NoDecodeWorkerError: the decode pool has no usable worker.
    """
    decision = policy(request, _without(view))
    would = policy(request, _awake(view))
    fault = decision.reason.kind is ReasonKind.FAULT
    if would.prefill_pool in view.asleep:
        reason = decision.reason
        if not fault and decision.destination is not Destination.REMOTE_PREFILL:
            remote = would.destination is Destination.REMOTE_PREFILL
            reason = Reason.REMOTE_ASLEEP if remote else Reason.LOCAL_PREFILL_ASLEEP
        return replace(decision, reason=reason, wanted=would.prefill_pool)
    if would.reason is Reason.SHADOW_WOULD_BE_REMOTE and not fault:
        return replace(decision, reason=would.reason, regret_s=would.regret_s)
    return decision


def wanted(policy: Callable[[Request, View], Decision], request: Request, view: View) -> str | None:
    """Return the sleeping prefill pool that a request would take if every pool were awake, the decode pool too."""
    pool = policy(request, _awake(view)).prefill_pool
    return pool if pool in view.asleep else None


def _without(view: View) -> View:
    local = view.local_prefill
    return replace(
        view,
        local_prefill=None if local is not None and local.name in view.asleep else local,
        remote_prefill=tuple(pool for pool in view.remote_prefill if pool.name not in view.asleep),
    )


def _awake(view: View) -> View:
    def awake(pool: Pool) -> Pool:
        return replace(pool, workers=(Worker(pool.name, 0, 0),)) if pool.name in view.asleep else pool

    return replace(
        view,
        decode=awake(view.decode),
        local_prefill=awake(view.local_prefill) if view.local_prefill is not None else None,
        remote_prefill=tuple(awake(pool) for pool in view.remote_prefill),
    )
