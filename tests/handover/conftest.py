"""Tiny workers, in this process and as processes, and a proxy that damages what passes through it."""

import asyncio
import contextlib
import copy
import functools
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from prfaas_core.compatibility import kv_fingerprint
from prfaas_core.profiles import Profile
from prfaas_workers.engine import Piece, Start
from prfaas_workers.handover import HandoverEngine, Settings
from prfaas_workers.kv_transfer.owner import Owner
from prfaas_workers.metrics import Metrics
from prfaas_workers.openai import Generation
from prfaas_workers.tiny import sampling, weights
from prfaas_workers.tiny.arithmetic import Floats
from prfaas_workers.tiny.engine import TinyBackend
from prfaas_workers.tiny.model import Model
from prfaas_workers.tiny.store import Geometry, PageStore

_ADDRESSES = (f"127.{40 + os.getpid() % 60}.{n // 250}.{n % 250 + 1}" for n in itertools.count())
_MAX_LEN_TOKENS = 2048

PULL: dict[str, Any] = {
    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
    "remote_host": None, "remote_port": None,
}  # fmt: skip


@functools.cache
def revision(seed: int) -> str:
    return weights.make(seed).revision


def make_spec(seed: int = 0, **kv: object) -> dict[str, Any]:
    """Return the spec of the profile of a tiny worker; `kv` changes its section of that name."""
    return {
        "model": {"name": "tiny", "revision": revision(seed), "maxModelLenTokens": _MAX_LEN_TOKENS, "bytesPerToken": 1},
        "engine": {"name": "Tiny", "version": "0.1.0"},
        "accelerator": {"name": "CPU"},
        "kv": {
            "attention": "GQA", "layout": "LBNHC", "pageSizeTokens": 16, "dtype": "float32", "tensorParallel": 1,
            "pipelineParallel": 1, "connector": {"name": "NixlConnector", "version": "1"},
        } | kv,
        "prefill": [{"tokens": 16, "seconds": 0.01}, {"tokens": 1024, "seconds": 1.5}],
        "kvSize": [{"tokens": 16, "bytes": 16384}, {"tokens": 1024, "bytes": 1048576}],
        "decode": {"slots": 8, "stepSeconds": 0.01},
        "prefixCache": {"capacityTokens": 8192, "blockTokens": 16},
    }  # fmt: skip


class RecordingModel(Model):
    """Remembers the bits of the logits that it gave, in order, and that it has begun."""

    def __init__(self, seed: int) -> None:
        super().__init__(weights.make(seed), 512)
        self.given: list[bytes] = []
        self.begun = threading.Event()

    def layer(self, index: int, stream: Floats, store: PageStore, table: Sequence[int], start: int) -> Floats:
        self.begun.set()
        return super().layer(index, stream, store, table, start)

    def logits(self, stream: Floats) -> Floats:
        result = super().logits(stream)
        self.given.append(result.tobytes())
        return result


@dataclass(frozen=True)
class Run:
    """What a request brought."""

    token_ids: list[int]
    cached_tokens: int
    transfer: dict[str, Any] | None


class LocalWorker:
    """A tiny engine in this process, with its KV side channel on a real socket."""

    def __init__(self, seed: int, geometry: Geometry, pages: int, lease_s: float, recompute: bool) -> None:
        spec = make_spec(seed, dtype=geometry.dtype, layout=geometry.layout, pageSizeTokens=geometry.page_tokens)
        self.model = RecordingModel(seed)
        self.backend = TinyBackend("tiny", self.model, geometry, pages)
        self.pool = self.backend.pool
        self.engine_id = f"engine-{id(self)}"
        self.owner = Owner(self.engine_id, kv_fingerprint(spec), lease_s, push_wait_s=5.0)
        self.port = 0
        self._spec, self._recompute = spec, recompute
        self.engine: HandoverEngine

    async def start(self) -> None:
        self.port = await self.owner.start("127.0.0.1", 0)
        settings = Settings(
            engine_id=self.engine_id, fingerprint=kv_fingerprint(self._spec), side_channel_host="127.0.0.1",
            side_channel_port=self.port, max_num_seqs=8, recompute=self._recompute, stall_timeout_s=0.5,
            block_tokens=16, tensor_parallel=1,
        )  # fmt: skip
        self.engine = HandoverEngine(Profile.from_spec(self._spec), settings, self.owner, self.backend, Metrics("tiny"))

    async def run(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        transfer: dict[str, Any] | None = None,
        request_id: str = "r",
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Run:
        generation = Generation(
            request_id, "tiny", False, array("I", prompt), max_tokens, False, False, seed, temperature, transfer
        )
        token_ids: list[int] = []
        cached_tokens, params = 0, None
        async for part in self.engine.generate(generation):
            if isinstance(part, Start):
                cached_tokens = part.cached_tokens
            elif isinstance(part, Piece):
                token_ids += part.token_ids or ()
                params = part.kv_transfer or params
        return Run(token_ids, cached_tokens, params)

    def push_params(self, request_id: str) -> dict[str, Any]:
        """Return what decode is told of a push from this worker."""
        return {
            "do_remote_decode": False, "do_remote_prefill": True, "remote_engine_id": self.engine_id,
            "remote_host": "127.0.0.1", "remote_port": self.port, "remote_request_id": request_id,
        }  # fmt: skip

    def held(self) -> int:
        """Return how many pages somebody holds."""
        return self.pool.count - self.pool.available


@contextlib.asynccontextmanager
async def running(
    seed: int = 0,
    page_tokens: int = 16,
    dtype: str = "float32",
    layout: str = "LBNHC",
    pages: int = 64,
    lease_s: float = 30.0,
    recompute: bool = False,
) -> AsyncIterator[LocalWorker]:
    geometry = Geometry(weights.Shape(), page_tokens, dtype, layout)
    worker = LocalWorker(seed, geometry, pages, lease_s, recompute)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.owner.stop()


async def handed_over(
    prefill: LocalWorker,
    decode: LocalWorker,
    prompt: Sequence[int],
    max_tokens: int,
    push: bool,
    request_id: str,
    **options: Any,
) -> Run:
    """Prefill at one worker, decode at the other."""
    if push:
        leg = PULL | {"transfer_mode": "push"}
        second, _ = await asyncio.gather(
            decode.run(prompt, max_tokens, prefill.push_params(request_id), request_id, **options),
            prefill.run(prompt, 1, leg, request_id, **options),
        )
        return second
    first = await prefill.run(prompt, 1, PULL, request_id, **options)
    return await decode.run(prompt, max_tokens, first.transfer, request_id, **options)


@functools.lru_cache(maxsize=512)
def unified(
    prompt: tuple[int, ...], max_tokens: int, dtype: str = "float32", temperature: float = 0.0, seed: int = 0
) -> tuple[list[int], list[bytes]]:
    """Return the tokens, and the bits of the logits before each, of the plainest run.

    Every token is computed from the whole sequence, in one page, with nothing kept from the token before it.
    """
    model = RecordingModel(0)
    sequence = list(prompt)
    geometry = Geometry(weights.Shape(), 512, dtype, "LBNHC")
    for _ in range(max_tokens):
        logits = model.forward(sequence, PageStore(geometry, 1), [0], 0)
        sequence.append(sampling.choose(logits, temperature, seed, len(sequence)))
    return sequence[len(prompt) :], model.given


class Tampering(threading.Thread):
    """A TCP proxy to one target that counts, cuts, flips or holds back bytes of its connections.

    Args:
        to_reader: whether the bytes from the owner to the reader are meant, or those of the request.
        cut_at, hold_at: after so many bytes the connection is closed, or nothing more is let through until the owner is gone.
        flip_at, mask: the byte at this offset is changed by exclusive or.
    """

    def __init__(
        self,
        target: tuple[str, int],
        listen: tuple[str, int] = ("127.0.0.1", 0),
        *,
        to_reader: bool = True,
        cut_at: int | None = None,
        hold_at: int | None = None,
        flip_at: int | None = None,
        mask: int = 0xFF,
    ) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._damaged_direction = to_reader
        self._cut_at, self._hold_at, self._flip_at, self._mask = cut_at, hold_at, flip_at, mask
        self._server = socket.create_server(listen)
        self._server.settimeout(0.05)
        self.port: int = self._server.getsockname()[1]
        self.passed = {True: 0, False: 0}
        self.holding = threading.Event()
        self._stopping = False
        self._pumps: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self.join()

    def run(self) -> None:
        with self._server:
            while not self._stopping:
                try:
                    client, _ = self._server.accept()
                except TimeoutError:
                    continue
                pump = threading.Thread(target=self._connection, args=(client,), daemon=True)
                pump.start()
                self._pumps.append(pump)
            for pump in self._pumps:
                pump.join()

    def _connection(self, client: socket.socket) -> None:
        with client:
            try:
                upstream = socket.create_connection(self._target)
            except OSError:
                return
            with upstream:
                back = threading.Thread(target=self._pump, args=(upstream, client, True), daemon=True)
                back.start()
                self._pump(client, upstream, False)
                back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, to_reader: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                offset = self.passed[to_reader]
                if to_reader == self._damaged_direction:
                    if self._flip_at is not None and 0 <= self._flip_at - offset < len(chunk):
                        changed = bytearray(chunk)
                        changed[self._flip_at - offset] ^= self._mask
                        chunk = bytes(changed)
                    limit = self._cut_at if self._cut_at is not None else self._hold_at
                    if limit is not None and offset + len(chunk) > limit:
                        sink.sendall(chunk[: max(0, limit - offset)])
                        if self._hold_at is not None:
                            self.holding.set()
                            while source.recv(65536):
                                pass
                        break
                sink.sendall(chunk)
                self.passed[to_reader] += len(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


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
        return ask(self.url, prompt, **body)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def ask(url: str, prompt: object, request_id: str | None = None, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/completions",
        json={"model": "tiny", "prompt": prompt, "max_tokens": 8, "return_token_ids": True} | body,
        headers={"x-request-id": request_id} if request_id else {},
        timeout=30,
        trust_env=False,
    )


def tokens(answer: httpx.Response) -> list[int]:
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
            "name": "tiny", "max_model_len_tokens": _MAX_LEN_TOKENS, "bytes_per_token": 1, "prefix_block_tokens": 16,
        }  # fmt: skip
        return message

    return build


@pytest.fixture(scope="session")
def toolbox() -> Any:
    """What tests use beside fixtures; they cannot import this file."""

    class Toolbox:
        running = staticmethod(running)
        handed_over = staticmethod(handed_over)
        unified = staticmethod(unified)
        ask = staticmethod(ask)
        tokens = staticmethod(tokens)
        make_spec = staticmethod(make_spec)
        Tampering = Tampering
        PULL = PULL
        free_address = staticmethod(lambda: next(_ADDRESSES))

    return Toolbox
