"""The line in which requests wait for the first decode worker: who goes on when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_router.metrics import Metrics
from prfaas_router.openai import APIError
from prfaas_router.waiting import WaitingLine


class Passage:
    """A line, and who went through it in which order."""

    def __init__(self) -> None:
        self.line = WaitingLine(Metrics("ns/chat"))
        self.through: list[int] = []
        self.refused: dict[int, str | None] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def arrive(self, at_most: int = 100, max_wait_s: float = 60.0) -> None:
        self.tasks.append(asyncio.create_task(self._pass(len(self.tasks), at_most, max_wait_s)))

    async def waiting(self, count: int) -> None:
        """Let everything that is ready run; then so many wait."""
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(self.line) == count

    async def end(self) -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _pass(self, number: int, at_most: int, max_wait_s: float) -> None:
        try:
            if not self.line.free:
                await self.line.wait(at_most, max_wait_s)
        except APIError as error:
            self.refused[number] = error.code
        else:
            self.through.append(number)


async def test_who_comes_while_others_leave_goes_behind_them() -> None:
    passage = Passage()
    for _ in range(3):
        passage.arrive()
    await passage.waiting(3)
    passage.line.open()
    passage.arrive()
    await passage.end()
    assert passage.through == [0, 1, 2, 3]
    assert passage.line.free


async def test_a_worker_that_is_gone_again_costs_nobody_the_place() -> None:
    passage = Passage()
    for _ in range(3):
        passage.arrive()
    await passage.waiting(3)
    passage.line.open()
    passage.line.close()
    passage.arrive()
    await passage.waiting(4)
    assert passage.through == []
    passage.line.open()
    await passage.end()
    assert passage.through == [0, 1, 2, 3]


async def test_a_worker_that_comes_at_the_last_moment_is_taken() -> None:
    """The deadline and the worker are there in the same round of the loop."""
    passage = Passage()
    passage.arrive(max_wait_s=0.0)
    await asyncio.sleep(0)
    passage.line.open()
    await passage.end()
    assert (passage.through, passage.refused) == ([0], {})


async def test_who_may_not_wait_is_told_why() -> None:
    passage = Passage()
    passage.arrive()
    passage.arrive(at_most=1)
    passage.arrive(max_wait_s=0.001)
    await passage.waiting(2)
    async with asyncio.timeout(10):
        await passage.tasks[2]
    passage.line.drain(0.0)
    passage.arrive()
    await passage.end()
    assert passage.refused == {0: "waiting_drained", 1: "waiting_full", 2: "waiting_timeout", 3: "waiting_drained"}
    assert len(passage.line) == 0


async def test_a_router_that_drains_grants_no_more_time_than_there_was() -> None:
    passage = Passage()
    passage.arrive(max_wait_s=0.01)
    await passage.waiting(1)
    passage.line.drain(3600.0)
    await passage.end()
    assert list(passage.refused) == [0]


@given(st.lists(st.sampled_from(["arrive", "open", "close", "leave", "turn"]), max_size=40))
def test_the_order_of_arrival_is_kept_whatever_happens(events: list[str]) -> None:
    """Nobody overtakes, nobody is lost, and nobody goes on while there is no worker."""

    async def run() -> None:
        passage, gone, is_open = Passage(), set[int](), False
        actions: dict[str, Callable[[], None]] = {
            "arrive": passage.arrive, "open": passage.line.open, "close": passage.line.close,
        }  # fmt: skip
        for event in events:
            if event == "turn":
                before = len(passage.through)
                await asyncio.sleep(0)
                assert is_open or len(passage.through) == before
            elif event == "leave":
                if (number := len(passage.tasks) - 1) >= 0 and passage.tasks[number].cancel():
                    gone.add(number)
            else:
                actions[event]()
                is_open = event == "open" or (is_open and event != "close")
        passage.line.open()
        await passage.end()
        assert passage.through == sorted(set(range(len(passage.tasks))) - gone)
        assert passage.refused == {}

    asyncio.run(run())


def test_a_line_is_closed_at_first() -> None:
    assert not WaitingLine(Metrics("ns/chat")).free


@pytest.mark.parametrize("code", ["waiting_full", "waiting_drained"])
async def test_who_is_refused_is_told_when_to_come_back(code: str) -> None:
    line = WaitingLine(Metrics("ns/chat"))
    if code == "waiting_drained":
        line.drain(1.0)
    with pytest.raises(APIError) as caught:
        await line.wait(0, 1.0)
    assert (caught.value.code, caught.value.status) == (code, 503)
    assert caught.value.headers == (("retry-after", "5"),)
