"""The built-in signals by vLLM's metrics, which the simulated workers have too.

Requests that wait in a decode engine for KV to arrive are the network's matter, or that of prefill: only those that wait for
room count. vLLM has every series from its start on, so each signal's own tells which pods report it.
"""

from __future__ import annotations

from typing import Final

from prfaas_core.autoscaling import SignalName
from prfaas_operator.scaling.queries import built_in
from prfaas_operator.scaling.queries.built_in import Asking, Build, BuiltIn, Gauge, change

_RUNNING: Final = "vllm:num_requests_running"
_WAITING: Final = "vllm:num_requests_waiting"
_BY_REASON: Final = "vllm:num_requests_waiting_by_reason"
_COMPUTED: Final = "vllm:request_prefill_kv_computed_tokens"
_DECODE_TIME: Final = "vllm:request_decode_time_seconds"
_QUEUE_TIME: Final = "vllm:request_queue_time_seconds"


def _in_hand(gauge: Gauge) -> tuple[str, str]:
    """Return the PromQL of the requests that wait, and of those that run."""
    return f"sum({gauge(_WAITING)})", f"sum({gauge(_RUNNING)})"


def _for_room(gauge: Gauge) -> tuple[str, str]:
    """Return the PromQL of the requests that run, and of those that wait for room."""
    running = f"sum({gauge(_RUNNING)})"
    # Older releases do not say what requests wait for; there it is those that run.
    return running, f"(sum({gauge(_BY_REASON, reason='capacity')}) or 0 * {running})"


def _prefill_load(asking: Asking) -> BuiltIn:
    tokens, requests = f"sum({asking.rate(f'{_COMPUTED}_sum')})", f"sum({asking.rate(f'{_COMPUTED}_count')})"
    return BuiltIn(
        built_in.load(tokens, requests, change(_in_hand(asking.last), _in_hand(asking.before)), asking),
        reporting=(f"{_COMPUTED}_count{asking.select()}",),
        gauges=(f"{_WAITING}{asking.select()}", f"{_RUNNING}{asking.select()}"),
        bounded=tokens,
    )


def _queue_wait(asking: Asking) -> BuiltIn:
    waited, count = f"sum({asking.rate(f'{_QUEUE_TIME}_sum')})", f"sum({asking.rate(f'{_QUEUE_TIME}_count')})"
    return BuiltIn(
        built_in.mean_of(waited, count, *_in_hand(asking.last)),
        reporting=(f"{_QUEUE_TIME}_count{asking.select()}",),
    )


def _latency(metric: str, asking: Asking) -> BuiltIn:
    buckets, count = asking.rate(f"{metric}_bucket"), f"sum({asking.rate(f'{metric}_count')})"
    return BuiltIn(
        built_in.quantile_of(buckets, count, *_in_hand(asking.last), asking.quantile),
        reporting=(f"{metric}_count{asking.select()}",),
    )


def _time_to_first_token(asking: Asking) -> BuiltIn:
    return _latency("vllm:time_to_first_token_seconds", asking)


def _inter_token_latency(asking: Asking) -> BuiltIn:
    return _latency("vllm:inter_token_latency_seconds", asking)


def _decode_requests(asking: Asking) -> BuiltIn:
    running, for_room = _for_room(asking.mean)
    ended, held = (f"sum({asking.rate(f'{_DECODE_TIME}_{part}')})" for part in ("count", "sum"))
    in_hand = change(_for_room(asking.last), _for_room(asking.before))
    return BuiltIn(
        built_in.steady(f"({running} + {for_room})", ended, held, in_hand, asking),
        reporting=(f"{_RUNNING}{asking.select()}",),
        gauges=(f"{_RUNNING}{asking.select()}", f"{_BY_REASON}{asking.select(reason='capacity')}"),
        bounded=running,
    )


def _kv_cache_use(asking: Asking) -> BuiltIn:
    # The second is the name of older releases.
    names = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    use = " or ".join(asking.mean(name) for name in names)
    series = tuple(f"{name}{asking.select()}" for name in names)
    return BuiltIn(f"avg({use})", reporting=series, gauges=series, bounded=f"max({use})")


def _generation_tokens(asking: Asking) -> BuiltIn:
    metric = "vllm:generation_tokens_total"
    return BuiltIn(
        f"sum({asking.rate(metric)})",
        reporting=(f"{metric}{asking.select()}",),
    )


SIGNALS: Final[dict[SignalName, Build]] = {
    SignalName.PREFILL_LOAD: _prefill_load,
    SignalName.PREFILL_QUEUE_WAIT: _queue_wait,
    SignalName.TIME_TO_FIRST_TOKEN: _time_to_first_token,
    SignalName.DECODE_REQUESTS: _decode_requests,
    SignalName.KV_CACHE_USE: _kv_cache_use,
    SignalName.INTER_TOKEN_LATENCY: _inter_token_latency,
    SignalName.GENERATION_TOKENS: _generation_tokens,
}
