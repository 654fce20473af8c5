"""Tiny workers inside of the test's own process, and the plainest run to compare them with."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import prfaas_workers
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

MAX_LEN_TOKENS = 2048

PULL: dict[str, Any] = {
    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
    "remote_host": None, "remote_port": None,
}  # fmt: skip


@functools.cache
def revision(seed: int) -> str:
    """Return the model.revision of a seed."""
    return weights.make(seed).revision


def make_spec(seed: int = 0, **kv: object) -> dict[str, Any]:
    """Return the spec of the profile of a tiny worker; `kv` changes its section of that name."""
    return {
        "model": {"name": "tiny", "revision": revision(seed), "maxModelLenTokens": MAX_LEN_TOKENS, "bytesPerToken": 1},
        "engine": {"name": "Tiny", "version": prfaas_workers.VERSION},
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
    """Remembers the bits of the logits that it gave, in order.

    Attributes:
        begun: set when a layer has begun.
        gate: cleared, it keeps layers from going on, those before `held_from` excepted.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(weights.make(seed), 512)
        self.given: list[bytes] = []
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.held_from = 0

    def layer(self, index: int, stream: Floats, store: PageStore, table: Sequence[int], start: int) -> Floats:
        self.begun.set()
        if index >= self.held_from:
            self.gate.wait(30)
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

    def __init__(
        self, seed: int, geometry: Geometry, pages: int, lease_s: float, recompute: bool, stall_timeout_s: float
    ) -> None:
        spec = make_spec(seed, dtype=geometry.dtype, layout=geometry.layout, pageSizeTokens=geometry.page_tokens)
        self.model = RecordingModel(seed)
        self.backend = TinyBackend("tiny", self.model, geometry, pages)
        self.pool = self.backend.pool
        self.engine_id = f"engine-{id(self)}"
        self.owner = Owner(self.engine_id, kv_fingerprint(spec), lease_s, push_wait_s=5.0)
        self.port = 0
        self._spec, self._recompute, self._stall_timeout_s = spec, recompute, stall_timeout_s
        self.engine: HandoverEngine

    async def start(self) -> None:
        self.port = await self.owner.start("127.0.0.1", 0)
        settings = Settings(
            engine_id=self.engine_id, fingerprint=kv_fingerprint(self._spec), side_channel_host="127.0.0.1",
            side_channel_port=self.port, max_num_seqs=8, recompute=self._recompute, stall_timeout_s=self._stall_timeout_s,
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
    stall_timeout_s: float = 30.0,
) -> AsyncIterator[LocalWorker]:
    geometry = Geometry(weights.Shape(), page_tokens, dtype, layout)
    worker = LocalWorker(seed, geometry, pages, lease_s, recompute, stall_timeout_s)
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
