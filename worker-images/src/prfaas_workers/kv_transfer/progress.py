"""How far the layers of a prefill are, for whoever sends them on."""

from __future__ import annotations

import asyncio

from prfaas_workers.kv_transfer.wire import TransferError


class LayerProgress:
    """Layers get ready one after the other, or never."""

    def __init__(self) -> None:
        self._ready = 0
        self._failed = False
        self._changed = asyncio.Condition()

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

    async def wait(self, index: int) -> None:
        """Wait until a layer is computed; `TransferError` when it never will be."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failed or self._ready > index)
            if self._failed:
                raise TransferError("the prefill was aborted")
