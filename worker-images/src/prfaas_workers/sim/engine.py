"""The simulated engine: service times of a profile, a prefix cache, and KV transfers of real bytes.

Prefill takes T_prefill of the uncached tokens, the paper's L. Decode takes one step for each output token. Both run
`time_scale` times faster than stated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from prfaas_core.prefix import PrefixIndex, hash_tokens
from prfaas_core.profiles import Profile
from prfaas_workers.engine import Piece
from prfaas_workers.kv_transfer.progress import LayerProgress
from prfaas_workers.openai import Generation
from prfaas_workers.sim.kv import SimulatedKV

_WORD = "tok "


@dataclass(frozen=True, slots=True)
class Scales:
    """How a simulated worker differs from its profile.

    Attributes:
        time_scale: how many times faster.
        bytes_scale: bytes moved for each byte of the profile.
        layers: parts that the KV is sent in.
        stream_interval_s: the shortest time between two pieces of an answer.
    """

    time_scale: float
    bytes_scale: float
    layers: int
    stream_interval_s: float


class SimulatedBackend:
    """A `Backend` without a model."""

    def __init__(self, profile: Profile, scales: Scales) -> None:
        self.profile = profile
        self.scales = scales
        self.cache = PrefixIndex(capacity_tokens=profile.cache_capacity_tokens, block_tokens=profile.block_tokens)
        self.held_tokens = 0

    def compute(self, request: Generation) -> SimulatedComputation:
        """Return the computation of a request."""
        return SimulatedComputation(self, request)

    def cache_usage(self) -> float:
        """Return the part of the KV cache that requests, and KV on offer, take."""
        return min(1.0, self.held_tokens / max(1, self.profile.cache_capacity_tokens))


class SimulatedComputation:
    """One request, as a `Computation`."""

    def __init__(self, backend: SimulatedBackend, request: Generation) -> None:
        profile = backend.profile
        self._backend = backend
        self._request = request
        self._tokens = len(request.token_ids)
        self._hashes = hash_tokens(request.token_ids, block_tokens=profile.block_tokens, model=profile.model)
        self._cached_tokens: int | None = None
        self._progress: LayerProgress | None = None
        self._holders = 1  # the request itself, and its KV while that is on offer
        backend.held_tokens += self._tokens

    async def begin(self) -> int:
        """Look the prompt up in the prefix cache."""
        if self._cached_tokens is None:
            # The last token is always computed: its logits give the first output token.
            self._cached_tokens = min(self._backend.cache.match(self._hashes).get("self", 0), self._tokens - 1)
        return self._cached_tokens

    def offer(self) -> tuple[SimulatedKV, LayerProgress]:
        """Return KV in the amount that the profile says."""
        self._progress = LayerProgress()
        self._holders += 1
        scales = self._backend.scales
        source = SimulatedKV(
            self._request.token_ids,
            self._backend.profile,
            scales.layers,
            scales.bytes_scale,
            self._progress,
            on_end=self._let_go,
        )
        return source, self._progress

    async def prefill(self) -> None:
        """Take the time of the uncached tokens."""
        loop, scales = asyncio.get_running_loop(), self._backend.scales
        started_s = loop.time()
        uncached_tokens = self._tokens - await self.begin()
        duration_s = self._backend.profile.prefill_s(uncached_tokens) / scales.time_scale
        parts = scales.layers if self._progress is not None else 1
        for part in range(1, parts + 1):
            await asyncio.sleep(max(0.0, started_s + duration_s * part / parts - loop.time()))
            if self._progress is not None:
                await self._progress.advance(part)
        await self.received()

    def receive(self, index: int, payload: memoryview) -> None:
        """Drop the bytes: there is no model that they could mean something to."""

    async def received(self) -> None:
        """Remember the prompt's prefix."""
        self._backend.cache.insert("self", self._hashes)

    async def pieces(self, max_tokens: int) -> AsyncGenerator[Piece, None]:
        """Yield filler, one step a token."""
        loop, scales = asyncio.get_running_loop(), self._backend.scales
        step_s = self._backend.profile.step_s / scales.time_scale
        burst = max(1, round(scales.stream_interval_s / step_s))
        started_s = loop.time()
        # The first token comes from the prefill, so that TTFT has no burst in it.
        yield Piece(_WORD, 1, "length" if max_tokens == 1 else None)
        done = 1
        while done < max_tokens:
            count = min(burst, max_tokens - done)
            await asyncio.sleep(max(0.0, started_s + (done + count - 1) * step_s - loop.time()))
            done += count
            yield Piece(_WORD * count, count, "length" if done == max_tokens else None)

    def close(self) -> None:
        """Count the request's tokens no more, unless they are on offer."""
        self._let_go()

    def _let_go(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self._backend.held_tokens -= self._tokens
