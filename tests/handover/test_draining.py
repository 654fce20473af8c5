"""A worker with a model that is told to go hands over the KV that it has promised, page by page, before it goes."""

import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from prfaas_workers.testing.local_worker import PULL, unified

pytestmark = pytest.mark.slow

PROMPT = tuple(range(40, 140))


def test_pages_on_offer_outlive_the_signal_and_give_the_right_tokens(
    ask: Any, start_tiny: Callable[..., Any], tokens: Callable[..., list[int]]
) -> None:
    prefill, decode = start_tiny(), start_tiny()
    params = ask(prefill.url, list(PROMPT), max_tokens=1, kv_transfer_params=PULL).json()["kv_transfer_params"]
    assert prefill.metric("vllm:kv_cache_usage_perc") > 0
    prefill.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        prefill.process.wait(1.5)
    answer = ask(decode.url, list(PROMPT), kv_transfer_params=params)
    assert tokens(answer) == unified(PROMPT, 8)[0]
    assert decode.metric("vllm:nixl_bytes_transferred_count") == 1
    assert prefill.process.wait(10) == 0, prefill.log.read_text()
