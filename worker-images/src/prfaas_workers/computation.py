"""What `HandoverEngine` asks of the part that computes: the simulator's clock, or a model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from prfaas_workers.engine import Piece
from prfaas_workers.kv_transfer.owner import LayerSource
from prfaas_workers.kv_transfer.progress import LayerProgress
from prfaas_workers.openai import Generation


class Computation(Protocol):
    """One request. `begin` comes first, then `prefill` or the parts of a remote KV, then `pieces`; `close` always ends it."""

    async def begin(self) -> int:
        """Wait for room; return how many leading tokens are in the prefix cache, fewer than the prompt has.

        The same answer comes from a second call.
        """

    def offer(self) -> tuple[LayerSource, LayerProgress]:
        """Return the KV that `prefill` computes, and what tells its readers that there will be no more of it.

        May be called before `begin`. The source stays readable after `close`, until its `ended` is called.
        """

    async def prefill(self) -> None:
        """Compute the KV of the tokens that `begin` did not find."""

    def receive(self, index: int, payload: memoryview) -> None:
        """Take one layer of the KV of the tokens that `begin` did not find; `TransferError` when it cannot be that."""

    async def received(self) -> None:
        """Take note that every layer came and was right; nothing of what came is used before."""

    def pieces(self, max_tokens: int) -> AsyncGenerator[Piece, None]:
        """Yield the output, which ends after `max_tokens` tokens at the latest; the first piece is one token."""

    def close(self) -> None:
        """Give back what the request holds."""


class Backend(Protocol):
    """Computes requests; `prefill` of one at a time is called."""

    def compute(self, request: Generation) -> Computation:
        """Return the computation of a request, not begun; `RequestError` when it can never be served."""

    def cache_usage(self) -> float:
        """Return the part of the KV cache in use, 0 to 1."""
