"""What a real router writes about its requests is what `prfaas whatif --log` reads."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from prfaas_cli.scenario_traffic import of_log

pytestmark = pytest.mark.slow

PROMPT = list(range(3000))


def complete(router: Any, prompt: object, **body: Any) -> httpx.Response:
    answer = httpx.post(
        f"{router.url}/v1/completions",
        json={"model": "prfaas-1t", "prompt": prompt} | body,
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return answer


def lines(router: Any, count: int) -> list[dict[str, Any]]:
    """Return the log lines of `count` requests; a line follows the end of its answer."""
    deadline = time.monotonic() + 60
    while len(found := router.requests()) < count:
        assert time.monotonic() < deadline, f"{len(found)} log lines, {count} were expected"
        time.sleep(0.01)
    return list(found)


def test_lengths_prefixes_and_times_of_requests_are_in_the_log(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    router = start_router(snapshot([start_worker()], [start_worker()], [start_worker()]))
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    complete(router, PROMPT, max_tokens=300, **usage)
    complete(router, PROMPT[:640] + [9] * 60, max_tokens=40, stream=True)
    complete(router, PROMPT, max_tokens=7)
    first, second, third = lines(router, 3)
    assert [line["prompt_tokens"] for line in (first, second, third)] == [3000, 700, 3000]
    assert [line["output_tokens"] for line in (first, second, third)] == [300, None, 7]
    assert [line["max_tokens"] for line in (first, second, third)] == [300, 40, 7]
    assert [line["stream"] for line in (first, second, third)] == [True, True, False]
    assert [line["uncached_tokens"] for line in (first, second)] == [3000, 700]
    assert first["blocks"] == third["blocks"]
    assert len(first["blocks"]) == 8 * (3000 // 64)

    traffic = of_log([router.log], "ns/chat", 64)
    assert [(tokens, output) for _, tokens, output, _ in traffic.arrivals] == [(3000, 300), (700, 40), (3000, 7)]
    keys = [keys for *_, keys in traffic.arrivals]
    assert keys[1] == keys[0][:10], "ten whole blocks are the same"
    assert keys[2] == keys[0]
    starts_s = [at_s for at_s, *_ in traffic.arrivals]
    assert starts_s == sorted(starts_s)
    assert traffic.recorded is not None
    assert len(traffic.recorded.ttft_s) == 2


def test_prompts_of_different_beginnings_share_no_digest(
    start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    router = start_router(snapshot([start_worker()], [start_worker()], None))
    complete(router, PROMPT[:640], max_tokens=1)
    complete(router, [9, *PROMPT[1:640]], max_tokens=1)
    lines(router, 2)
    keys = [keys for *_, keys in of_log([router.log], "ns/chat", 64).arrivals]
    assert len(keys[0]) == len(keys[1]) == 10
    assert not set(keys[0]) & set(keys[1])
