"""Where the prefill of one request runs: the rule of the paper's section 3.4.3, and what it leaves open.

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

`decide` is a function of its arguments: no clock, no randomness, and the order of pools and workers does not matter.
It errs towards local: whatever is unknown or not eligible never leaves the cluster.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from prfaas_core import errors

AFFINITY_SLACK = 4
"""Requests by which a cache-affine worker may be busier than the least busy one and still be taken."""


class Destination(enum.StrEnum):
    """Where the prefill runs."""

    DECODE = "decode"
    LOCAL_PREFILL = "local_prefill"
    REMOTE_PREFILL = "remote_prefill"


class Mode(enum.StrEnum):
    """What the router may do with its decision."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    LOCAL_ONLY = "local_only"


class Bandwidth(enum.StrEnum):
    """Which of the paper's two cases the link is in."""

    SCARCE = "scarce"
    ABUNDANT = "abundant"


class ReasonKind(enum.StrEnum):
    """Why reasons differ: what was asked for, what a request is, or what broke."""

    POLICY = "policy"
    REQUEST = "request"
    FAULT = "fault"


class Reason(enum.StrEnum):
    """Why a prefill runs where it runs. Every answered request has exactly one; docs/reasons.md is made from this."""

    kind: ReasonKind
    meaning: str

    def __new__(cls, value: str, kind: ReasonKind, meaning: str) -> Self:
        """Attach the kind and the documentation to the member."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.kind = kind
        member.meaning = meaning
        return member

    UNCACHED_WITHIN_THRESHOLD = (
        "uncached_within_threshold", ReasonKind.POLICY, "the uncached part is at most the threshold: local"
    )  # fmt: skip
    UNCACHED_ABOVE_THRESHOLD = (
        "uncached_above_threshold", ReasonKind.POLICY, "the uncached part is above the threshold: remote"
    )  # fmt: skip
    MODE_LOCAL_ONLY = ("mode_local_only", ReasonKind.POLICY, "the route's policy.mode is LocalOnly")
    SHADOW_WOULD_BE_REMOTE = (
        "shadow_would_be_remote", ReasonKind.POLICY, "the route's policy.mode is Shadow; Enforce would have gone remote"
    )  # fmt: skip
    NO_REMOTE_POOL = ("no_remote_pool", ReasonKind.POLICY, "above the threshold, but the route names no remote pool")
    MULTIPLE_CHOICES = (
        "multiple_choices",
        ReasonKind.REQUEST,
        "n or best_of above 1: one prefill feeds several sequences",
    )
    ECHO = ("echo", ReasonKind.REQUEST, "echo needs the prompt on the decode worker")
    PROMPT_LOGPROBS = ("prompt_logprobs", ReasonKind.REQUEST, "prompt logprobs make decode compute the prompt anyway")
    PROMPT_BATCH = ("prompt_batch", ReasonKind.REQUEST, "several prompts in one request")
    NOT_TEXT = ("not_text", ReasonKind.REQUEST, "the prompt has parts that are not text")
    REMOTE_UNAVAILABLE = (
        "remote_unavailable",
        ReasonKind.FAULT,
        "no remote pool has a usable worker: prefilled locally",
    )
    LOCAL_PREFILL_UNAVAILABLE = (
        "local_prefill_unavailable", ReasonKind.FAULT, "no local prefill worker is usable: the decode worker prefills"
    )  # fmt: skip
    REMOTE_PREFILL_FAILED = (
        "remote_prefill_failed", ReasonKind.FAULT, "the remote prefill failed: done again in the local prefill pool"
    )  # fmt: skip
    REMOTE_PREFILL_FAILED_DECODE = (
        "remote_prefill_failed_decode", ReasonKind.FAULT, "the remote prefill failed, no local one is usable: decode prefills"
    )  # fmt: skip
    LOCAL_PREFILL_FAILED = (
        "local_prefill_failed", ReasonKind.FAULT, "the local prefill failed: the decode worker prefills"
    )  # fmt: skip
    KV_NOT_OFFERED = (
        "kv_not_offered", ReasonKind.FAULT, "the prefill worker answered without kv_transfer_params: the decode worker prefills"
    )  # fmt: skip
    KV_TRANSFER_FAILED = (
        "kv_transfer_failed", ReasonKind.FAULT, "the decode worker did not get the KV: it prefills by itself"
    )  # fmt: skip


class NoDecodeWorkerError(errors.CoreError):
    """No decode worker is usable, so the request cannot be served."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker as the router sees it.

    Attributes:
        name: of the pod; unique in its pool.
        load: requests that the router has in flight there.
        cached_tokens: leading tokens of this prompt that it holds.
        usable: ready, and not set aside after failures.
    """

    name: str
    load: int
    cached_tokens: int
    usable: bool = True


@dataclass(frozen=True, slots=True)
class Pool:
    """The workers of one pool."""

    name: str
    workers: tuple[Worker, ...]

    def usable(self) -> tuple[Worker, ...]:
        """Return the workers that may be chosen."""
        return tuple(worker for worker in self.workers if worker.usable)


@dataclass(frozen=True, slots=True)
class Request:
    """What of a request matters here.

    Attributes:
        total_tokens: length of the prompt.
        ineligible: the request's trait that keeps its prefill on the decode worker, or None.
    """

    total_tokens: int
    ineligible: Reason | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What the router knows at the moment of a decision."""

    threshold_tokens: int
    mode: Mode
    bandwidth: Bandwidth
    decode: Pool
    local_prefill: Pool | None
    remote_prefill: tuple[Pool, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one request goes, and why.

    Attributes:
        prefill_pool, prefill_worker: None when the decode worker prefills.
        decode_worker: never None.
        cached_tokens: leading tokens that the worker which prefills holds.
        uncached_tokens: the length that was compared with the threshold.
    """

    destination: Destination
    reason: Reason
    prefill_pool: str | None
    prefill_worker: str | None
    decode_worker: str
    cached_tokens: int
    uncached_tokens: int


def decide(request: Request, view: View) -> Decision:
    """Return where the prefill and the decode of `request` run.

    Raises:
        NoDecodeWorkerError: the decode pool has no usable worker.
    """
    decode_worker = choose_worker(view.decode)
    if decode_worker is None:
        raise NoDecodeWorkerError(f"decode pool {view.decode.name} has no ready worker; scale it up or wait")
    local = choose_worker(view.local_prefill) if view.local_prefill is not None else None
    remote_pool, remote = _choose_remote(view)

    local_cached = local.cached_tokens if local is not None else decode_worker.cached_tokens
    compared_cached = local_cached
    if view.bandwidth is Bandwidth.ABUNDANT and remote is not None:
        compared_cached = max(local_cached, remote.cached_tokens)
    uncached_tokens = max(0, request.total_tokens - compared_cached)

    def on_decode(reason: Reason) -> Decision:
        return Decision(
            Destination.DECODE, reason, None, None, decode_worker.name, decode_worker.cached_tokens, uncached_tokens
        )

    def here(reason: Reason) -> Decision:
        if view.local_prefill is None:
            return on_decode(reason)
        if local is None:
            return on_decode(Reason.LOCAL_PREFILL_UNAVAILABLE)
        return Decision(
            Destination.LOCAL_PREFILL,
            reason,
            view.local_prefill.name,
            local.name,
            decode_worker.name,
            local.cached_tokens,
            uncached_tokens,
        )

    if request.ineligible is not None:
        return on_decode(request.ineligible)
    if view.mode is Mode.LOCAL_ONLY:
        return here(Reason.MODE_LOCAL_ONLY)
    if uncached_tokens <= view.threshold_tokens:
        return here(Reason.UNCACHED_WITHIN_THRESHOLD)
    if not view.remote_prefill:
        return here(Reason.NO_REMOTE_POOL)
    if remote_pool is None or remote is None:
        return here(Reason.REMOTE_UNAVAILABLE)
    if view.mode is Mode.SHADOW:
        return here(Reason.SHADOW_WOULD_BE_REMOTE)
    return Decision(
        Destination.REMOTE_PREFILL,
        Reason.UNCACHED_ABOVE_THRESHOLD,
        remote_pool.name,
        remote.name,
        decode_worker.name,
        remote.cached_tokens,
        uncached_tokens,
    )


def choose_worker(pool: Pool, exclude: frozenset[str] = frozenset()) -> Worker | None:
    """Return the worker of a pool to take: cache-affine, then least loaded, then by name; None when none is usable."""
    workers = [worker for worker in pool.workers if worker.usable and worker.name not in exclude]
    if not workers:
        return None
    limit = min(worker.load for worker in workers) + AFFINITY_SLACK
    return min(
        (worker for worker in workers if worker.load <= limit),
        key=lambda worker: (-worker.cached_tokens, worker.load, worker.name),
    )


def _choose_remote(view: View) -> tuple[Pool | None, Worker | None]:
    candidates = [
        (pool, worker) for pool in view.remote_prefill for worker in [choose_worker(pool)] if worker is not None
    ]
    if not candidates:
        return None, None

    def load(pool: Pool) -> float:
        usable = pool.usable()
        return sum(worker.load for worker in usable) / len(usable)

    key: Callable[[tuple[Pool, Worker]], tuple[float, float, str]]
    if view.bandwidth is Bandwidth.ABUNDANT:
        key = lambda pair: (-pair[1].cached_tokens, load(pair[0]), pair[0].name)  # noqa: E731 - two orders of one choice
    else:
        key = lambda pair: (load(pair[0]), -pair[1].cached_tokens, pair[0].name)  # noqa: E731 - two orders of one choice
    return min(candidates, key=key)
