"""The simulated engine: service times of a profile, a prefix cache, and KV transfers of real bytes.

Prefill takes T_prefill of the uncached tokens, the paper's L, one request after the other in order of arrival. Decode has
as many slots as the profile says, and each output token takes one step. Both run `time_scale` times faster than stated.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from prfaas_core.prefix import PrefixIndex, hash_tokens
from prfaas_core.profiles import Profile
from prfaas_workers.engine import KVLoadError, Piece, Start
from prfaas_workers.kv_transfer import reader, wire
from prfaas_workers.kv_transfer.owner import Owner
from prfaas_workers.metrics import Metrics
from prfaas_workers.openai import Generation
from prfaas_workers.sim.kv import SimulatedKV

log = logging.getLogger(__name__)

_WORD = "tok "
_NEEDED = ("remote_engine_id", "remote_request_id", "remote_host", "remote_port")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a simulated worker runs.

    Attributes:
        engine_id: the pod's name.
        fingerprint: of the KV; see `prfaas_core.compatibility`.
        side_channel_host, side_channel_port: what prefill answers advertise.
        time_scale: how many times faster than the profile.
        bytes_scale: bytes moved for each byte of the profile.
        layers: parts that the KV is sent in.
        max_num_seqs: decode slots.
        stream_interval_s: the shortest time between two events of a stream.
        recompute: whether a failed KV load is computed here instead of failing the request.
    """

    engine_id: str
    fingerprint: str
    side_channel_host: str
    side_channel_port: int
    time_scale: float
    bytes_scale: float
    layers: int
    max_num_seqs: int
    stream_interval_s: float
    recompute: bool
    tensor_parallel: int = 1


class SimulatedEngine:
    """An `Engine` without a model."""

    def __init__(self, profile: Profile, settings: Settings, owner: Owner) -> None:
        self._profile = profile
        self._settings = settings
        self._owner = owner
        self._cache = PrefixIndex(capacity_tokens=profile.cache_capacity_tokens, block_tokens=profile.block_tokens)
        self._prefill_turn = asyncio.Lock()
        self._slots = asyncio.Semaphore(settings.max_num_seqs)
        self._running = 0
        self._waiting_capacity = 0
        self._waiting_kv = 0
        self._held_tokens = 0
        self._counted = (0, 0, 0)
        self.metrics = Metrics(profile.model)
        self.metrics.describe_cache(profile.block_tokens, profile.cache_capacity_tokens // profile.block_tokens)

    @property
    def model(self) -> str:
        """The served model's name."""
        return self._profile.model

    @property
    def max_model_len_tokens(self) -> int:
        """Prompt and output together."""
        return self._profile.max_model_len_tokens

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
        metrics.kv_cache_usage.set(min(1.0, self._held_tokens / max(1, self._profile.cache_capacity_tokens)))
        now = (counters.expired, counters.reads_after_expiry, counters.failed)
        for metric, new, old in zip(
            (metrics.kv_expired, metrics.read_after_expiry, metrics.transfers_failed), now, self._counted, strict=True
        ):
            metric.inc(new - old)
        self._counted = now

    async def generate(self, request: Generation) -> AsyncGenerator[Start | Piece, None]:
        """Yield the answer to a request; see `Engine`."""
        tokens = len(request.token_ids)
        loop = asyncio.get_running_loop()
        arrived_s = loop.time()
        self._held_tokens += tokens
        ended = "abort"
        try:
            transfer = request.kv_transfer or {}
            hashes = hash_tokens(request.token_ids, block_tokens=self._profile.block_tokens, model=self._profile.model)
            if transfer.get("do_remote_decode") is True:
                parts = self._prefill_leg(request, hashes, arrived_s)
            else:
                parts = self._whole_request(request, hashes, transfer, arrived_s)
            async with aclosing(parts):
                async for part in parts:
                    yield part
            ended = "length"
        except KVLoadError:
            ended = "error"
            raise
        finally:
            self._held_tokens -= tokens
            self.metrics.finished(ended)
            if ended == "length":
                self.metrics.e2e_s.observe(loop.time() - arrived_s)

    async def _prefill_leg(
        self, request: Generation, hashes: tuple[bytes, ...], arrived_s: float
    ) -> AsyncGenerator[Start | Piece, None]:
        settings, tokens = self._settings, len(request.token_ids)
        engine_request_id = f"{'chatcmpl' if request.chat else 'cmpl'}-{request.request_id}-{uuid.uuid4().hex[:8]}"
        push = request.kv_transfer is not None and request.kv_transfer.get("transfer_mode") == "push"
        offer_id = request.request_id if push else engine_request_id
        kv = SimulatedKV(engine_request_id, self._profile, tokens, settings.layers, settings.bytes_scale)
        offered = False
        try:
            if push:
                self._owner.offer(offer_id, kv)
                offered = True
            cached_tokens = await self._prefill(request, hashes, arrived_s, kv)
            if push:
                self._owner.computed(offer_id)
            else:
                self._owner.offer(offer_id, kv)
            offered = False
        finally:
            if offered:
                self._owner.withdraw(offer_id)
                await kv.fail()
        self.metrics.ttft_s.observe(asyncio.get_running_loop().time() - arrived_s)
        yield Start(cached_tokens)
        blocks = -(-tokens // self._profile.block_tokens)
        yield Piece(
            _WORD,
            1,
            "length",
            {
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
            },
        )

    async def _whole_request(
        self, request: Generation, hashes: tuple[bytes, ...], transfer: dict[str, Any], arrived_s: float
    ) -> AsyncGenerator[Start | Piece, None]:
        loop = asyncio.get_running_loop()
        cached_tokens: int | None = None
        if transfer.get("do_remote_prefill") is True:
            missing = [key for key in _NEEDED if not transfer.get(key)]
            if missing:
                # As vLLM: not an error, but whoever counts prompt_tokens_by_source sees it.
                log.warning("invalid KVTransferParams: %s missing; computing the prompt here", ", ".join(missing))
            else:
                cached_tokens = await self._fetch(request, hashes, transfer)
        if cached_tokens is None:
            cached_tokens = await self._prefill(request, hashes, arrived_s, None)
        self._waiting_capacity += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting_capacity -= 1
        self._running += 1
        try:
            decode_s = loop.time()
            self.metrics.ttft_s.observe(decode_s - arrived_s)
            yield Start(cached_tokens)
            async with aclosing(self._decode(request.max_tokens)) as pieces:
                async for piece in pieces:
                    yield piece
            self.metrics.decode_s.observe(loop.time() - decode_s)
        finally:
            self._running -= 1
            self._slots.release()

    async def _prefill(
        self, request: Generation, hashes: tuple[bytes, ...], arrived_s: float, kv: SimulatedKV | None
    ) -> int:
        """Take the engine's time for the uncached part of a prompt; return how many tokens were cached."""
        loop, metrics, tokens = asyncio.get_running_loop(), self.metrics, len(request.token_ids)
        self._waiting_capacity += 1
        try:
            await self._prefill_turn.acquire()
        finally:
            self._waiting_capacity -= 1
        self._running += 1
        try:
            started_s = loop.time()
            metrics.queue_s.observe(started_s - arrived_s)
            # The last token is always computed: its logits give the first output token.
            cached_tokens = min(self._cache.match(hashes).get("self", 0), tokens - 1)
            metrics.prefix_queries.inc(tokens)
            metrics.prefix_hits.inc(cached_tokens)
            duration_s = self._profile.prefill_s(tokens - cached_tokens) / self._settings.time_scale
            parts = self._settings.layers if kv is not None else 1
            for part in range(1, parts + 1):
                await asyncio.sleep(max(0.0, started_s + duration_s * part / parts - loop.time()))
                if kv is not None:
                    await kv.advance(part)
            self._cache.insert("self", hashes)
        finally:
            self._running -= 1
            self._prefill_turn.release()
        metrics.prefill_s.observe(loop.time() - started_s)
        metrics.computed_tokens.observe(tokens - cached_tokens)
        metrics.prompt_tokens.inc(tokens)
        metrics.tokens_computed.inc(tokens - cached_tokens)
        metrics.tokens_cached.inc(cached_tokens)
        return cached_tokens

    async def _fetch(self, request: Generation, hashes: tuple[bytes, ...], transfer: dict[str, Any]) -> int | None:
        """Fetch the KV of a remote prefill; return the tokens that need no computing, None to compute the prompt here."""
        loop, metrics, tokens = asyncio.get_running_loop(), self.metrics, len(request.token_ids)
        have_tokens = min(self._cache.match(hashes).get("self", 0), tokens)
        push = "remote_block_ids" not in transfer
        wanted = wire.ReadRequest(
            str(transfer["remote_engine_id"]),
            self._settings.fingerprint,
            str(transfer["remote_request_id"]),
            have_tokens,
            push,
        )
        started_s = loop.time()
        self._waiting_kv += 1
        try:
            received = await reader.read(
                str(transfer["remote_host"]), int(transfer["remote_port"]), wanted, lambda _index, _payload: None
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
        metrics.transfer_s.observe(loop.time() - started_s)
        metrics.transfer_bytes.observe(received.size_bytes)
        metrics.prompt_tokens.inc(tokens)
        metrics.tokens_transferred.inc(tokens - have_tokens)
        metrics.tokens_cached.inc(have_tokens)
        self._cache.insert("self", hashes)
        return tokens

    async def _decode(self, max_tokens: int) -> AsyncGenerator[Piece, None]:
        loop, metrics = asyncio.get_running_loop(), self.metrics
        step_s = self._profile.step_s / self._settings.time_scale
        burst = max(1, round(self._settings.stream_interval_s / step_s))
        started_s = loop.time()
        # The first token comes from the prefill, so that TTFT has no burst in it.
        metrics.generation_tokens.inc()
        yield Piece(_WORD, 1, "length" if max_tokens == 1 else None)
        done = 1
        while done < max_tokens:
            count = min(burst, max_tokens - done)
            before_s = loop.time()
            await asyncio.sleep(max(0.0, started_s + (done + count - 1) * step_s - before_s))
            done += count
            metrics.itl_s.observe((loop.time() - before_s) / count)
            metrics.generation_tokens.inc(count)
            yield Piece(_WORD * count, count, "length" if done == max_tokens else None)
