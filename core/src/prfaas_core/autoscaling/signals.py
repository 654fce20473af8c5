"""The signals that a pool can be sized by, and what one is sized by that names none."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from prfaas_core.autoscaling.settings import TargetType


class SignalName(enum.StrEnum):
    """What is measured, by its name in `spec.scaling.signals`; QUERY is PromQL of the user's own."""

    PREFILL_LOAD = "PrefillLoad"
    PREFILL_QUEUE_WAIT = "PrefillQueueWait"
    TIME_TO_FIRST_TOKEN = "TimeToFirstToken"  # noqa: S105  no secret
    DECODE_REQUESTS = "DecodeRequests"
    KV_CACHE_USE = "KVCacheUse"
    INTER_TOKEN_LATENCY = "InterTokenLatency"  # noqa: S105  no secret
    GENERATION_TOKENS = "GenerationTokens"
    QUERY = "Query"


PREFILL_SIGNALS: Final = (SignalName.PREFILL_LOAD, SignalName.PREFILL_QUEUE_WAIT, SignalName.TIME_TO_FIRST_TOKEN)
DECODE_SIGNALS: Final = (
    SignalName.DECODE_REQUESTS, SignalName.KV_CACHE_USE, SignalName.INTER_TOKEN_LATENCY, SignalName.GENERATION_TOKENS,
)  # fmt: skip
"""Those that are built in, by the side that they are measured on."""
QUANTILES: Final = (SignalName.TIME_TO_FIRST_TOKEN, SignalName.INTER_TOKEN_LATENCY)
_TIMES: Final = (SignalName.PREFILL_QUEUE_WAIT, *QUANTILES)
_TOTALS: Final = (SignalName.PREFILL_LOAD, SignalName.DECODE_REQUESTS, SignalName.GENERATION_TOKENS)


def built_in_target_type(name: SignalName) -> TargetType:
    """Return how the target of a signal that is built in is meant: totals count work in hand, the rest are means or quantiles."""
    return TargetType.AVERAGE_VALUE if name in _TOTALS else TargetType.VALUE


def is_proportional(name: SignalName) -> bool:
    """Return whether twice the value is twice the work, as it is not with times."""
    return name not in _TIMES


@dataclass(frozen=True, slots=True)
class Target:
    """What a signal should be, in its own unit, averaged over `window_s` seconds."""

    name: SignalName
    value: float
    window_s: float = 60.0


PREFILL_TARGETS: Final = (
    Target(SignalName.PREFILL_LOAD, 0.7, window_s=300.0),
    Target(SignalName.PREFILL_LOAD, 0.9),
    Target(SignalName.PREFILL_QUEUE_WAIT, 2.0),
)
"""What a prefill pool keeps that is not told otherwise. Prompts differ so much in length that their load over a minute is noise:
five minutes say how many workers there should be, a minute with hardly any to spare, and a queue, that there are too few right now."""
_BUSY_SLOTS = 0.75


def decode_targets(decode_slots: int) -> tuple[Target, ...]:
    """Return what a decode pool keeps that is not told otherwise: three quarters of its workers' slots busy."""
    return (Target(SignalName.DECODE_REQUESTS, _BUSY_SLOTS * max(decode_slots, 1), window_s=90.0),)
