"""The PromQL of the built-in signals and of the links' meters.

Engines count for themselves, pod by pod; rates come before sums, so that the restart of one pod does not look like a fall
of all. Signals are averages over the ready workers, which is what the rule of the autoscaler expects.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from prfaas_operator.api.scaling import Signal, SignalName
from prfaas_operator.children.metadata import Role

LINK_WINDOW_S = 60
ANSWER_WINDOW_S = 120


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of one pool, as Prometheus labels them."""

    cluster: str
    namespace: str
    pool: str
    role: Role

    @property
    def selector(self) -> str:
        labels = {
            "cluster": self.cluster,
            "namespace": self.namespace,
            "prfaas_pool": self.pool,
            "prfaas_role": self.role,
        }
        return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def signal(settings: Signal, workers: Workers) -> str:
    """Return the PromQL of a pool's signal."""
    if settings.query is not None:
        return settings.query
    samples = f"{workers.selector}[{settings.window_seconds}s]"
    if settings.name is SignalName.PREFILL_QUEUE_WAIT:
        waited = f"sum(rate(vllm:request_queue_time_seconds_sum{samples}))"
        count = f"sum(rate(vllm:request_queue_time_seconds_count{samples}))"
        # Where nothing was asked there is no mean, and nobody waited.
        return f"{waited} / ({count} > 0) or {waited} * 0"
    return f"avg(avg_over_time(vllm:num_requests_running{samples}))"


def received_bytes(decode: Iterable[Workers]) -> str:
    """Return the PromQL of the KV bytes a second that decode pools receive, from wherever; absent if none reports."""
    rates = (f"rate(vllm:nixl_bytes_transferred_sum{pool.selector}[{LINK_WINDOW_S}s])" for pool in _ordered(decode))
    return f"sum({' or '.join(rates)})"


def output_tokens(decode: Workers) -> str:
    """Return the PromQL of the mean tokens of an answer; absent where nothing was answered."""
    samples = f"{decode.selector}[{ANSWER_WINDOW_S}s]"
    answered = (
        f'sum(rate(vllm:request_success_total{decode.selector[:-1]},finished_reason!="abort"}}[{ANSWER_WINDOW_S}s]))'
    )
    return f"sum(rate(vllm:generation_tokens_total{samples})) / ({answered} > 0)"


def handed_over_bytes(prefill: Iterable[tuple[Workers, float, float]]) -> str:
    """Return the PromQL of the KV bytes a second that prefill pools hand over, by their profile.

    Each pool comes with the line through its S_kv curve: bytes a request, and bytes a token.
    """
    # A pool without workers has no series, and a sum with an absent part would be absent too.
    return " + ".join(
        f"({request_bytes:.6g} * (sum(rate(vllm:request_success_total{pool.selector}[{LINK_WINDOW_S}s])) or vector(0))"
        f" + {token_bytes:.6g} * (sum(rate(vllm:prompt_tokens_total{pool.selector}[{LINK_WINDOW_S}s])) or vector(0)))"
        for pool, request_bytes, token_bytes in sorted(prefill, key=lambda item: (item[0].cluster, item[0].pool))
    )


def _ordered(workers: Iterable[Workers]) -> list[Workers]:
    return sorted(workers, key=lambda item: (item.cluster, item.pool))
