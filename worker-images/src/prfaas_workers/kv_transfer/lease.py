"""KV that a prefill worker holds for a decode worker: offered, read once, or expired.

A pure table with a clock passed in. Every offer ends in exactly one of three ways, so that no block stays pinned: it was
read, it expired, or it was withdrawn.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class Refusal(enum.StrEnum):
    """Why a read is refused."""

    UNKNOWN = "unknown request id: it was never offered here"
    SPENT = "already read: a handed-over KV is spent once"
    EXPIRED = "expired: the lease ran out before the read"


@dataclass(slots=True)
class _Offer(Generic[T]):
    content: T
    expires_s: float
    reading: bool = False


class LeaseTable(Generic[T]):
    """The offers of one worker.

    Args:
        duration_s: how long an offer waits for its reader.
        remembered: how many ended offers are kept by id, to tell a late reader why it is refused.
    """

    def __init__(self, duration_s: float, remembered: int = 4096) -> None:
        self._duration_s = duration_s
        self._remembered = remembered
        self._offers: dict[str, _Offer[T]] = {}
        self._ended: dict[str, Refusal] = {}

    def __len__(self) -> int:
        return len(self._offers)

    def offer(self, request_id: str, content: T, now_s: float) -> None:
        """Offer `content` under `request_id` for one read; `ValueError` while another offer has the same id."""
        if request_id in self._offers:
            raise ValueError(f"request id {request_id} is in use; give each request an id of its own")
        self._offers[request_id] = _Offer(content, now_s + self._duration_s)
        self._ended.pop(request_id, None)

    def extend(self, request_id: str, now_s: float) -> None:
        """Restart the clock of an offer: its prefill has just ended, or its reader gave a sign of life."""
        offer = self._offers.get(request_id)
        if offer is not None:
            offer.expires_s = now_s + self._duration_s

    def begin_possible(self, request_id: str) -> bool:
        """Return whether `begin` has an answer other than `UNKNOWN`."""
        return request_id in self._offers or request_id in self._ended

    def look(self, request_id: str) -> T | None:
        """Return what is offered, without reading it."""
        offer = self._offers.get(request_id)
        return None if offer is None else offer.content

    def reading(self, request_id: str) -> T | None:
        """Return what is being read."""
        offer = self._offers.get(request_id)
        return offer.content if offer is not None and offer.reading else None

    def begin(self, request_id: str) -> T | Refusal:
        """Return the content for reading, or why not. A second read is refused while the first goes on and after it."""
        offer = self._offers.get(request_id)
        if offer is None:
            return self._ended.get(request_id, Refusal.UNKNOWN)
        if offer.reading:
            return Refusal.SPENT
        offer.reading = True
        return offer.content

    def end(self, request_id: str) -> T | None:
        """Take away an offer that was read, wholly or not: what a reader may have used is never handed out again."""
        return self._end(request_id, Refusal.SPENT)

    def withdraw(self, request_id: str) -> T | None:
        """Take away an offer whose request was aborted."""
        return self._end(request_id, Refusal.UNKNOWN)

    def expire(self, now_s: float) -> list[T]:
        """Take away and return every offer that ran out unread."""
        late = [key for key, offer in self._offers.items() if not offer.reading and offer.expires_s <= now_s]
        return [content for key in late for content in [self._end(key, Refusal.EXPIRED)] if content is not None]

    def next_expiry_s(self) -> float | None:
        """Return when the next offer runs out, or None."""
        return min((offer.expires_s for offer in self._offers.values() if not offer.reading), default=None)

    def _end(self, request_id: str, how: Refusal) -> T | None:
        offer = self._offers.pop(request_id, None)
        if offer is None:
            return None
        self._ended[request_id] = how
        while len(self._ended) > self._remembered:
            del self._ended[next(iter(self._ended))]
        return offer.content
