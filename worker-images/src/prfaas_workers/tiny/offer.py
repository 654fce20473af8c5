"""The pages of a prompt on offer to another worker; they stay until the offer has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prfaas_workers.kv_transfer.progress import LayerProgress

if TYPE_CHECKING:
    from prfaas_workers.tiny.engine import TinyBackend


class OfferedPages:
    """A `LayerSource` of real pages.

    Args:
        tokens: of the prompt.
        content: the prompt's digest.
    """

    def __init__(self, backend: TinyBackend, tokens: int, content: str, progress: LayerProgress) -> None:
        self.layers = backend.model.layers
        self.tokens = tokens
        self.content = content
        self.progress = progress
        self._backend = backend
        self._pages: list[int] = []
        self._ended = False

    def total_bytes(self, have_tokens: int) -> int:
        """Return the bytes of the pages that the reader does not have completely."""
        geometry = self._backend.geometry
        return (geometry.pages(self.tokens) - have_tokens // geometry.page_tokens) * geometry.page_bytes * self.layers

    async def layer(self, index: int, have_tokens: int) -> bytes:
        """Wait until a layer is computed and return its pages."""
        await self.progress.wait(index)
        first = have_tokens // self._backend.geometry.page_tokens
        return self._backend.store.export(index, self._pages[first:], self.tokens)

    def assign(self, pages: list[int]) -> None:
        """Hold the prompt's pages from now on."""
        if not self._ended:
            self._pages = pages
            self._backend.pool.hold(pages)

    def ended(self) -> None:
        """Let go of the pages."""
        if not self._ended:
            self._ended = True
            self._backend.release(self._pages)
