"""The line in which requests wait while the decode pool has no worker: scaled to zero, or starting.

It opens and closes with the configuration, and nothing in it looks at a clock but for its own deadline. Whoever came first goes
on first: a request that arrives while others are on their way out of the line goes behind them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from prfaas_router.metrics import Metrics
from prfaas_router.openai import APIError

log = structlog.get_logger()

RETRY_AFTER_S = 5
"""What a client is told that may not wait any longer: a worker that is not there by now takes seconds more, not minutes."""


@dataclass(slots=True, eq=False)
class _Place:
    turn: asyncio.Future[None]
    timer: asyncio.Timeout


class WaitingLine:
    """Requests that wait for the first decode worker, in order of arrival. It is closed at first."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._places: dict[_Place, None] = {}
        self._open = False
        self._since_s = 0.0
        self._until_s: float | None = None

    def __len__(self) -> int:
        return len(self._places)

    @property
    def free(self) -> bool:
        """Whether a request may go on at once."""
        return self._open and not self._places

    def open(self) -> None:
        """Let everybody go on, in their order: there is a decode worker."""
        if not self._open and self._places:
            waited_s = asyncio.get_running_loop().time() - self._since_s
            log.info("a decode worker is there", waiting=len(self._places), after_s=round(waited_s, 3))
        self._open = True
        for place in self._places:
            if not place.turn.done():
                place.turn.set_result(None)

    def close(self) -> None:
        """Let nobody go on: there is no decode worker any more."""
        self._open = False

    def drain(self, within_s: float) -> None:
        """Take nobody in from now on, and send away who still waits `within_s` seconds from now."""
        self._until_s = asyncio.get_running_loop().time() + within_s
        for place in self._places:
            deadline_s = place.timer.when()
            if not place.timer.expired() and deadline_s is not None:
                place.timer.reschedule(min(deadline_s, self._until_s))

    async def wait(self, at_most: int, max_wait_s: float) -> float:
        """Return when it is this request's turn, with the seconds that it has waited.

        Raises:
            APIError: 503: `at_most` wait already, `max_wait_s` have passed, or this router shuts down.
        """
        loop = asyncio.get_running_loop()
        arrived_s = loop.time()
        if self._until_s is not None:
            raise self._refusal("waiting_drained", "this router shuts down; another one takes the request")
        if len(self._places) >= at_most:
            raise self._refusal(
                "waiting_full", f"{at_most} requests wait for a decode worker already; try again in {RETRY_AFTER_S} s"
            )
        if not self._places:
            self._since_s = arrived_s
        outcome = "gone"
        place: _Place | None = None
        try:
            async with asyncio.timeout(max_wait_s) as timer:
                place = _Place(loop.create_future(), timer)
                self._enter(place)
                await self._turn(place)
            outcome = "served"
        except TimeoutError:
            if self._open:
                outcome = "served"
            elif self._until_s is not None:
                outcome = "drained"
                raise self._refusal(
                    "waiting_drained", "this router shuts down; another one takes the request"
                ) from None
            else:
                outcome = "timeout"
                raise self._refusal(
                    "waiting_timeout", f"no decode worker came within {max_wait_s:g} s; try again in {RETRY_AFTER_S} s"
                ) from None
        finally:
            waited_s = loop.time() - arrived_s
            if place is not None:
                self._leave(place)
            self._metrics.waited(outcome, waited_s)
        return waited_s

    async def _turn(self, place: _Place) -> None:
        while True:
            if self._open:
                # Those whose turn came before go on before this one does.
                await asyncio.sleep(0)
            else:
                place.turn = asyncio.get_running_loop().create_future()
                await place.turn
            if self._open:
                return

    def _enter(self, place: _Place) -> None:
        self._places[place] = None
        self._metrics.waiting.set(len(self._places))

    def _leave(self, place: _Place) -> None:
        del self._places[place]
        self._metrics.waiting.set(len(self._places))

    def _refusal(self, code: str, message: str) -> APIError:
        self._metrics.wait_refused(code)
        return APIError(503, message, code=code, retry_after_s=RETRY_AFTER_S)
