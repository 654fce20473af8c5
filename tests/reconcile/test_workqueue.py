"""The queue of objects to reconcile."""

import asyncio

import pytest

from prfaas_operator.objects import Ref
from prfaas_operator.workqueue import Backoff, WorkQueue

A, B = Ref("PrefillPool", "t", "a"), Ref("PrefillPool", "t", "b")


@pytest.fixture
async def queue():
    made = []

    def make(work, **settings):
        errors = []
        found = WorkQueue(work, on_error=lambda ref, error: errors.append((ref, str(error))),
                          backoff=Backoff(0.001, 0.002), **settings)  # fmt: skip
        found.errors = errors
        found.start()
        made.append(found)
        return found

    yield make
    for found in made:
        await found.stop()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  the condition is about the queue, which sets no event
            await asyncio.sleep(0.001)


async def test_one_object_is_worked_on_once_at_a_time(queue):
    """Changes during the work lead to one more round, however many they are; other objects go on meanwhile."""
    running, rounds, gate = set(), [], asyncio.Event()

    async def work(ref):
        assert ref not in running
        running.add(ref)
        rounds.append(ref)
        if ref == A:
            await gate.wait()
        running.discard(ref)

    found = queue(work, workers=4)
    found.add(A)
    await until(lambda: A in running)
    for _ in range(5):
        found.add(A)
    found.add(B)
    await until(lambda: B in rounds and B not in running)
    gate.set()
    await until(lambda: rounds.count(A) == 2 and not running)
    found.add(B)
    await until(lambda: rounds.count(B) == 2)
    assert rounds.count(A) == 2


async def test_failures_come_back(queue):
    """A failure is reported and tried again; the others are not held up."""
    tries = []

    async def work(ref):
        tries.append(ref)
        if ref == A and tries.count(A) < 4:
            raise RuntimeError(f"try {tries.count(A)}")

    found = queue(work)
    found.add(A)
    found.add(B)
    await until(lambda: tries.count(A) == 4)
    assert found.errors == [(A, "try 1"), (A, "try 2"), (A, "try 3")]
    assert tries.count(B) == 1


async def test_the_shortest_delay_counts(queue):
    """Asked to look again later and soon, it looks soon, and once."""
    seen = asyncio.Event()
    rounds = []

    async def work(ref):
        rounds.append(ref)
        seen.set()

    found = queue(work)
    found.add_after(A, 60)
    found.add_after(A, 0.01)
    found.add_after(A, 30)
    async with asyncio.timeout(5):
        await seen.wait()
    assert rounds == [A]


def test_backoff_doubles_up_to_its_limit():
    """Delays grow, end at the last one, and never overflow."""
    backoff = Backoff(1.0, 60.0)
    assert 0.75 <= backoff.delay_s(1) <= 1.25
    assert 3 <= backoff.delay_s(3) <= 5
    assert backoff.delay_s(10_000) <= 75
