"""Tiny workers as processes, and what to ask of them."""

import contextlib
import copy
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from prfaas_workers.testing.local_worker import MAX_LEN_TOKENS, make_spec

_ADDRESSES = (f"127.{40 + os.getpid() % 60}.{n // 250}.{n % 250 + 1}" for n in itertools.count())


class TinyProcess:
    """One `prfaas-tiny` process."""

    def __init__(self, folder: Path, spec: dict[str, Any], arguments: Sequence[str]) -> None:
        self.address = next(_ADDRESSES)
        self.name = f"tiny-{self.address}"
        self.url = f"http://{self.address}:8000"
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(spec))
        self.log = folder / f"{self.name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("prfaas-tiny"), "--profile", str(path), *arguments],
                env=os.environ
                | {"POD_IP": self.address, "POD_NAME": self.name, "VLLM_NIXL_SIDE_CHANNEL_HOST": self.address},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", trust_env=False).status_code == 200:
                    return
        raise AssertionError(f"not ready: {self.log.read_text()}")

    def metric(self, name: str) -> float:
        """Return the sum of the samples of a metric."""
        lines = httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def complete(self, prompt: object, **body: Any) -> httpx.Response:
        return _ask(self.url, prompt, **body)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


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
def start_tiny(tmp_path: Path) -> Iterator[Callable[..., TinyProcess]]:
    started: list[TinyProcess] = []

    def start(*arguments: str, seed: int = 0, wait: bool = True, **kv: object) -> TinyProcess:
        worker = TinyProcess(tmp_path, make_spec(seed, **kv), (f"--seed={seed}", *arguments))
        started.append(worker)
        if wait:
            worker.wait_ready()
        return worker

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture
def tiny_snapshot(snapshot: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Build a router's snapshot for tiny workers: everything above 32 uncached tokens goes to the remote pool."""

    def build(decode: list[TinyProcess], local: Any, remote: Any, **pool: object) -> dict[str, Any]:
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


@pytest.fixture
def free_address() -> str:
    return next(_ADDRESSES)
