"""The built-in signals by SGLang's metrics.

Schedulers count once for each rank of a model that is spread over GPUs: of the ranks of tensor, pipeline and expert parallelism
the highest counts, since all see the same requests, and those of data parallelism add up. Where requests have priorities, the
gauge without one is the sum of the others. Many series begin with the first request, so what tells which pods report is the
gauge of running requests, which is always there.

Requests that wait for the other side (bootstrap and transfer queues) are no load of the engine that they wait in. How long an
answer takes from its first token on is not counted, so DecodeRequests are those in hand, a backlog included.
"""

from __future__ import annotations

from typing import Final

from prfaas_core.autoscaling import SignalName
from prfaas_operator.scaling.queries import built_in
from prfaas_operator.scaling.queries.built_in import Asking, Build, BuiltIn, Gauge, change

_RUNNING: Final = "sglang:num_running_reqs"
_QUEUED: Final = "sglang:num_queue_reqs"
_FOR_ROOM: Final = "sglang:num_decode_prealloc_queue_reqs"
_ALL: Final = {"priority": ""}


def _over_ranks(series: str, *labels: str) -> str:
    return f"sum(max by ({', '.join(('pod', 'dp_rank', *labels))}) ({series}))"


def _reporting(asking: Asking) -> tuple[str, ...]:
    return _gauges(asking, _RUNNING)


def _gauges(asking: Asking, *metrics: str) -> tuple[str, ...]:
    return tuple(f"{metric}{asking.select(**_ALL)}" for metric in metrics)


def _in_hand(gauge: Gauge) -> tuple[str, str]:
    """Return the PromQL of the requests that wait, and of those that run."""
    return _over_ranks(gauge(_QUEUED, **_ALL)), _over_ranks(gauge(_RUNNING, **_ALL))


def _or_none(series: str, asking: Asking) -> str:
    """Return the PromQL of a number that is 0 as long as its series have not begun, while pods report."""
    return f"({series} or 0 * {_over_ranks(asking.last(_RUNNING, **_ALL))})"


def _prefill_load(asking: Asking) -> BuiltIn:
    # What the scheduler computed. Pods of older releases have no such counter: there it is prompts without what came from
    # a cache; a request counts its cached tokens either by source or as `total`, so all of them add up.
    computed = asking.rate("sglang:realtime_tokens_total", mode="prefill_compute", **_ALL)
    prompts = f"sum by (pod) ({asking.rate('sglang:prompt_tokens_total')})"
    cached = f"(sum by (pod) ({asking.rate('sglang:cached_tokens_total')}) or 0 * {prompts})"
    newer = f"sum by (pod) (max by (pod, dp_rank) ({computed}))"
    tokens = _or_none(f"sum({newer} or {prompts} - {cached})", asking)
    requests = _or_none(f"sum({asking.rate('sglang:num_requests_total')})", asking)
    return BuiltIn(
        built_in.load(tokens, requests, change(_in_hand(asking.last), _in_hand(asking.before)), asking),
        reporting=_reporting(asking),
        gauges=_gauges(asking, _QUEUED, _RUNNING),
        bounded=tokens,
    )


def _queue_wait(asking: Asking) -> BuiltIn:
    metric = "sglang:queue_time_seconds"
    # With priorities or without: what is counted twice is so in the sum and in the count.
    waited = _or_none(_over_ranks(asking.rate(f"{metric}_sum"), "priority"), asking)
    count = _or_none(_over_ranks(asking.rate(f"{metric}_count"), "priority"), asking)
    return BuiltIn(
        built_in.mean_of(waited, count, *_in_hand(asking.last)),
        reporting=_reporting(asking),
    )


def _latency(metric: str, asking: Asking) -> BuiltIn:
    # Counted where requests come in, once for each.
    count = _or_none(f"sum({asking.rate(f'{metric}_count')})", asking)
    return BuiltIn(
        built_in.quantile_of(asking.rate(f"{metric}_bucket"), count, *_in_hand(asking.last), asking.quantile),
        reporting=_reporting(asking),
    )


def _time_to_first_token(asking: Asking) -> BuiltIn:
    return _latency("sglang:time_to_first_token_seconds", asking)


def _inter_token_latency(asking: Asking) -> BuiltIn:
    return _latency("sglang:inter_token_latency_seconds", asking)


def _decode_requests(asking: Asking) -> BuiltIn:
    running, queued = _over_ranks(asking.mean(_RUNNING, **_ALL)), _over_ranks(asking.mean(_QUEUED, **_ALL))
    for_room = _or_none(_over_ranks(asking.mean(_FOR_ROOM, **_ALL)), asking)
    return BuiltIn(
        f"{running} + {queued} + {for_room}",
        reporting=_reporting(asking),
        gauges=_gauges(asking, _RUNNING, _QUEUED, _FOR_ROOM),
        bounded=running,
    )


def _kv_cache_use(asking: Asking) -> BuiltIn:
    metric = "sglang:token_usage"
    use = f"max by (pod, dp_rank) ({asking.mean(metric, **_ALL)})"
    return BuiltIn(
        f"avg({use})",
        reporting=_reporting(asking),
        gauges=_gauges(asking, metric),
        bounded=f"max({use})",
    )


def _generation_tokens(asking: Asking) -> BuiltIn:
    # As they are generated; older releases count when an answer has ended.
    generated = _over_ranks(asking.rate("sglang:realtime_tokens_total", mode="decode", **_ALL))
    ended = f"sum({asking.rate('sglang:generation_tokens_total')})"
    return BuiltIn(
        _or_none(f"{generated} or {ended}", asking),
        reporting=_reporting(asking),
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
