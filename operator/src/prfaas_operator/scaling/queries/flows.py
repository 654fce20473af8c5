"""The PromQL of what flows between pools and out of them: KV over links, and answers.

A pool has one engine, so the metrics of both engines stand side by side, and those that exist count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prfaas_operator.scaling.queries.workers import Workers

LINK_WINDOW_S: Final = 60
ANSWER_WINDOW_S: Final = 120


def received_bytes(decode: Iterable[Workers]) -> str:
    """Return the PromQL of the KV bytes a second that decode pools receive, from wherever; absent if none reports."""
    rates = (f"rate(vllm:nixl_bytes_transferred_sum{pool.selector}[{LINK_WINDOW_S}s])" for pool in _ordered(decode))
    return f"sum({' or '.join(rates)})"


def output_tokens(decode: Workers) -> str:
    """Return the PromQL of the mean tokens of an answer; absent where nothing was answered."""

    def rate(metric: str, selector: str = decode.selector) -> str:
        return f"sum(rate({metric}{selector}[{ANSWER_WINDOW_S}s]))"

    not_aborted = f'{decode.selector[:-1]},finished_reason!="abort"}}'
    vllm = f"{rate('vllm:generation_tokens_total')} / ({rate('vllm:request_success_total', not_aborted)} > 0)"
    sglang = f"{rate('sglang:generation_tokens_total')} / ({rate('sglang:num_requests_total')} > 0)"
    return f"{vllm} or {sglang}"


def handed_over_bytes(prefill: Iterable[tuple[Workers, float, float]]) -> str:
    """Return the PromQL of the KV bytes a second that prefill pools hand over, by their profile.

    Each pool comes with the line through its S_kv curve: bytes a request, and bytes a token.
    """

    def rate(pool: Workers, *metrics: str) -> str:
        # A pool without workers has no series, and a sum with an absent part would be absent too.
        rates = (f"sum(rate({metric}{pool.selector}[{LINK_WINDOW_S}s]))" for metric in metrics)
        return f"({' or '.join(rates)} or vector(0))"

    return " + ".join(
        f"({request_bytes:.6g} * {rate(pool, 'vllm:request_success_total', 'sglang:num_requests_total')}"
        f" + {token_bytes:.6g} * {rate(pool, 'vllm:prompt_tokens_total', 'sglang:prompt_tokens_total')})"
        for pool, request_bytes, token_bytes in sorted(prefill, key=lambda item: (item[0].cluster, item[0].pool))
    )


def _ordered(workers: Iterable[Workers]) -> list[Workers]:
    return sorted(workers, key=lambda item: (item.cluster, item.pool))
