"""A queue of objects to reconcile: each at most once in it, each in one worker at a time, failures with a back-off.

An object that is added while it is being worked on is worked on once more afterwards, so no change goes unseen and no two
workers write for the same object.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prfaas_operator.objects import Ref


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays after failures, seconds; each failure in a row doubles the delay."""

    first_s: float = 0.2
    last_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Return the delay after a number of failures in a row, spread so that many objects do not return at once."""
        delay_s = min(self.first_s * 2.0 ** min(failures - 1, 16), self.last_s)
        return delay_s * random.uniform(0.75, 1.25)  # noqa: S311


class WorkQueue:
    """Runs `work` for every object that is added, until stopped.

    `work` returns after how many seconds the object is to be looked at again, or None. When it raises, the object is tried
    again with the back-off; `on_error` hears of it.
    """

    def __init__(
        self,
        work: Callable[[Ref], Awaitable[float | None]],
        *,
        on_error: Callable[[Ref, Exception], None],
        backoff: Backoff,
        workers: int = 8,
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._backoff = backoff
        self._workers = workers
        self._waiting: deque[Ref] = deque()
        self._queued: set[Ref] = set()
        self._busy: set[Ref] = set()
        self._failures: dict[Ref, int] = {}
        self._later: dict[Ref, asyncio.TimerHandle] = {}
        self._some = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._queued)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(), name=f"worker {n}") for n in range(self._workers)]

    async def stop(self) -> None:
        """Cancel the workers; work in progress ends at its next await."""
        for handle in self._later.values():
            handle.cancel()
        self._later.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, ref: Ref) -> None:
        """Have an object looked at as soon as a worker is free."""
        if ref in self._queued:
            return
        self._queued.add(ref)
        if ref not in self._busy:
            self._enqueue(ref)

    def add_after(self, ref: Ref, delay_s: float) -> None:
        """Have an object looked at after a delay; of several delays the shortest counts."""
        loop = asyncio.get_running_loop()
        pending = self._later.get(ref)
        if pending is not None:
            if pending.when() <= loop.time() + delay_s:
                return
            pending.cancel()
        self._later[ref] = loop.call_later(delay_s, self._due, ref)

    def forget(self, ref: Ref) -> None:
        """Drop what is remembered of an object that is gone."""
        self._failures.pop(ref, None)
        handle = self._later.pop(ref, None)
        if handle is not None:
            handle.cancel()

    def _due(self, ref: Ref) -> None:
        self._later.pop(ref, None)
        self.add(ref)

    def _enqueue(self, ref: Ref) -> None:
        self._waiting.append(ref)
        self._some.release()

    async def _run(self) -> None:
        while True:
            await self._some.acquire()
            ref = self._waiting.popleft()
            self._queued.discard(ref)
            self._busy.add(ref)
            try:
                again_s = await self._work(ref)
            except Exception as error:  # noqa: BLE001  one object's failure must not stop the others
                failures = self._failures[ref] = self._failures.get(ref, 0) + 1
                self._on_error(ref, error)
                self.add_after(ref, self._backoff.delay_s(failures))
            else:
                self._failures.pop(ref, None)
                if again_s is not None:
                    self.add_after(ref, again_s)
            finally:
                self._busy.discard(ref)
                if ref in self._queued:
                    self._enqueue(ref)
