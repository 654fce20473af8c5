"""The words of a decision: where a prefill may run, under which rule, and why it runs where it does."""

from __future__ import annotations

import enum
from typing import Self

from prfaas_core import errors


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


class Algorithm(enum.StrEnum):
    """Which policy decides."""

    PAPER = "paper"
    FINISH_TIME = "finish_time"


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
    FINISHES_SOONER_LOCAL = (
        "finishes_sooner_local", ReasonKind.POLICY, "finish_time: the local prefill pool has the first token soonest"
    )  # fmt: skip
    FINISHES_SOONER_REMOTE = (
        "finishes_sooner_remote", ReasonKind.POLICY, "finish_time: a remote prefill pool has the first token soonest"
    )  # fmt: skip
    FINISHES_SOONER_DECODE = (
        "finishes_sooner_decode", ReasonKind.POLICY, "finish_time: the decode worker itself has the first token soonest"
    )  # fmt: skip
    PRICE_LOCAL = (
        "price_local",
        ReasonKind.POLICY,
        "finish_time: elsewhere is sooner for this request, but delays others by more; local",
    )
    PRICE_REMOTE = (
        "price_remote",
        ReasonKind.POLICY,
        "finish_time: elsewhere is sooner for this request, but delays others by more; remote",
    )
    PRICE_DECODE = (
        "price_decode",
        ReasonKind.POLICY,
        "finish_time: elsewhere is sooner for this request, but delays others by more; the decode worker prefills",
    )
    LEAST_LOADED = ("least_loaded", ReasonKind.POLICY, "baseline: the prefill worker with the fewest requests")
    EFFECTIVE_LENGTH_WITHIN_BOUND = (
        "effective_length_within_bound",
        ReasonKind.POLICY,
        "baseline: the uncached part is short, and a small part of the prompt",
    )
    MODE_LOCAL_ONLY = ("mode_local_only", ReasonKind.POLICY, "the route's policy.mode is LocalOnly")
    SHADOW_WOULD_BE_REMOTE = (
        "shadow_would_be_remote", ReasonKind.POLICY, "the route's policy.mode is Shadow; Enforce would have gone remote"
    )  # fmt: skip
    NO_REMOTE_POOL = ("no_remote_pool", ReasonKind.POLICY, "above the threshold, but the route names no remote pool")
    REMOTE_ASLEEP = (
        "remote_asleep",
        ReasonKind.POLICY,
        "the remote pool that it would go to is scaled to zero, and is woken: prefilled in the decode cluster",
    )
    LOCAL_PREFILL_ASLEEP = (
        "local_prefill_asleep",
        ReasonKind.POLICY,
        "the local prefill pool is scaled to zero, and is woken: the decode worker prefills",
    )
    MULTIPLE_CHOICES = (
        "multiple_choices",
        ReasonKind.REQUEST,
        "n or best_of above 1: one prefill feeds several sequences",
    )
    ECHO = ("echo", ReasonKind.REQUEST, "echo needs the prompt on the decode worker")
    PROMPT_LOGPROBS = ("prompt_logprobs", ReasonKind.REQUEST, "prompt logprobs make decode compute the prompt anyway")
    PROMPT_BATCH = ("prompt_batch", ReasonKind.REQUEST, "several prompts in one request")
    NOT_TEXT = ("not_text", ReasonKind.REQUEST, "the prompt has parts that are not text")
    SIGNALS_MISSING_WITHIN_THRESHOLD = (
        "signals_missing_within_threshold",
        ReasonKind.FAULT,
        "finish_time lacks a profile, link or price, so the paper's rule decided: local",
    )
    SIGNALS_MISSING_ABOVE_THRESHOLD = (
        "signals_missing_above_threshold",
        ReasonKind.FAULT,
        "finish_time lacks a profile, link or price, so the paper's rule decided: remote",
    )
    SIGNALS_STALE_WITHIN_THRESHOLD = (
        "signals_stale_within_threshold",
        ReasonKind.FAULT,
        "what finish_time knows is too old, so the paper's rule decided: local",
    )
    SIGNALS_STALE_ABOVE_THRESHOLD = (
        "signals_stale_above_threshold",
        ReasonKind.FAULT,
        "what finish_time knows is too old, so the paper's rule decided: remote",
    )
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
