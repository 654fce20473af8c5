"""Tiny workers as processes, and what to ask of them."""

import copy
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from prfaas_workers.testing.local_worker import MAX_LEN_TOKENS, make_spec


def _ask(url: str, prompt: object, request_id: str | None = None, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/completions",
        json={"model": "tiny", "prompt": prompt, "max_tokens": 8, "return_token_ids": True} | body,
        headers={"x-request-id": request_id} if request_id else {},
        timeout=30,
        trust_env=False,
    )


def _tokens(answer: httpx.Response) -> list[int]:
    """Return the output's token ids of an answer, streamed or whole."""
    assert answer.status_code == 200, answer.text
    if not answer.headers["content-type"].startswith("text/event-stream"):
        whole: list[int] = answer.json()["choices"][0]["token_ids"]
        return whole
    events = [line[6:] for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    return [token for event in events[:-1] for token in json.loads(event)["choices"][0]["token_ids"]]


@pytest.fixture
def start_tiny(launch_worker: Callable[..., Any]) -> Callable[..., Any]:
    def start(*arguments: str, seed: int = 0, wait: bool = True, **kv: object) -> Any:
        worker = launch_worker("prfaas-tiny", make_spec(seed, **kv), f"--seed={seed}", *arguments)
        if wait:
            worker.wait_ready()
        return worker

    return start


@pytest.fixture
def tiny_snapshot(snapshot: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Build a router's snapshot for tiny workers: everything above 32 uncached tokens goes to the remote pool."""

    def build(decode: list[Any], local: Any, remote: Any, **pool: object) -> dict[str, Any]:
        message = copy.deepcopy(snapshot(decode, local, remote, policy={"threshold_tokens": 32}, **pool))
        message["model"] = {
            "name": "tiny", "max_model_len_tokens": MAX_LEN_TOKENS, "bytes_per_token": 1, "prefix_block_tokens": 16,
        }  # fmt: skip
        return message

    return build


@pytest.fixture
def ask() -> Callable[..., httpx.Response]:
    return _ask


@pytest.fixture
def tokens() -> Callable[[httpx.Response], list[int]]:
    return _tokens
