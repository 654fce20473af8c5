"""The tiny engine: requests over the model and the paged cache.

A request holds pages for its prompt and its longest output from the beginning, so that it never has to be thrown out in
the middle; requests wait for pages in order of arrival. The model runs on one thread, a layer of a prefill or a token of
a decode at a time, whose turns alternate in order of asking; HTTP and transfers go on meanwhile.
"""

from __future__ import annotations

import asyncio
import codecs
import functools
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from prfaas_core.prefix import hash_tokens
from prfaas_workers.engine import Piece
from prfaas_workers.kv_transfer.progress import LayerProgress
from prfaas_workers.kv_transfer.wire import prompt_digest
from prfaas_workers.openai import Generation, RequestError
from prfaas_workers.tiny import sampling
from prfaas_workers.tiny.arithmetic import Floats
from prfaas_workers.tiny.model import Model
from prfaas_workers.tiny.offer import OfferedPages
from prfaas_workers.tiny.pages import PagePool
from prfaas_workers.tiny.store import Geometry, PageStore
from prfaas_workers.tiny.weights import VOCABULARY

T = TypeVar("T")


class TinyBackend:
    """A `Backend` with a model.

    Args:
        name: of the model; prompts of another one have other digests.
        pages: size of the KV cache.
    """

    def __init__(self, name: str, model: Model, geometry: Geometry, pages: int) -> None:
        self.name = name
        self.model = model
        self.geometry = geometry
        self.pool = PagePool(pages)
        self.store = PageStore(geometry, pages)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting: deque[tuple[Callable[[], list[int] | None], asyncio.Future[list[int]]]] = deque()

    def compute(self, request: Generation) -> TinyComputation:
        """Return the computation of a request; `RequestError` when a token is unknown or the cache is too small for it."""
        unknown = next((token for token in request.token_ids if token >= VOCABULARY), None)
        if unknown is not None:
            raise RequestError(400, f"token id {unknown} is not in the vocabulary, 0 to {VOCABULARY - 1}", "prompt")
        needed = self.geometry.pages(len(request.token_ids) + request.max_tokens)
        if needed > self.pool.count:
            raise RequestError(
                400, f"the request needs {needed} pages of KV; the cache has {self.pool.count}", "max_tokens"
            )
        return TinyComputation(self, request)

    def cache_usage(self) -> float:
        """Return the part of the pages that requests and offers hold."""
        return 1 - self.pool.available / self.pool.count

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` on the model's thread; a cancelled caller gets its cancellation when the thread is done.

        Until then the function writes to pages, which may not have been given away.
        """
        future = asyncio.get_running_loop().run_in_executor(self._thread, function)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def obtain(self, attempt: Callable[[], list[int] | None]) -> list[int]:
        """Return the pages that `attempt` gets when its turn and enough room have come."""
        if not self._waiting:
            pages = attempt()
            if pages is not None:
                return pages
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.append((attempt, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result())
            else:
                # The next one may need less.
                future.cancel()
                self._admit()
            raise

    def release(self, pages: list[int]) -> None:
        """Give pages back, and let the next ones have them."""
        self.pool.release(pages)
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            attempt, future = self._waiting[0]
            if not future.done():
                pages = attempt()
                if pages is None:
                    return
                future.set_result(pages)
            self._waiting.popleft()


class TinyComputation:
    """One request, as a `Computation`."""

    def __init__(self, backend: TinyBackend, request: Generation) -> None:
        self._backend = backend
        self._request = request
        self._tokens = list(request.token_ids)
        self._prompt_tokens = len(request.token_ids)
        self._seed = secrets.randbits(63) if request.seed is None else request.seed
        self._table: list[int] | None = None
        self._cached_tokens = 0
        self._computed_tokens = 0
        self._logits: Floats | None = None
        self._offer: OfferedPages | None = None

    async def begin(self) -> int:
        """Wait for pages; look the prompt up in the prefix cache."""
        if self._table is None:
            self._table = await self._backend.obtain(self._allocate)
            self._computed_tokens = self._cached_tokens
            if self._offer is not None:
                self._offer.assign(self._table[: self._backend.geometry.pages(self._prompt_tokens)])
        return self._cached_tokens

    def offer(self) -> tuple[OfferedPages, LayerProgress]:
        """Return the pages of the prompt, to be read by another worker."""
        progress = LayerProgress()
        self._offer = OfferedPages(self._backend, self._prompt_tokens, prompt_digest(self._request.token_ids), progress)
        return self._offer, progress

    async def prefill(self) -> None:
        """Compute the prompt layer by layer, so that a reader can have each layer when it is done."""
        backend, model = self._backend, self._backend.model
        start = await self.begin()
        table = self._held()
        stream = model.embed(self._tokens[start:])
        for index in range(model.layers):
            stream = await backend.run(functools.partial(model.layer, index, stream, backend.store, table, start))
            if self._offer is not None:
                await self._offer.progress.advance(index + 1)
        self._logits = await backend.run(functools.partial(model.logits, stream))
        self._computed_tokens = self._prompt_tokens
        self._publish()

    def receive(self, index: int, payload: memoryview) -> None:
        """Put one layer of a remote KV into the pages that the prefix cache did not have."""
        geometry = self._backend.geometry
        first, end = self._cached_tokens // geometry.page_tokens, geometry.pages(self._prompt_tokens)
        self._backend.store.load(index, self._held()[first:end], payload)

    async def received(self) -> None:
        """Compute the last token again: its KV was sent, its logits were not."""
        self._computed_tokens = self._prompt_tokens - 1
        await self._step()
        self._publish()

    async def pieces(self, max_tokens: int) -> AsyncGenerator[Piece, None]:
        """Yield one token after the other."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for done in range(1, max_tokens + 1):
            if self._logits is None:
                await self._step()
            assert self._logits is not None  # noqa: S101 - a step has just made them
            token = sampling.choose(self._logits, self._request.temperature, self._seed, len(self._tokens))
            self._logits = None
            self._tokens.append(token)
            text = decoder.decode(bytes([token]), final=done == max_tokens)
            yield Piece(text, 1, "length" if done == max_tokens else None, token_ids=(token,))

    def close(self) -> None:
        """Let go of the pages; those that are complete stay in the prefix cache, the output's included."""
        if self._table is not None:
            self._publish()
            table, self._table = self._table, None
            self._backend.release(table)

    async def _step(self) -> None:
        """Compute the tokens whose KV is missing; in a decode that is the last one."""
        start = self._computed_tokens
        self._logits = await self._backend.run(
            functools.partial(
                self._backend.model.forward, self._tokens[start:], self._backend.store, self._held(), start
            )
        )
        self._computed_tokens = len(self._tokens)

    def _allocate(self) -> list[int] | None:
        """Return cached pages and new ones for the rest, or None while there is no room."""
        geometry, pool = self._backend.geometry, self._backend.pool
        # The last token is always computed, for its logits, and into a page that nobody shares.
        shared = pool.share(self._digests()[: (self._prompt_tokens - 1) // geometry.page_tokens])
        rest = pool.allocate(geometry.pages(self._prompt_tokens + self._request.max_tokens) - len(shared))
        if rest is None:
            pool.release(shared)
            return None
        self._cached_tokens = len(shared) * geometry.page_tokens
        return [*shared, *rest]

    def _publish(self) -> None:
        """Let the complete pages be found by others."""
        digests = self._digests(self._computed_tokens)
        self._backend.pool.publish(self._held()[: len(digests)], digests)

    def _digests(self, tokens: int | None = None) -> tuple[bytes, ...]:
        return hash_tokens(
            self._tokens[:tokens], block_tokens=self._backend.geometry.page_tokens, model=self._backend.name
        )

    def _held(self) -> list[int]:
        if self._table is None:
            raise RuntimeError("the request holds no pages; begin comes first")
        return self._table
