"""The simulated KV of one request: real bytes in the amount that the profile says, layer by layer."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable

from prfaas_core.profiles import Profile
from prfaas_workers.kv_transfer.progress import LayerProgress
from prfaas_workers.kv_transfer.wire import prompt_digest

_POOL_BYTES = 1 << 22
# Bytes that do not compress, so that nothing on the way can shrink them. One pool for the process keeps layers cheap.
_POOL = memoryview(random.Random(0).randbytes(_POOL_BYTES) * 2)  # noqa: S311 - not a secret


class SimulatedKV:
    """A `LayerSource` whose layers get ready as `progress` says.

    Args:
        token_ids: the prompt; it seeds the content.
        profile: gives S_kv.
        layers: into how many equal parts the KV is cut.
        bytes_scale: bytes sent for each byte of the profile.
        on_end: called when the KV is no longer on offer.
    """

    def __init__(
        self,
        token_ids: array[int],
        profile: Profile,
        layers: int,
        bytes_scale: float,
        progress: LayerProgress,
        on_end: Callable[[], None],
    ) -> None:
        self.content = prompt_digest(token_ids)
        self.tokens = len(token_ids)
        self.layers = layers
        self._profile = profile
        self._bytes_scale = bytes_scale
        self._progress = progress
        self._on_end = on_end

    def total_bytes(self, have_tokens: int) -> int:
        """Return S_kv of the part that the reader lacks, scaled; never 0, since recurrent state always goes whole."""
        return max(self.layers, round(self._profile.kv_bytes(self.tokens - have_tokens) * self._bytes_scale))

    async def layer(self, index: int, have_tokens: int) -> memoryview:
        """Wait until a layer is computed and return its bytes."""
        await self._progress.wait(index)
        total_bytes = self.total_bytes(have_tokens)
        size_bytes = total_bytes * (index + 1) // self.layers - total_bytes * index // self.layers
        start = (int(self.content[:8], 16) + index * 65_537) % _POOL_BYTES
        if size_bytes <= _POOL_BYTES:
            return _POOL[start : start + size_bytes]
        whole, rest = divmod(size_bytes, _POOL_BYTES)
        return memoryview(bytes(_POOL[:_POOL_BYTES]) * whole + bytes(_POOL[:rest]))

    def ended(self) -> None:
        """Give back the room that the KV took."""
        self._on_end()
