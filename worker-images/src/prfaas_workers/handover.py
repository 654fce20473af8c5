"""The way of a request through a worker, whatever computes it: vLLM's prefill leg, decode leg and unified run.

Prefill computes one request after the other in order of arrival. Decode has so many slots. A remote KV is fetched before
a slot is taken; if it does not come, the request fails or is computed here, as the policy says.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from prfaas_core.profiles import Profile
from prfaas_workers.computation import Backend, Computation
from prfaas_workers.engine import KVLoadError, Piece, Start
from prfaas_workers.kv_transfer import reader, wire
from prfaas_workers.kv_transfer.owner import Owner
from prfaas_workers.metrics import Metrics
from prfaas_workers.openai import Generation, RequestError

log = logging.getLogger(__name__)

_NEEDED = ("remote_engine_id", "remote_request_id", "remote_host", "remote_port")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a worker takes part in handovers.

    Attributes:
        engine_id: the pod's name.
        fingerprint: of the KV; see `prfaas_core.compatibility`.
        side_channel_host, side_channel_port: what prefill answers advertise.
        max_num_seqs: decode slots.
        recompute: whether a failed KV load is computed here instead of failing the request.
        stall_timeout_s: how long a transfer may bring nothing before it has failed.
        block_tokens: tokens of a block, as prefill answers count them.
        tensor_parallel: as prefill answers state it.
    """

    engine_id: str
    fingerprint: str
    side_channel_host: str
    side_channel_port: int
    max_num_seqs: int
    recompute: bool
    stall_timeout_s: float
    block_tokens: int
    tensor_parallel: int


class HandoverEngine:
    """An `Engine` on a `Backend`."""

    def __init__(self, profile: Profile, settings: Settings, owner: Owner, backend: Backend, metrics: Metrics) -> None:
        self._profile = profile
        self._settings = settings
        self._owner = owner
        self._backend = backend
        self._prefill_turn = asyncio.Lock()
        self._slots = asyncio.Semaphore(settings.max_num_seqs)
        self._running = 0
        self._waiting_capacity = 0
        self._waiting_kv = 0
        self._counted = (0, 0, 0)
        self.metrics = metrics

    @property
    def model(self) -> str:
        """The served model's name."""
        return self._profile.model

    @property
    def max_model_len_tokens(self) -> int:
        """Prompt and output together."""
        return self._profile.max_model_len_tokens

    @property
    def offers(self) -> int:
        """How many requests' KV others have still to fetch."""
        return self._owner.offers

    @property
    def bytes_per_token(self) -> float:
        """How many bytes of text stand for a token."""
        return self._profile.bytes_per_token

    def refresh(self) -> None:
        """Set the gauges, and carry over what the side channel counted."""
        metrics, counters = self.metrics, self._owner.counters
        metrics.running.set(self._running)
        metrics.waiting.set(self._waiting_capacity + self._waiting_kv)
        metrics.waiting_capacity.set(self._waiting_capacity)
        metrics.waiting_deferred.set(self._waiting_kv)
        metrics.kv_cache_usage.set(self._backend.cache_usage())
        now = (counters.expired, counters.reads_after_expiry, counters.failed)
        for metric, new, old in zip(
            (metrics.kv_expired, metrics.read_after_expiry, metrics.transfers_failed), now, self._counted, strict=True
        ):
            metric.inc(new - old)
        self._counted = now

    async def generate(self, request: Generation) -> AsyncGenerator[Start | Piece, None]:
        """Yield the answer to a request; see `Engine`."""
        loop = asyncio.get_running_loop()
        arrived_s = loop.time()
        computation = self._backend.compute(request)
        ended = "abort"
        try:
            transfer = request.kv_transfer or {}
            if transfer.get("do_remote_decode") is True:
                parts = self._prefill_leg(request, computation, arrived_s)
            else:
                parts = self._whole_request(request, computation, transfer, arrived_s)
            async with aclosing(parts):
                async for part in parts:
                    yield part
            ended = "length"
        except (KVLoadError, RequestError):
            ended = "error"
            raise
        finally:
            computation.close()
            self.metrics.finished(ended)
            if ended == "length":
                self.metrics.e2e_s.observe(loop.time() - arrived_s)

    async def _prefill_leg(
        self, request: Generation, computation: Computation, arrived_s: float
    ) -> AsyncGenerator[Start | Piece, None]:
        engine_request_id = f"{'chatcmpl' if request.chat else 'cmpl'}-{request.request_id}-{uuid.uuid4().hex[:8]}"
        push = request.kv_transfer is not None and request.kv_transfer.get("transfer_mode") == "push"
        offer_id = request.request_id if push else engine_request_id
        source, progress = computation.offer()
        offered = handed_over = False
        try:
            if push:
                try:
                    self._owner.offer(offer_id, source)
                except ValueError as error:
                    raise RequestError(400, str(error), "request_id") from error
                offered = True
            cached_tokens = await self._prefill(request, computation, arrived_s)
            if push:
                self._owner.computed(offer_id)
            else:
                self._owner.offer(offer_id, source)
            handed_over = True
        finally:
            if not handed_over:
                # Readers first: what they wait for is gone once the source has ended.
                await progress.fail()
                if offered:
                    self._owner.withdraw(offer_id)
                else:
                    source.ended()
        self.metrics.ttft_s.observe(asyncio.get_running_loop().time() - arrived_s)
        yield Start(cached_tokens)
        params = self._transfer_params(engine_request_id, len(request.token_ids), push=push)
        async with aclosing(computation.pieces(1)) as pieces:
            async for piece in pieces:
                yield dataclasses.replace(piece, kv_transfer=params)

    def _transfer_params(self, engine_request_id: str, tokens: int, *, push: bool) -> dict[str, Any]:
        """Return what a prefill leg answers, for the decode leg."""
        settings = self._settings
        blocks = -(-tokens // settings.block_tokens)
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [list(range(blocks))],
            "remote_engine_id": settings.engine_id,
            "remote_request_id": engine_request_id,
            "remote_host": settings.side_channel_host,
            "remote_port": settings.side_channel_port,
            "tp_size": settings.tensor_parallel,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": tokens,
            "remote_blocks_expiry_time": None,
            "remote_registration_generation": 1,
            "transfer_mode": "push" if push else "pull",
        }

    async def _whole_request(
        self, request: Generation, computation: Computation, transfer: dict[str, Any], arrived_s: float
    ) -> AsyncGenerator[Start | Piece, None]:
        cached_tokens: int | None = None
        if transfer.get("do_remote_prefill") is True:
            missing = [key for key in _NEEDED if not transfer.get(key)]
            if missing:
                # As vLLM: not an error, but whoever counts prompt_tokens_by_source sees it.
                log.warning("invalid KVTransferParams: %s missing; computing the prompt here", ", ".join(missing))
            else:
                cached_tokens = await self._fetch(request, computation, transfer)
        if cached_tokens is None:
            cached_tokens = await self._prefill(request, computation, arrived_s)
        with self._waits_for_capacity():
            await self._slots.acquire()
        try:
            with self._runs():
                yield Start(cached_tokens)
                async with aclosing(self._decode(computation, request.max_tokens, arrived_s)) as pieces:
                    async for piece in pieces:
                        yield piece
        finally:
            self._slots.release()

    async def _decode(self, computation: Computation, max_tokens: int, arrived_s: float) -> AsyncGenerator[Piece, None]:
        loop, metrics = asyncio.get_running_loop(), self.metrics
        started_s = before_s = loop.time()
        first = True
        async with aclosing(computation.pieces(max_tokens)) as pieces:
            async for piece in pieces:
                now_s = loop.time()
                if first:
                    metrics.ttft_s.observe(now_s - arrived_s)
                else:
                    metrics.itl_s.observe((now_s - before_s) / piece.tokens)
                first, before_s = False, now_s
                metrics.generation_tokens.inc(piece.tokens)
                yield piece
        metrics.decode_s.observe(loop.time() - started_s)

    async def _prefill(self, request: Generation, computation: Computation, arrived_s: float) -> int:
        """Compute the uncached part of a prompt; return how many tokens were cached."""
        loop, metrics, tokens = asyncio.get_running_loop(), self.metrics, len(request.token_ids)
        with ExitStack() as wait:
            wait.enter_context(self._waits_for_capacity())
            async with self._prefill_turn:
                cached_tokens = await computation.begin()
                wait.close()
                with self._runs():
                    started_s = loop.time()
                    metrics.queue_s.observe(started_s - arrived_s)
                    metrics.prefix_queries.inc(tokens)
                    metrics.prefix_hits.inc(cached_tokens)
                    await computation.prefill()
        metrics.prefill_s.observe(loop.time() - started_s)
        metrics.computed_tokens.observe(tokens - cached_tokens)
        metrics.prompt_tokens.inc(tokens)
        metrics.tokens_computed.inc(tokens - cached_tokens)
        metrics.tokens_cached.inc(cached_tokens)
        return cached_tokens

    async def _fetch(self, request: Generation, computation: Computation, transfer: dict[str, Any]) -> int | None:
        """Fetch the KV of a remote prefill; return the tokens that need no computing, None to compute the prompt here."""
        loop, metrics, tokens = asyncio.get_running_loop(), self.metrics, len(request.token_ids)
        started_s = loop.time()
        self._waiting_kv += 1
        try:
            have_tokens = await computation.begin()
            wanted = wire.ReadRequest(
                engine_id=str(transfer["remote_engine_id"]),
                fingerprint=self._settings.fingerprint,
                request_id=str(transfer["remote_request_id"]),
                content=wire.prompt_digest(request.token_ids),
                have_tokens=have_tokens,
                push="remote_block_ids" not in transfer,
            )
            received = await reader.read(
                str(transfer["remote_host"]),
                int(transfer["remote_port"]),
                wanted,
                computation.receive,
                stall_timeout_s=self._settings.stall_timeout_s,
            )
            if received.tokens != tokens:
                raise wire.TransferError(f"the KV covers {received.tokens} tokens, the prompt has {tokens}")
        except (wire.TransferError, ValueError) as error:
            metrics.transfers_failed.inc()
            log.warning("KV load of %s failed: %s", request.request_id, error)
            if self._settings.recompute:
                return None
            raise KVLoadError(f"KV load failed: {error}") from error
        finally:
            self._waiting_kv -= 1
        await computation.received()
        metrics.transfer_s.observe(loop.time() - started_s)
        metrics.transfer_bytes.observe(received.size_bytes)
        metrics.prompt_tokens.inc(tokens)
        metrics.tokens_transferred.inc(tokens - have_tokens)
        metrics.tokens_cached.inc(have_tokens)
        return tokens

    @contextlib.contextmanager
    def _waits_for_capacity(self) -> Iterator[None]:
        self._waiting_capacity += 1
        try:
            yield
        finally:
            self._waiting_capacity -= 1

    @contextlib.contextmanager
    def _runs(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
