"""A worker that is about to go leaves the configuration first: it gets no new work, and what it has is finished."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

SHORT = list(range(500))
LIMITS = {"max_waiting_requests": 8, "max_wait_s": 60}


def complete(router: Any, prompt: object = SHORT, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{router.url}/v1/completions",
        json={"model": "prfaas-1t", "prompt": prompt, "max_tokens": 4} | body,
        timeout=60,
        trust_env=False,
    )


@pytest.fixture
def serve(snapshot: Callable[..., dict[str, Any]], played_operator: Any) -> Callable[..., None]:
    def publish(decode: list[Any], local: list[Any] | None = None) -> None:
        played_operator.publish(snapshot(decode, local, None, limits=LIMITS, wakes=True))

    return publish


@pytest.fixture
def clients() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        yield pool


def by_name(*workers: Any) -> list[Any]:
    return sorted(workers, key=lambda worker: worker.name)


def served(worker: Any) -> float:
    return float(worker.metric("vllm:request_success_total"))


def test_a_stream_goes_on_and_new_requests_go_elsewhere(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None]
) -> None:
    leaves, stays = by_name(start_worker("--time-scale=1.25"), start_worker("--time-scale=1.25"))
    router = follow()
    serve([leaves])
    body = {"model": "prfaas-1t", "prompt": SHORT, "max_tokens": 200, "stream": True}
    with httpx.stream("POST", f"{router.url}/v1/completions", json=body, timeout=60, trust_env=False) as answer:
        lines = answer.iter_lines()
        next(lines)
        serve([stays])
        assert complete(router, SHORT[1:]).status_code == 200
        assert (served(leaves), served(stays)) == (0, 1)
        assert [line for line in lines if line][-1] == "data: [DONE]"


def test_a_decode_worker_that_leaves_during_prefill_is_not_given_the_request(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], clients: Any
) -> None:
    """It was idle as far as anybody could see, and may be gone by the time that its KV is ready."""
    leaves, stays = by_name(start_worker(), start_worker())
    prefill = start_worker("--time-scale=0.2")
    router = follow()
    serve([leaves, stays], [prefill])
    waiting = clients.submit(complete, router)
    prefill.wait_metric("vllm:num_requests_running", 1)
    serve([stays], [prefill])
    answer = waiting.result()
    assert (answer.status_code, answer.headers["x-prfaas-decision"]) == (200, "local_prefill")
    assert (served(leaves), served(stays)) == (0, 1)


def test_the_last_decode_worker_finishes_what_was_decided_for_it(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], clients: Any
) -> None:
    """It drains, and there is nobody else."""
    decode, prefill, router = start_worker(), start_worker("--time-scale=0.2"), follow()
    serve([decode], [prefill])
    waiting = clients.submit(complete, router)
    prefill.wait_metric("vllm:num_requests_running", 1)
    serve([], [prefill])
    answer = waiting.result()
    assert (answer.status_code, served(decode)) == (200, 1)
    assert "x-prfaas-waited-s" not in answer.headers


def test_a_request_whose_last_decode_worker_is_gone_waits_for_the_next(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], clients: Any
) -> None:
    """The pool was scaled to zero, and its worker ended, while the request was prefilled."""
    decode, prefill, router = start_worker(), start_worker("--time-scale=0.2"), follow()
    serve([decode], [prefill])
    waiting = clients.submit(complete, router)
    prefill.wait_metric("vllm:num_requests_running", 1)
    serve([], [prefill])
    decode.kill()
    router.wait_metric("prfaas_router_waiting", 1)
    serve([start_worker()], [prefill])
    answer = waiting.result()
    assert answer.status_code == 200
    assert float(answer.headers["x-prfaas-waited-s"]) > 0
    assert [(line["outcome"], line["waited_s"] > 0) for line in router.wait_requests(1)] == [("ok", True)]
