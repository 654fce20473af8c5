"""When each pool is looked at: once in a period, each at a moment of its own.

Looked at all at once, many pools would wait for one another in front of the same Prometheus, the last of them in vain.
"""

import zlib
from collections.abc import Iterable

from prfaas_operator.objects import Ref


class Timetable:
    """Keeps what is due when, on a clock that the caller reads."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._due_s: dict[Ref, float] = {}

    def due(self, refs: Iterable[Ref], now_s: float) -> dict[Ref, float]:
        """Return which of `refs` are due, with how late that is in seconds, and have them due again at their next moment.

        What is new is due at once. What was missed is not made up for. What is not in `refs` is forgotten.
        """
        self._due_s = {ref: self._due_s.get(ref, now_s) for ref in refs}
        late_s = {ref: now_s - due_s for ref, due_s in self._due_s.items() if due_s <= now_s}
        for ref in late_s:
            self._due_s[ref] = self._next_s(ref, now_s)
        return late_s

    def next_s(self) -> float | None:
        """Return when something is due next; None while nothing is known."""
        return min(self._due_s.values(), default=None)

    def _next_s(self, ref: Ref, now_s: float) -> float:
        """Return the first moment of a pool that is half a period away or more."""
        moment_s = zlib.crc32(str(ref).encode()) / 2**32 * self._period_s
        earliest_s = now_s + self._period_s / 2
        return earliest_s + (moment_s - earliest_s) % self._period_s
