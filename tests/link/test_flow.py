"""Whatever the pieces that bytes are read in, taken in and blocked at: they arrive once, in order, unchanged."""

import asyncio
import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_local.link.connection import READ_AHEAD_BYTES, WINDOW_BYTES, End, Flow
from prfaas_local.link.direction import Direction
from prfaas_local.link.state import Fault, LinkState


class Transport(asyncio.Transport):
    """Records what an end does with its TCP connection."""

    def __init__(self, on_write: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self.on_write = on_write
        self.reading = True
        self.written = bytearray()
        self.ended = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        assert len(data)
        self.written += data
        self.on_write(len(data))

    def write_eof(self) -> None:
        assert not self.ended
        self.ended = True


class Line:
    """A flow between two recorded ends."""

    def __init__(self, direction: Direction, *, opened: bool) -> None:
        self.ends = 0
        self.read, self.wrote = Transport(), Transport()
        source, self.sink = End(lambda _: None, lambda _: None), End(lambda _: None, lambda _: None)
        self.flow = source.outward = self.sink.inward = Flow(direction, source, self.sink, self._end, opened=opened)
        source.connection_made(self.read)
        self.sink.connection_made(self.wrote)
        self.source = source

    def _end(self) -> None:
        self.ends += 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0)


steps = st.lists(
    st.one_of(
        st.integers(1, 300_000),
        st.integers(1, 40),
        st.sampled_from(["block", "unblock", "open", "stall", "heal", "let it run", "faster", "slower", "delay", "no delay"]),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(steps=steps, opened=st.booleans(), seed=st.integers(0, 2**32))
def test_bytes_arrive_once_in_order_and_unchanged(steps: list[int | str], opened: bool, seed: int) -> None:
    state = LinkState(4e10)
    changes = {
        "stall": {"fault": "stall"}, "heal": {"fault": "none"}, "faster": {"capacityBps": 1e12},
        "slower": {"capacityBps": 1e10}, "delay": {"delaySeconds": 0.002}, "no delay": {"delaySeconds": 0.0},
    }  # fmt: skip

    async def play() -> None:
        nonlocal state
        randomness = random.Random(seed)
        direction = Direction(state)
        line = Line(direction, opened=opened)
        is_open, sent = opened, bytearray()
        for step in steps:
            if isinstance(step, int):
                # A transport that is paused may hand over one more piece, not more than that.
                if line.read.reading:
                    data = randomness.randbytes(step)
                    sent += data
                    line.source.data_received(data)
            elif step in ("block", "unblock"):
                line.sink.pause_writing() if step == "block" else line.sink.resume_writing()
            elif step == "open":
                is_open = True
                line.flow.open()
            elif step == "let it run":
                await asyncio.sleep(0.001)
            else:
                state = state.changed(changes[step])
                direction.configure(state)
            assert line.flow.queued_bytes < READ_AHEAD_BYTES + 300_000
            assert sent.startswith(line.wrote.written)
            if not is_open:
                assert not line.wrote.written
        line.source.eof_received()
        line.flow.open()
        line.sink.resume_writing()
        direction.configure(state.changed({"fault": "none", "capacityBps": 4e10}))
        await until(lambda: line.wrote.ended)
        assert line.wrote.written == sent
        assert line.ends == 1
        assert line.flow.queued_bytes == direction.in_flight_bytes == direction.waiting_senders == 0
        assert direction.carried_bytes == len(sent)

    asyncio.run(play())


@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(st.integers(1000, 10_000), min_size=15, max_size=40), others=st.integers(1, 5))
def test_a_turn_is_worth_the_same_in_small_pieces(pieces: list[int], others: int) -> None:
    """While several flows have bytes, none gets ahead of another by more than one turn: half a millisecond at the bandwidth."""

    async def play() -> None:
        direction = Direction(LinkState(8e8, fault=Fault.STALL))
        lines = [Line(direction, opened=True) for _ in range(1 + others)]
        most_apart_bytes = 0

        def compare(_: int) -> None:
            nonlocal most_apart_bytes
            counts = [len(line.wrote.written) for line in lines]
            most_apart_bytes = max(most_apart_bytes, max(counts) - min(counts))

        for line in lines:
            line.wrote.on_write = compare
        for piece in pieces:
            lines[0].source.data_received(bytes(piece))
        for line in lines[1:]:
            line.source.data_received(bytes(sum(pieces)))
        direction.configure(LinkState(8e8))
        await until(lambda: all(len(line.wrote.written) == sum(pieces) for line in lines))
        assert most_apart_bytes <= 50_000

    asyncio.run(asyncio.wait_for(play(), 20))


def test_changes_while_busy_leave_one_timer_each_way() -> None:
    async def play() -> None:
        state = LinkState(8e3, delay_s=30)
        direction = Direction(state)
        line = Line(direction, opened=True)
        line.source.data_received(bytes(10_000))
        for _ in range(20):
            direction.configure(state)
            direction.configure(state.changed({"fault": "stall"}))
        direction.configure(state)
        scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        assert sum(not timer.cancelled() for timer in scheduled) == 2

    asyncio.run(play())


def test_a_flow_has_at_most_a_window_on_the_way() -> None:
    async def play() -> None:
        direction = Direction(LinkState(1e12, delay_s=60))
        line = Line(direction, opened=True)
        while line.read.reading:
            line.source.data_received(bytes(200_000))
            await asyncio.sleep(0)
        assert WINDOW_BYTES <= direction.in_flight_bytes < WINDOW_BYTES + 256 * 1024
        assert READ_AHEAD_BYTES <= line.flow.queued_bytes < READ_AHEAD_BYTES + 200_000
        direction.configure(LinkState(1e12, delay_s=0, fault=Fault.STALL))

    asyncio.run(asyncio.wait_for(play(), 20))


def test_a_reset_comes_after_what_is_on_the_way() -> None:
    async def play() -> None:
        direction = Direction(LinkState(1e9, delay_s=0.02))
        line = Line(direction, opened=True)
        seen: list[int] = []
        line.sink.reset = lambda: seen.append(len(line.wrote.written))  # type: ignore[method-assign]
        line.source.data_received(b"0123456789")
        line.flow.reset()
        assert seen == []
        await until(lambda: bool(seen))
        assert seen == [10]

    asyncio.run(play())
