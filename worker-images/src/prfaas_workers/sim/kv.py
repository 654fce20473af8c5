"""The simulated KV of one request: real bytes in the amount that the profile says, layer by layer."""

from __future__ import annotations

import asyncio
import random
import zlib

from prfaas_core.profiles import Profile
from prfaas_workers.kv_transfer.wire import TransferError

_POOL_BYTES = 1 << 22
# Bytes that do not compress, so that nothing on the way can shrink them. One pool for the process keeps layers cheap.
_POOL = memoryview(random.Random(0).randbytes(_POOL_BYTES) * 2)  # noqa: S311 - not a secret


class SimulatedKV:
    """A `LayerSource` whose layers get ready as `advance` is called.

    Args:
        request_id: seeds the content.
        profile: gives S_kv.
        tokens: of the prompt.
        layers: into how many equal parts the KV is cut.
        bytes_scale: bytes sent for each byte of the profile.
    """

    def __init__(self, request_id: str, profile: Profile, tokens: int, layers: int, bytes_scale: float) -> None:
        self._seed = zlib.crc32(request_id.encode())
        self._profile = profile
        self._tokens = tokens
        self._layers = layers
        self._bytes_scale = bytes_scale
        self._ready = 0
        self._failed = False
        self._changed = asyncio.Condition()

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return self._layers

    @property
    def tokens(self) -> int:
        """How many tokens of KV there are."""
        return self._tokens

    def total_bytes(self, have_tokens: int) -> int:
        """Return S_kv of the part that the reader lacks, scaled; never 0, since recurrent state always goes whole."""
        return max(self._layers, round(self._profile.kv_bytes(self._tokens - have_tokens) * self._bytes_scale))

    async def advance(self, ready: int) -> None:
        """Declare the first `ready` layers computed."""
        async with self._changed:
            self._ready = ready
            self._changed.notify_all()

    async def fail(self) -> None:
        """Declare that no further layer will come."""
        async with self._changed:
            self._failed = True
            self._changed.notify_all()

    async def layer(self, index: int, have_tokens: int) -> memoryview:
        """Wait until a layer is computed and return its bytes."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failed or self._ready > index)
            if self._ready <= index:
                raise TransferError("the prefill was aborted")
        total_bytes = self.total_bytes(have_tokens)
        size_bytes = total_bytes * (index + 1) // self._layers - total_bytes * index // self._layers
        start = (self._seed + index * 65_537) % _POOL_BYTES
        if size_bytes <= _POOL_BYTES:
            return _POOL[start : start + size_bytes]
        whole, rest = divmod(size_bytes, _POOL_BYTES)
        return memoryview(bytes(_POOL[:_POOL_BYTES]) * whole + bytes(_POOL[:rest]))
