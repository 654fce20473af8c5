"""Where the prefill of one request runs: the paper's rule, our own policy, and the baselines.

Every policy is a function `(Request, View) -> Decision` without clock, randomness or memory, in which the order of pools
and workers does not matter. `decide` takes the one that the view names. The router, the operator and the simulator call
the same functions.

| module | what |
| --- | --- |
| `reasons` | destinations, modes, and why a prefill runs where it runs |
| `view` | what a policy reads and answers |
| `worker_choice` | which worker of a pool, by requests and caches |
| `paper` | section 3.4.3 of the paper, with a table of what it leaves open |
| `estimates` | when a request has its first token, as far as a router can tell |
| `prices`, `finish_time` | where a request finishes soonest, without eating what others need |
| `sleeping` | what requests want of pools that are scaled to zero |
| `backlog` | how a router keeps account of what it has sent |
| `baselines` | what other systems do |
"""

from __future__ import annotations

from collections.abc import Callable

from prfaas_core.routing import finish_time, paper, sleeping
from prfaas_core.routing.reasons import (
    Algorithm,
    Bandwidth,
    Destination,
    Mode,
    NoDecodeWorkerError,
    Reason,
    ReasonKind,
)
from prfaas_core.routing.view import Decision, Link, Pool, Request, View, Worker
from prfaas_core.routing.worker_choice import AFFINITY_SLACK, choose_worker

__all__ = [
    "AFFINITY_SLACK",
    "Algorithm",
    "Bandwidth",
    "Decision",
    "Destination",
    "Link",
    "Mode",
    "NoDecodeWorkerError",
    "Policy",
    "Pool",
    "Reason",
    "ReasonKind",
    "Request",
    "View",
    "Worker",
    "choose_worker",
    "decide",
    "wanted",
]

Policy = Callable[[Request, View], Decision]
"""What every policy is."""


def decide(request: Request, view: View) -> Decision:
    """Return where the prefill and the decode of `request` run, by the algorithm that the view names.

    Raises:
        NoDecodeWorkerError: the decode pool has no usable worker.
    """
    policy = _policy(view)
    return sleeping.decide(policy, request, view) if view.asleep else policy(request, view)


def wanted(request: Request, view: View) -> str | None:
    """Return the sleeping prefill pool that `request` would take if no pool of the route slept; None for no such pool.

    Raises:
        NoDecodeWorkerError: the decode pool has no usable worker, and does not sleep either.
    """
    return sleeping.wanted(_policy(view), request, view) if view.asleep else None


def _policy(view: View) -> Policy:
    return finish_time.decide if view.algorithm is Algorithm.FINISH_TIME else paper.decide
