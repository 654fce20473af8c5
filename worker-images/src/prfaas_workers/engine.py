"""What the HTTP server asks of an engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from prfaas_workers.metrics import Metrics
from prfaas_workers.openai import Generation


@dataclass(frozen=True, slots=True)
class Start:
    """The first thing an engine says of a request, before its first token: tokens whose KV it did not compute."""

    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some output tokens.

    Attributes:
        finish_reason: set on the last piece: stop or length.
        token_ids: the tokens themselves, where there is a model behind the text.
        kv_transfer: set on the last piece of a prefill leg: what decode needs to fetch the KV.
    """

    text: str
    tokens: int
    finish_reason: str | None = None
    kv_transfer: dict[str, Any] | None = None
    token_ids: tuple[int, ...] | None = None


class KVLoadError(Exception):
    """The KV of a remote prefill did not come, and the policy is to fail."""


class Engine(Protocol):
    """Generates tokens for requests."""

    @property
    def metrics(self) -> Metrics:
        """The worker's metrics."""

    @property
    def model(self) -> str:
        """The served model's name."""

    @property
    def max_model_len_tokens(self) -> int:
        """Prompt and output together."""

    @property
    def offers(self) -> int:
        """How many requests' KV others have still to fetch."""

    @property
    def bytes_per_token(self) -> float:
        """How many bytes of text stand for a token."""

    def generate(self, request: Generation) -> AsyncGenerator[Start | Piece, None]:
        """Yield a `Start` and then the pieces of the answer. Closing the iterator aborts the request.

        Raises:
            KVLoadError: see there.
            RequestError: the engine cannot serve such a request.
        """

    def refresh(self) -> None:
        """Set the gauges of the metrics."""
