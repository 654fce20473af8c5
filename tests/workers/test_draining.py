"""A worker that is told to go finishes what it has, keeps KV for whoever fetches it, and then goes."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from prfaas_workers.testing.local_worker import PULL

pytestmark = pytest.mark.slow

USED = "vllm:kv_cache_usage_perc"
PROMPT = list(range(5000))


def complete(worker: Any, **body: Any) -> httpx.Response:
    body = {"model": "prfaas-1t", "prompt": PROMPT, "max_tokens": 5} | body
    return httpx.post(f"{worker.url}/v1/completions", json=body, timeout=30, trust_env=False)


def offer(worker: Any) -> dict[str, Any]:
    answer = complete(worker, max_tokens=1, kv_transfer_params=PULL)
    params: dict[str, Any] = answer.json()["kv_transfer_params"]
    return params


@contextmanager
def stream(worker: Any, tokens: int) -> Iterator[Iterator[str]]:
    body = {"model": "prfaas-1t", "prompt": "x" * 40, "max_tokens": tokens, "stream": True}
    with (
        httpx.Client(trust_env=False, timeout=30) as client,
        client.stream("POST", f"{worker.url}/v1/completions", json=body) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line)
        assert next(lines).startswith("data: ")
        yield lines


def terminate(worker: Any) -> None:
    """Tell a worker to go, and wait until it says that it is on its way."""
    worker.process.send_signal(signal.SIGTERM)
    end_s = time.monotonic() + 60
    while httpx.get(f"{worker.url}/health", trust_env=False).status_code != 503:
        assert time.monotonic() < end_s, worker.log.read_text()


def test_streams_end_and_what_was_on_its_way_is_served(start_worker: Callable[..., Any]) -> None:
    worker = start_worker("--time-scale=1")
    with stream(worker, 400) as lines:
        terminate(worker)
        assert complete(worker, prompt="late", max_tokens=1).status_code == 200
        rest = list(lines)
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
    assert worker.process.wait(10) == 0, worker.log.read_text()


def test_kv_stays_until_it_is_fetched(start_worker: Callable[..., Any]) -> None:
    prefill, decode = start_worker(), start_worker()
    assert prefill.metric(USED) == 0
    params = offer(prefill)
    assert prefill.metric(USED) > 0, "KV on offer takes room"
    assert prefill.metric("vllm:num_requests_running") == 0
    terminate(prefill)
    # Longer than an idle worker stays.
    with pytest.raises(subprocess.TimeoutExpired):
        prefill.process.wait(2.0)
    assert complete(decode, kv_transfer_params=params).status_code == 200
    assert prefill.process.wait(10) == 0, prefill.log.read_text()
    assert decode.metric("vllm:nixl_bytes_transferred_count") == 1
    assert "KV of 1 to be fetched" in prefill.log.read_text()


def test_kv_that_nobody_fetches_is_kept_for_its_lease_and_no_longer(start_worker: Callable[..., Any]) -> None:
    prefill = start_worker("--kv-lease-duration-s=2")
    offered_s = time.monotonic()
    offer(prefill)
    terminate(prefill)
    assert prefill.process.wait(10) == 0, prefill.log.read_text()
    assert 2 <= time.monotonic() - offered_s < 8


def test_kv_that_was_fetched_takes_no_room(start_worker: Callable[..., Any]) -> None:
    prefill, decode = start_worker(), start_worker()
    complete(decode, kv_transfer_params=offer(prefill))
    prefill.wait_metric(USED, 0)


def test_the_time_of_a_drain_ends(start_worker: Callable[..., Any]) -> None:
    worker = start_worker("--time-scale=1", "--drain-s=0.5")
    with stream(worker, 100_000) as lines:
        terminate(worker)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert worker.process.wait(10) == 0
    assert "stopping: 1 requests" in worker.log.read_text()


def test_a_worker_that_is_killed_takes_its_kv_along(start_worker: Callable[..., Any]) -> None:
    prefill, decode = start_worker(), start_worker()
    params = offer(prefill)
    prefill.kill()
    assert complete(decode, kv_transfer_params=params).status_code == 500
    assert decode.metric("vllm:num_requests_waiting") == 0
