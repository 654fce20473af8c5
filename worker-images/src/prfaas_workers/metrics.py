"""vLLM's metrics, with the names and labels that it exposes; only those that the workers here truly feed."""

from __future__ import annotations

from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
_STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5)
_REQUEST_BUCKETS = (0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240)
_TOKEN_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5)
_BYTE_BUCKETS = tuple(2.0**power for power in range(10, 36, 2))


class Metrics:
    """The metrics of one worker. Attributes are children with the labels `model_name` and `engine` set."""

    def __init__(self, model: str) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._model = model

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, ["model_name", "engine"], registry=self.registry).labels(model, "0")

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["model_name", "engine"], registry=self.registry).labels(model, "0")

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            labels = ["model_name", "engine"]
            return Histogram(name, text, labels, buckets=buckets, registry=self.registry).labels(model, "0")

        self.running = gauge("vllm:num_requests_running", "Requests in the batch.")
        self.waiting = gauge("vllm:num_requests_waiting", "Requests that wait, for KV included.")
        self._waiting_by_reason = Gauge(
            "vllm:num_requests_waiting_by_reason",
            "Requests that wait, by reason.",
            ["model_name", "engine", "reason"],
            registry=self.registry,
        )
        self.waiting_capacity = self._waiting_by_reason.labels(model, "0", "capacity")
        self.waiting_deferred = self._waiting_by_reason.labels(model, "0", "deferred")
        self.kv_cache_usage = gauge("vllm:kv_cache_usage_perc", "Part of the KV cache in use, 0 to 1.")
        self.prefix_queries = counter("vllm:prefix_cache_queries", "Tokens looked up in the prefix cache.")
        self.prefix_hits = counter("vllm:prefix_cache_hits", "Tokens found in the prefix cache.")
        self.prompt_tokens = counter("vllm:prompt_tokens", "Prompt tokens processed.")
        self.generation_tokens = counter("vllm:generation_tokens", "Tokens generated.")
        by_source = Counter(
            "vllm:prompt_tokens_by_source",
            "Prompt tokens by where their KV came from.",
            ["model_name", "engine", "source"],
            registry=self.registry,
        )
        self.tokens_computed = by_source.labels(model, "0", "local_compute")
        self.tokens_cached = by_source.labels(model, "0", "local_cache_hit")
        self.tokens_transferred = by_source.labels(model, "0", "external_kv_transfer")
        self._success = Counter(
            "vllm:request_success", "Requests that ended.", ["model_name", "engine", "finished_reason"],
            registry=self.registry,
        )  # fmt: skip
        self.ttft_s = histogram("vllm:time_to_first_token_seconds", "Time to the first token.", _TTFT_BUCKETS)
        self.itl_s = histogram("vllm:inter_token_latency_seconds", "Time between tokens.", _STEP_BUCKETS)
        self.e2e_s = histogram("vllm:e2e_request_latency_seconds", "Time of a whole request.", _REQUEST_BUCKETS)
        self.queue_s = histogram("vllm:request_queue_time_seconds", "Time in the queue.", _REQUEST_BUCKETS)
        self.prefill_s = histogram("vllm:request_prefill_time_seconds", "Time in prefill.", _REQUEST_BUCKETS)
        self.decode_s = histogram("vllm:request_decode_time_seconds", "Time in decode.", _REQUEST_BUCKETS)
        self.computed_tokens = histogram(
            "vllm:request_prefill_kv_computed_tokens", "Prompt tokens computed a request.", _TOKEN_BUCKETS
        )
        self.transfer_s = histogram("vllm:nixl_xfer_time_seconds", "Time of a KV transfer.", _REQUEST_BUCKETS)
        self.transfer_bytes = histogram("vllm:nixl_bytes_transferred", "Bytes of a KV transfer.", _BYTE_BUCKETS)
        self.transfers_failed = counter("vllm:nixl_num_failed_transfers", "KV transfers that failed.")
        self.kv_expired = counter("vllm:nixl_num_kv_expired_reqs", "Offers of KV that expired unread.")
        self.read_after_expiry = counter("vllm:nixl_num_notifications_after_expiry", "Reads of KV after its expiry.")

    def finished(self, reason: str) -> None:
        """Count a request that ended with `reason`: stop, length, abort or error."""
        self._success.labels(self._model, "0", reason).inc()

    def describe_cache(self, block_tokens: int, blocks: int) -> None:
        """Set `vllm:cache_config_info`."""
        Gauge(
            "vllm:cache_config_info", "The cache's configuration.", ["block_size", "num_gpu_blocks", "enable_prefix_caching"],
            registry=self.registry,
        ).labels(str(block_tokens), str(blocks), "True").set(1)  # fmt: skip

    def exposition(self, refresh: Callable[[], None]) -> bytes:
        """Return the text exposition after `refresh` has set the gauges."""
        refresh()
        return prometheus_client.generate_latest(self.registry)
