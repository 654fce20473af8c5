"""The simulated worker keeps vLLM's contract, with real processes and real KV bytes."""

import concurrent.futures
import copy
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from prfaas_core.profiles import Profile

pytestmark = pytest.mark.slow

PULL = {
    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
    "remote_host": None, "remote_port": None,
}  # fmt: skip
KEYS = {
    "do_remote_prefill", "do_remote_decode", "remote_block_ids", "remote_engine_id", "remote_request_id", "remote_host",
    "remote_port", "tp_size", "dcp_size", "pp_size", "remote_num_tokens", "remote_blocks_expiry_time",
    "remote_registration_generation", "transfer_mode",
}  # fmt: skip
PROMPT = list(range(5000))


def complete(worker: Any, request_id: str = "r1", **body: Any) -> httpx.Response:
    return httpx.post(
        f"{worker.url}/v1/completions",
        json={"model": "prfaas-1t", "prompt": PROMPT, "max_tokens": 5} | body,
        headers={"x-request-id": request_id},
        timeout=30,
        trust_env=False,
    )


def handover(prefill: Any, request_id: str = "r1", **body: Any) -> dict[str, Any]:
    answer = complete(prefill, request_id, max_tokens=1, kv_transfer_params=PULL, **body)
    assert answer.status_code == 200, answer.text
    params: dict[str, Any] = answer.json()["kv_transfer_params"]
    return params


def test_a_pull_handover_moves_the_bytes_of_the_profile(
    start_worker: Callable[..., Any], profile: dict[str, Any]
) -> None:
    prefill, decode = start_worker(), start_worker()
    params = handover(prefill)
    assert set(params) == KEYS
    answer = complete(decode, kv_transfer_params=params).json()
    assert answer["usage"]["completion_tokens"] == 5
    expected_bytes = Profile.from_spec(profile).kv_bytes(5000)
    assert decode.metric("vllm:nixl_bytes_transferred_sum") == pytest.approx(expected_bytes, abs=1)
    assert decode.metric("vllm:prompt_tokens_by_source_total") == 5000
    assert decode.metric("vllm:num_requests_running") == 0


def test_only_the_part_that_decode_lacks_is_sent(start_worker: Callable[..., Any]) -> None:
    prefill, decode = start_worker(), start_worker()
    complete(decode, kv_transfer_params=handover(prefill))
    first = decode.metric("vllm:nixl_bytes_transferred_sum")
    complete(decode, "r2", kv_transfer_params=handover(prefill, "r2"))
    second = decode.metric("vllm:nixl_bytes_transferred_sum") - first
    assert 0 < second < first
    assert prefill.metric("vllm:prefix_cache_hits_total") == 4608


def test_a_push_handover_streams_while_prefill_computes(start_worker: Callable[..., Any]) -> None:
    prefill, decode = start_worker(), start_worker()
    params = {
        "do_remote_decode": False, "do_remote_prefill": True, "remote_engine_id": prefill.name, "remote_host": prefill.address,
        "remote_port": 5600, "tp_size": 8, "pp_size": 1, "remote_request_id": "p1",
    }  # fmt: skip
    with concurrent.futures.ThreadPoolExecutor() as pool:
        second = pool.submit(complete, decode, "p1", kv_transfer_params=params)
        first = pool.submit(complete, prefill, "p1", max_tokens=1, kv_transfer_params=PULL | {"transfer_mode": "push"})
        assert first.result().json()["kv_transfer_params"]["transfer_mode"] == "push"
        assert second.result().json()["usage"]["completion_tokens"] == 5
    assert decode.metric("vllm:nixl_bytes_transferred_count") == 1


def test_a_handed_over_kv_is_spent_once(start_worker: Callable[..., Any]) -> None:
    prefill, decode = start_worker(), start_worker()
    params = handover(prefill)
    assert complete(decode, kv_transfer_params=params).status_code == 200
    again = complete(decode, "r2", kv_transfer_params=params)
    assert again.status_code == 500
    assert "spent once" in again.json()["error"]["message"]


def test_an_offer_that_nobody_reads_expires(start_worker: Callable[..., Any]) -> None:
    prefill, decode = start_worker("--kv-lease-duration-s=0.05"), start_worker()
    params = handover(prefill)
    prefill.wait_metric("vllm:nixl_num_kv_expired_reqs_total", 1)
    late = complete(decode, kv_transfer_params=params)
    assert late.status_code == 500
    assert "expired" in late.json()["error"]["message"]
    assert prefill.metric("vllm:nixl_num_notifications_after_expiry_total") == 1


def test_kv_of_another_profile_is_refused_by_its_fingerprint(
    start_worker: Callable[..., Any], profile: dict[str, Any]
) -> None:
    other = copy.deepcopy(profile)
    other["kv"]["dtype"] = "fp8"
    prefill, decode = start_worker(), start_worker(spec=other)
    answer = complete(decode, kv_transfer_params=handover(prefill))
    assert answer.status_code == 500
    assert "fingerprint" in answer.json()["error"]["message"]
    assert decode.metric("vllm:nixl_num_failed_transfers_total") == 1


@pytest.mark.parametrize(("policy", "status"), [("fail", 500), ("recompute", 200)])
def test_a_prefill_worker_killed_mid_transfer_ends_by_policy(
    start_worker: Callable[..., Any], profile: dict[str, Any], policy: str, status: int
) -> None:
    # More than a gigabyte is on its way when the process dies.
    scale = 1.3e9 / Profile.from_spec(profile).kv_bytes(5000)
    prefill = start_worker(f"--bytes-scale={scale:.3f}", "--layers=64")
    decode = start_worker(f"--kv-load-failure-policy={policy}")
    params = handover(prefill)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(complete, decode, kv_transfer_params=params)
        decode.wait_metric(
            'vllm:num_requests_waiting_by_reason{engine="0",model_name="prfaas-1t",reason="deferred"}', 1
        )
        prefill.kill()
        assert answer.result().status_code == status
    assert decode.metric("vllm:nixl_num_failed_transfers_total") == 1
    assert decode.metric("vllm:num_requests_waiting") == 0


def test_missing_transfer_parameters_are_computed_here_and_counted(start_worker: Callable[..., Any]) -> None:
    decode = start_worker()
    assert complete(decode, kv_transfer_params={"do_remote_prefill": True}).status_code == 200
    assert decode.metric("vllm:request_prefill_kv_computed_tokens_sum") == 5000


def test_a_client_that_goes_away_frees_its_slot(start_worker: Callable[..., Any]) -> None:
    worker = start_worker("--max-num-seqs=1", "--time-scale=0.125")
    with httpx.Client(trust_env=False, timeout=30) as client:
        body = {"model": "prfaas-1t", "prompt": "x" * 40, "max_tokens": 100_000, "stream": True}
        with client.stream("POST", f"{worker.url}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            assert worker.metric("vllm:num_requests_running") == 1
    worker.wait_metric("vllm:num_requests_running", 0)
    assert complete(worker, prompt="y" * 40, max_tokens=1).status_code == 200


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_a_stream_ends_with_the_reason_the_usage_and_done(start_worker: Callable[..., Any], path: str) -> None:
    worker = start_worker()
    body: dict[str, Any] = {"max_tokens": 40, "stream": True, "stream_options": {"include_usage": True}}
    body |= {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"prompt": "hi there"}
    answer = httpx.post(f"{worker.url}/v1/{path}", json=body, trust_env=False)
    events = [line[6:] for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 40
    assert json.loads(events[-3])["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b'{"model": "other", "prompt": "x"}', 404, "model"),
        (b'{"prompt": 5}', 400, "prompt"),
        (b'{"prompt": [-1]}', 400, "prompt"),
        (b'{"prompt": []}', 400, "prompt"),
        (b'{"prompt": "x", "max_tokens": 0}', 400, "max_tokens"),
        (b'{"prompt": "x", "max_tokens": 131072}', 400, "max_tokens"),
        (b'{"prompt": "x", "kv_transfer_params": "y"}', 400, "kv_transfer_params"),
    ],
)
def test_bad_requests_are_refused_by_name(
    start_worker: Callable[..., Any], body: bytes, status: int, param: str | None
) -> None:
    worker = start_worker()
    answer = httpx.post(f"{worker.url}/v1/completions", content=body, trust_env=False)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param
