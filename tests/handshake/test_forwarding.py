"""Requests through a real router and real workers: where they go, and what happens when a leg fails."""

import concurrent.futures
import json
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from prfaas_local.testing import wait

pytestmark = pytest.mark.slow

SHORT, LONG = list(range(500)), list(range(3000))


def complete(router: Any, prompt: object, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{router.url}/v1/completions",
        json={"model": "prfaas-1t", "prompt": prompt, "max_tokens": 4} | body,
        timeout=30,
        trust_env=False,
    )


def decided(answer: httpx.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.headers.get("x-prfaas-decision", ""), answer.headers.get("x-prfaas-reason", "")


@pytest.fixture(params=["NIXL_PULL", "NIXL_PUSH"])
def connector(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def test_the_threshold_sends_long_prompts_across(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any], connector: str
) -> None:
    decode, local, remote = start_worker(), start_worker(), start_worker()
    router = start_router(snapshot([decode], [local], [remote], connector=connector))
    assert decided(complete(router, SHORT)) == (200, "local_prefill", "uncached_within_threshold")
    assert decided(complete(router, LONG)) == (200, "remote_prefill", "uncached_above_threshold")
    assert local.metric("vllm:request_prefill_kv_computed_tokens_sum") == 500
    assert remote.metric("vllm:request_prefill_kv_computed_tokens_sum") > 2400
    assert decode.metric("vllm:nixl_bytes_transferred_count") == 2
    assert decode.metric("vllm:request_prefill_kv_computed_tokens_sum") == 0
    reasons = [line["reason"] for line in router.requests()]
    assert reasons == ["uncached_within_threshold", "uncached_above_threshold"]
    assert router.metric('prfaas_router_requests_total{destination="remote_prefill",outcome="ok"') == 1
    # The second prompt begins with the first, and its prefix is remembered.
    assert decided(complete(router, LONG[:700])) == (200, "local_prefill", "uncached_within_threshold")


def test_streams_arrive_whole(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any], connector: str
) -> None:
    router = start_router(snapshot([start_worker()], [start_worker()], [start_worker()], connector=connector))
    answer = complete(router, LONG, stream=True, max_tokens=300, stream_options={"include_usage": True})
    events = [line[6:] for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 300
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events[:-2]) == "tok " * 300


def test_a_dead_remote_prefill_is_done_locally_and_then_set_aside(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    decode, local, remote = start_worker(), start_worker(), start_worker()
    router = start_router(snapshot([decode], [local], [remote]))
    remote.kill()
    prompts = [list(range(start, start + 3000)) for start in (0, 10_000, 20_000)]
    answers = [decided(complete(router, prompt)) for prompt in prompts]
    failed = (200, "local_prefill", "remote_prefill_failed")
    assert answers == [failed, failed, (200, "local_prefill", "remote_unavailable")]


def test_without_any_prefill_worker_decode_does_it(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any], connector: str
) -> None:
    decode, local = start_worker(), start_worker()
    router = start_router(snapshot([decode], [local], None, connector=connector))
    local.kill()
    assert decided(complete(router, SHORT)) == (200, "decode", "local_prefill_failed")
    assert decode.metric("vllm:request_prefill_kv_computed_tokens_sum") == 500


def test_a_remote_prefill_killed_while_it_computes_falls_back(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any], connector: str
) -> None:
    decode, local, remote = start_worker(), start_worker(), start_worker("--time-scale=0.00125")
    router = start_router(snapshot([decode], [local], [remote], connector=connector))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(complete, router, LONG)
        remote.wait_metric("vllm:num_requests_running", 1)
        remote.kill()
        status, _, reason = decided(answer.result())
    # In push mode decode sees the transfer break as well, and either may be noticed first.
    expected = (
        {"remote_prefill_failed"}
        if connector == "NIXL_PULL"
        else {"remote_prefill_failed_decode", "kv_transfer_failed"}
    )
    assert (status, reason in expected) == (200, True)


def test_kv_that_does_not_arrive_is_computed_by_decode(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    # The offer expires at once, so that the transfer is refused.
    decode, remote = start_worker(), start_worker("--kv-lease-duration-s=0.000001")
    router = start_router(snapshot([decode], None, [remote]))
    assert decided(complete(router, LONG)) == (200, "decode", "kv_transfer_failed")
    assert decode.metric("vllm:nixl_num_failed_transfers_total") == 1


def test_another_decode_worker_takes_over_when_one_is_gone(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    workers = [start_worker(), start_worker()]
    router = start_router(snapshot(workers, [start_worker()], None))
    min(workers, key=lambda worker: worker.name).kill()
    assert complete(router, SHORT).status_code == 200


def test_without_a_decode_worker_the_error_is_clear(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    decode = start_worker()
    router = start_router(snapshot([decode], [start_worker()], None))
    decode.kill()
    answer = complete(router, SHORT)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_decode_worker"
    assert answer.headers["retry-after"] == "1"


def test_a_decode_worker_killed_mid_stream_ends_the_stream_with_an_error(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    decode = start_worker("--time-scale=0.125")
    router = start_router(snapshot([decode], None, None))
    body = {"model": "prfaas-1t", "prompt": SHORT, "max_tokens": 100_000, "stream": True}
    with httpx.stream("POST", f"{router.url}/v1/completions", json=body, timeout=30, trust_env=False) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        decode.kill()
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2][6:])["error"]["code"] == "upstream_failed"


def test_a_client_that_goes_away_cancels_both_legs(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any], connector: str
) -> None:
    decode, remote = start_worker("--time-scale=0.0125"), start_worker("--time-scale=0.0125")
    router = start_router(snapshot([decode], None, [remote], connector=connector))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{router.url}/v1/completions",
            json={"model": "prfaas-1t", "prompt": LONG, "max_tokens": 4},
            timeout=1,
            trust_env=False,
        )
    for worker in (decode, remote):
        worker.wait_metric("vllm:num_requests_running", 0)
        worker.wait_metric("vllm:num_requests_waiting", 0)
    router.wait_metric("prfaas_router_in_flight", 0)


def test_clients_cannot_choose_workers(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    decode = start_worker()
    router = start_router(snapshot([decode], None, None))
    forged = {"do_remote_prefill": True, "remote_engine_id": "x", "remote_request_id": "y", "remote_host": "127.0.0.1",
              "remote_port": 1}  # fmt: skip
    assert complete(router, SHORT, kv_transfer_params=forged).status_code == 200
    assert decode.metric("vllm:nixl_num_failed_transfers_total") == 0


def test_a_draining_router_finishes_its_streams(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    decode = start_worker("--time-scale=1.25")
    router = start_router(snapshot([decode], None, None))
    body = {"model": "prfaas-1t", "prompt": SHORT, "max_tokens": 400, "stream": True}
    with httpx.stream("POST", f"{router.url}/v1/completions", json=body, timeout=30, trust_env=False) as answer:
        lines = answer.iter_lines()
        next(lines)
        router.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert router.process.wait(timeout=10) == 0


def test_a_draining_router_answers_what_comes_on_connections_that_there_are(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    """A request may be on its way while the router goes; the answer tells the client to connect to another."""
    router = start_router(snapshot([start_worker()], None, None))

    def refused() -> bool:
        try:
            httpx.get(f"{router.url}/health", trust_env=False)
        except httpx.ConnectError:
            return True
        return False

    with httpx.Client(base_url=router.url, timeout=30, trust_env=False) as client:
        body = {"model": "prfaas-1t", "prompt": SHORT, "max_tokens": 2}
        before = client.post("/v1/completions", json=body)
        router.process.send_signal(signal.SIGTERM)
        wait(refused, "no longer listens")
        after = client.post("/v1/completions", json=body)
    assert (before.status_code, after.status_code) == (200, 200)
    assert "connection" not in before.headers
    assert after.headers["connection"] == "close"
    assert router.process.wait(timeout=10) == 0
