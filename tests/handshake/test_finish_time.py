"""The finish-time policy in a real router over real workers."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

CURVE = [{"tokens": 100, "value": 0.1}, {"tokens": 100_000, "value": 100.0}]
KV = [{"tokens": 100, "value": 1e5}, {"tokens": 100_000, "value": 1e8}]


def ask(router: Any, tokens: int, **body: Any) -> tuple[int, str, str]:
    answer = httpx.post(
        f"{router.url}/v1/completions",
        json={"model": "prfaas-1t", "prompt": list(range(tokens)), "max_tokens": 4} | body,
        timeout=30,
        trust_env=False,
    )
    return answer.status_code, answer.headers.get("x-prfaas-decision", ""), answer.headers.get("x-prfaas-reason", "")


@pytest.mark.parametrize("connector", ["NIXL_PULL", "NIXL_PUSH"])
def test_requests_go_where_their_first_token_comes_soonest(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any], connector: str
) -> None:
    decode, local, remote = start_worker(), start_worker(), start_worker()
    message = snapshot(
        [decode], [local], [remote], connector=connector, prefill_seconds=CURVE, price=1.0,
        policy={"algorithm": "FINISH_TIME", "stale_after_s": 3600},
    )  # fmt: skip
    entry = message["remote_prefill"][0]
    entry["pool"]["prefill_seconds"] = [{"tokens": 100, "value": 0.1}, {"tokens": 100_000, "value": 20.0}]
    entry["link"] = {"capacity_bps": 1e9, "share": 1.0, "kv_bytes": KV, "price": 1.0}
    router = start_router(message)
    assert ask(router, 100) == (200, "local_prefill", "finishes_sooner_local")
    assert ask(router, 3000) == (200, "remote_prefill", "finishes_sooner_remote")
    assert ask(router, 4000, stream=True) == (200, "remote_prefill", "finishes_sooner_remote")
    # Above what the threshold would have sent across: a link that is as good as none.
    entry["link"]["capacity_bps"] = 1e3
    assert ask(start_router(message), 3000) == (200, "local_prefill", "finishes_sooner_local")
    del entry["link"]
    assert ask(start_router(message), 3000) == (200, "remote_prefill", "signals_missing_above_threshold")
