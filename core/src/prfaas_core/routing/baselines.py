"""What other systems do, as policies to compare with.

They choose workers as the paper's rule does here (`worker_choice`), and keep its
faults and modes, so that a comparison shows the rule and nothing else.

| baseline | where it comes from |
| --- | --- |
| `always_remote` | every prefill on the remote pool: the paper's "naive heterogeneous" system |
| `never_remote` | ordinary disaggregation inside one cluster |
| `StaticThreshold` | llm-d's prefix-based decider: prefill elsewhere when at least so many tokens are uncached. There the choice is between the decode worker and one prefill pool; here between the local side and the remote pools |
| `EffectiveLength` | Dynamo's conditional disaggregation, `isl_bounding`: the decode worker prefills when the uncached length is within a bound and within a share of the prompt; else the least loaded prefill worker anywhere |
| `least_loaded` | join the shortest queue over local and remote workers alike, by requests |
"""

from __future__ import annotations

from dataclasses import replace

from prfaas_core import errors
from prfaas_core.routing import paper
from prfaas_core.routing.reasons import Destination, Mode, Reason
from prfaas_core.routing.view import Decision, Pool, Request, View, Worker
from prfaas_core.routing.worker_choice import choose_worker

_FOREVER = 2**63


def always_remote(request: Request, view: View) -> Decision:
    """Prefill every request remotely while a remote worker is usable."""
    return paper.decide(request, replace(view, threshold_tokens=-1))


def never_remote(request: Request, view: View) -> Decision:
    """Prefill every request in the decode cluster."""
    return paper.decide(request, replace(view, threshold_tokens=_FOREVER))


class StaticThreshold:
    """Prefill remotely from `tokens` uncached tokens on, whatever the planner says."""

    __slots__ = ("_threshold_tokens",)

    def __init__(self, tokens: int) -> None:
        # "At least so many" is llm-d's comparison; the paper's is "more than".
        self._threshold_tokens = errors.count("tokens", tokens) - 1

    def __call__(self, request: Request, view: View) -> Decision:
        """Decide one request."""
        return paper.decide(request, replace(view, threshold_tokens=self._threshold_tokens))


class EffectiveLength:
    """The decode worker prefills up to `bound_tokens` uncached tokens that are at most `ratio` of the prompt."""

    __slots__ = ("_bound_tokens", "_ratio")

    def __init__(self, bound_tokens: int, ratio: float) -> None:
        self._bound_tokens = errors.count("bound_tokens", bound_tokens)
        self._ratio = errors.non_negative("ratio", ratio)

    def __call__(self, request: Request, view: View) -> Decision:
        """Decide one request."""
        decode_worker = paper.decode_worker_of(view)
        uncached_tokens = max(0, request.total_tokens - decode_worker.cached_tokens)
        if (
            request.ineligible is None
            and uncached_tokens <= self._bound_tokens
            and uncached_tokens <= self._ratio * request.total_tokens
        ):
            return paper.on_decode(decode_worker, Reason.EFFECTIVE_LENGTH_WITHIN_BOUND, uncached_tokens)
        return least_loaded(request, view)


def least_loaded(request: Request, view: View) -> Decision:
    """Prefill on the worker with the fewest requests, local or remote; ties go to the local pool, then by name."""
    if request.ineligible is not None or view.mode is not Mode.ENFORCE:
        return paper.decide(request, view)
    decode_worker = paper.decode_worker_of(view)
    found: list[tuple[int, bool, str, Pool, Worker]] = []
    pools = view.remote_prefill if view.local_prefill is None else (view.local_prefill, *view.remote_prefill)
    for pool in pools:
        worker = choose_worker(pool)
        if worker is not None:
            found.append((worker.load, pool is not view.local_prefill, pool.name, pool, worker))
    if not found:
        return paper.decide(request, view)
    _, remote, _, pool, worker = min(found, key=lambda entry: entry[:3])
    return Decision(
        Destination.REMOTE_PREFILL if remote else Destination.LOCAL_PREFILL,
        Reason.LEAST_LOADED,
        pool.name,
        worker.name,
        decode_worker.name,
        worker.cached_tokens,
        max(0, request.total_tokens - worker.cached_tokens),
    )
