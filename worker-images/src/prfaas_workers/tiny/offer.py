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
        self._backend = backend
        self._tokens = tokens
        self._content = content
        self._pages: list[int] = []
        self._ended = False
        self.progress = progress

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return self._backend.model.layers

    @property
    def tokens(self) -> int:
        """How many tokens of KV there are."""
        return self._tokens

    @property
    def content(self) -> str:
        """The prompt's digest."""
        return self._content

    def total_bytes(self, have_tokens: int) -> int:
        """Return the bytes of the pages that the reader does not have completely."""
        geometry = self._backend.geometry
        return (geometry.pages(self._tokens) - have_tokens // geometry.page_tokens) * geometry.page_bytes * self.layers

    async def layer(self, index: int, have_tokens: int) -> bytes:
        """Wait until a layer is computed and return its pages."""
        await self.progress.wait(index)
        first = have_tokens // self._backend.geometry.page_tokens
        return self._backend.store.export(index, self._pages[first:], self._tokens)

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
