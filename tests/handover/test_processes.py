"""Real tiny workers as processes, through the real router: the right tokens, whatever happens on the way."""

import concurrent.futures
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from prfaas_workers.testing.local_worker import PULL, unified
from prfaas_workers.testing.tampering import Tampering

pytestmark = pytest.mark.slow

TEXT = "Sing, goddess, the anger of Peleus' son Achilleus and its devastation, which put pains thousandfold upon the Achaians. "
COMPUTED = "vllm:request_prefill_kv_computed_tokens_sum"


def decided(answer: httpx.Response) -> tuple[str, str]:
    return answer.headers["x-prfaas-decision"], answer.headers["x-prfaas-reason"]


@pytest.fixture(params=["NIXL_PULL", "NIXL_PUSH"])
def connector(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def test_a_remote_prefill_gives_the_tokens_of_a_unified_run(
    ask: Any, tokens: Any, start_tiny: Any, start_router: Any, tiny_snapshot: Any, connector: str
) -> None:
    """Text and token ids, streamed and not, greedy and sampled, and prompts whose beginning one side or both have seen."""
    alone, remote, decode = (start_tiny(wait=False) for _ in range(3))
    for worker in (alone, remote, decode):
        worker.wait_ready()
    router = start_router(tiny_snapshot([decode], None, [remote], connector=connector))
    numbers = random.Random(7)
    fresh = [numbers.randrange(256) for _ in range(150)]
    prompts: list[tuple[object, dict[str, Any]]] = [
        (TEXT, {}),
        (fresh, {"stream": True}),
        (fresh, {"temperature": 0.8, "seed": 11}),
        ([*fresh, *range(60)], {"max_tokens": 30}),
        ([*fresh[:70], *range(100, 160)], {"stream": True, "temperature": 1.2, "seed": 3}),
        (TEXT + TEXT[::-1], {"stream": True, "stream_options": {"include_usage": False}}),
    ]
    remotely = 0
    for prompt, options in prompts:
        answer = ask(router.url, prompt, **options)
        assert tokens(answer) == tokens(ask(alone.url, prompt, **options))
        remotely += decided(answer)[0] == "remote_prefill"
    # The repeated prompt is known to be cached, and goes the short way.
    assert remotely == len(prompts) - 1
    assert decode.metric("vllm:nixl_bytes_transferred_count") == remotely
    assert decode.metric("vllm:nixl_num_failed_transfers_total") == 0
    assert remote.metric("vllm:prefix_cache_hits_total") > 0


def test_many_at_once_are_all_right(
    ask: Any, tokens: Any, start_tiny: Any, start_router: Any, tiny_snapshot: Any, connector: str
) -> None:
    """Concurrent handovers through a small cache that has to evict."""
    remote, decode, alone = (start_tiny("--kv-cache-pages=40", wait=False) for _ in range(3))
    for worker in (remote, decode, alone):
        worker.wait_ready()
    router = start_router(tiny_snapshot([decode], None, [remote], connector=connector))
    numbers = random.Random(8)
    stem = [numbers.randrange(256) for _ in range(64)]
    prompts = [[*stem[: 16 * (n % 5)], *(numbers.randrange(256) for _ in range(70))] for n in range(16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda prompt: ask(router.url, prompt), prompts))
    assert {decided(answer)[0] for answer in answers} == {"remote_prefill"}
    for prompt, answer in zip(prompts, answers, strict=True):
        assert tokens(answer) == tokens(ask(alone.url, prompt))
    assert decode.metric("vllm:kv_cache_usage_perc") == remote.metric("vllm:kv_cache_usage_perc") == 0


@pytest.mark.parametrize("other", [{"seed": 5}, {"dtype": "bfloat16"}, {"pageSizeTokens": 32}])
def test_a_router_gets_over_kv_with_other_bytes(
    ask: Any, tokens: Any, start_tiny: Any, start_router: Any, tiny_snapshot: Any, other: dict[str, Any]
) -> None:
    """The worker refuses it by its fingerprint; the router lets decode prefill, says why, and the tokens are right."""
    remote, decode = start_tiny(wait=False, **other), start_tiny(wait=False)
    remote.wait_ready()
    decode.wait_ready()
    params = ask(remote.url, TEXT, max_tokens=1, kv_transfer_params=PULL).json()["kv_transfer_params"]
    refused = ask(decode.url, TEXT, kv_transfer_params=params)
    assert refused.status_code == 500
    assert "KV fingerprint" in refused.json()["error"]["message"]
    assert "pair pools of compatible profiles" in refused.json()["error"]["message"]
    # A snapshot that pairs them is a mistake that an operator does not make.
    router = start_router(tiny_snapshot([decode], None, [remote]))
    answer = ask(router.url, TEXT)
    assert decided(answer) == ("decode", "kv_transfer_failed")
    assert decode.metric("vllm:nixl_num_failed_transfers_total") == 2
    assert tokens(answer) == unified(tuple(TEXT.encode()), 8)[0]


@pytest.mark.parametrize(
    ("arguments", "kv", "message"),
    [
        (["--seed=4"], {}, "model.revision: 'seed-0-850dfcdba487' is not valid; give 'seed-4-"),
        ([], {"dtype": "fp8"}, "kv.dtype: 'fp8' is not valid; give one of float32, float16, bfloat16"),
        ([], {"layout": "HND"}, "kv.layout: 'HND' is not valid; give one of LBNHC, LBHNC"),
        ([], {"tensorParallel": 8}, "kv.tensorParallel: 8 is not valid; give 1"),
        ([], {"attention": "MLA"}, "kv.attention: 'MLA' is not valid; give 'GQA'"),
    ],
)
def test_a_profile_that_is_not_true_is_refused(
    start_tiny: Any, arguments: list[str], kv: dict[str, object], message: str
) -> None:
    """A worker whose profile tells others the wrong thing about its KV does not start."""
    worker = start_tiny(*arguments, wait=False, **kv)
    assert worker.process.wait(timeout=20) != 0
    assert message in worker.log.read_text()


def test_a_fingerprint_of_another_profile_is_refused(start_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator says of the KV has to be what the worker makes."""
    monkeypatch.setenv("PRFAAS_KV_FINGERPRINT", "ab" * 32)
    worker = start_tiny(wait=False)
    assert worker.process.wait(timeout=20) != 0
    assert f"PRFAAS_KV_FINGERPRINT: '{'ab' * 32}' is not valid" in worker.log.read_text()


@pytest.mark.parametrize("policy", ["fail", "recompute"])
def test_a_prefill_worker_killed_in_mid_transfer_costs_no_token(
    ask: Any, tokens: Any, start_tiny: Any, start_router: Any, tiny_snapshot: Any, free_address: str, policy: str
) -> None:
    """Part of the KV has come when the process dies; decode computes the prompt, by itself or because the router asks."""
    remote, decode = start_tiny(wait=False), start_tiny(f"--kv-load-failure-policy={policy}", wait=False)
    remote.wait_ready()
    decode.wait_ready()
    seen = free_address
    snapshot = tiny_snapshot([decode], None, [remote])
    snapshot["remote_prefill"][0]["pool"]["endpoints"][0]["kv_address_seen"] = seen
    router = start_router(snapshot)
    with (
        Tampering((remote.address, 5600), (seen, 5600), hold_at=20_000) as proxy,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        answer = pool.submit(ask, router.url, TEXT)
        assert proxy.holding.wait(20)
        remote.kill()
        expected = (
            ("remote_prefill", "uncached_above_threshold")
            if policy == "recompute"
            else ("decode", "kv_transfer_failed")
        )
        assert decided(answer.result()) == expected
        assert tokens(answer.result()) == unified(tuple(TEXT.encode()), 8)[0]
    assert decode.metric("vllm:nixl_num_failed_transfers_total") == 1
    assert decode.metric(COMPUTED) == len(TEXT)
    assert decode.metric("vllm:kv_cache_usage_perc") == 0


def test_a_client_that_goes_away_frees_its_pages(ask: Any, start_tiny: Callable[..., Any]) -> None:
    """In the middle of a stream."""
    worker = start_tiny("--max-num-seqs=1")
    body = {"model": "tiny", "prompt": TEXT, "max_tokens": 1900, "stream": True}
    with (
        httpx.Client(trust_env=False, timeout=30) as client,
        client.stream("POST", f"{worker.url}/v1/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        assert worker.metric("vllm:kv_cache_usage_perc") > 0.2
    assert ask(worker.url, TEXT, max_tokens=2).status_code == 200
    assert worker.metric("vllm:kv_cache_usage_perc") == 0
    assert worker.metric("vllm:num_requests_running") == 0


def test_the_cache_speaks_vllms_metrics(ask: Any, start_tiny: Callable[..., Any]) -> None:
    """Pages and their size are told, and tokens are counted by where their KV came from."""
    worker = start_tiny("--kv-cache-pages=32")
    for _ in range(2):
        assert ask(worker.url, TEXT).status_code == 200
    exposition = httpx.get(f"{worker.url}/metrics", trust_env=False).text
    assert 'vllm:cache_config_info{block_size="16",enable_prefix_caching="True",num_gpu_blocks="32"} 1.0' in exposition
    cached = (len(TEXT) - 1) // 16 * 16
    assert worker.metric("vllm:prefix_cache_hits_total") == cached
    assert worker.metric(COMPUTED) == 2 * len(TEXT) - cached
    assert worker.metric("vllm:generation_tokens_total") == 16


def test_a_token_outside_the_vocabulary_is_the_clients_error(ask: Any, start_tiny: Callable[..., Any]) -> None:
    """Streamed or not, it is HTTP 400 with the reason."""
    worker = start_tiny()
    for stream in (False, True):
        answer = ask(worker.url, [1, 256], stream=stream)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "prompt"
