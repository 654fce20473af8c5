"""Shadow mode in a real router over real workers: nothing goes across, and what that costs is measured and logged."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

SLOW = [{"tokens": 1000, "value": 1.0}, {"tokens": 100_000, "value": 100.0}]
FAST = [{"tokens": 1000, "value": 0.25}, {"tokens": 100_000, "value": 25.0}]
KV = [{"tokens": 1000, "value": 1e6}, {"tokens": 100_000, "value": 1e8}]


def ask(router: Any, tokens: int) -> tuple[str, str]:
    answer = httpx.post(
        f"{router.url}/v1/completions",
        json={"model": "prfaas-1t", "prompt": list(range(tokens)), "max_tokens": 2},
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["x-prfaas-decision"], answer.headers["x-prfaas-reason"]


def logged(router: Any, count: int) -> list[Any]:
    deadline = time.monotonic() + 60
    while len(found := router.requests()) < count:
        assert time.monotonic() < deadline, f"{len(found)} log lines, {count} were expected"
        time.sleep(0.01)
    return [line["regret_s"] for line in found]


@pytest.mark.parametrize("algorithm", ["PAPER", "FINISH_TIME"])
def test_the_regret_of_what_stayed_is_in_the_metrics_and_the_log(
    start_worker: Callable[..., Any],
    start_router: Callable[..., Any],
    snapshot: Callable[..., Any],
    algorithm: str,
) -> None:
    decode, local, remote = start_worker(), start_worker(), start_worker()
    message = snapshot(
        [decode], [local], [remote], prefill_seconds=SLOW, price=0.001,
        policy={"mode": "SHADOW", "algorithm": algorithm, "stale_after_s": 3600},
    )  # fmt: skip
    entry = message["remote_prefill"][0]
    entry["pool"]["prefill_seconds"] = FAST
    entry["link"] = {"capacity_bps": 8e7, "share": 1.0, "kv_bytes": KV, "price": 0.001}
    router = start_router(message)
    assert ask(router, 8000) == ("local_prefill", "shadow_would_be_remote")
    # 8 s of prefill here; there 2 s, and 8 MB at 10 MB/s.
    assert logged(router, 1) == [pytest.approx(8.0 - 2.8, abs=0.01)]
    assert router.metric('prfaas_router_shadow_regret_seconds_count{across="sooner"') == 1
    assert router.metric("prfaas_router_shadow_regret_seconds_sum") == pytest.approx(5.2, abs=0.01)
    assert remote.metric("vllm:request_prefill_kv_computed_tokens_count") == 0


def test_what_would_have_stayed_anyway_is_not_counted(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    router = start_router(
        snapshot([start_worker()], [start_worker()], [start_worker()], prefill_seconds=SLOW, policy={"mode": "SHADOW"})
    )
    assert ask(router, 500) == ("local_prefill", "uncached_within_threshold")
    assert logged(router, 1) == [None]
    assert router.metric("prfaas_router_shadow_regret_seconds_count") == 0


def test_a_regret_below_zero_counts_as_later_across(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    message = snapshot(
        [start_worker()], [start_worker()], [start_worker()], prefill_seconds=FAST, policy={"mode": "SHADOW"}
    )
    entry = message["remote_prefill"][0]
    entry["pool"]["prefill_seconds"] = SLOW
    router = start_router(message)
    assert ask(router, 8000) == ("local_prefill", "shadow_would_be_remote")
    assert logged(router, 1) == [pytest.approx(-6.0, abs=0.01)]
    assert router.metric('prfaas_router_shadow_regret_seconds_sum{across="later"') == pytest.approx(6.0, abs=0.01)
    assert router.metric('prfaas_router_shadow_regret_seconds_count{across="sooner"') == 0
