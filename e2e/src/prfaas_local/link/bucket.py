"""The token bucket that gives a direction of the link its rate."""

from __future__ import annotations


class TokenBucket:
    """A token bucket in its virtual-scheduling form (GCRA, ITU-T I.371): a time instead of a count of tokens.

    The time says when all bytes taken so far have been paid for at the rate. Bytes may be taken once it has passed, and it
    lags behind the clock by at most `burst_s`. Over any `t` seconds at most `rate * (t + burst_s)` bits and one take go
    through, and a waker that is late by less than `burst_s` loses nothing.
    """

    __slots__ = ("_paid_s", "_rate_bps", "burst_s")

    def __init__(self, rate_bps: float, burst_s: float, now_s: float) -> None:
        self.burst_s = burst_s
        self._rate_bps = rate_bps
        self._paid_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until bytes may be taken; 0 when they may be now."""
        return max(0.0, self._paid_s - now_s)

    def take(self, size_bytes: int, now_s: float) -> float:
        """Take bytes and return the seconds that they occupy the link."""
        occupied_s = 8 * size_bytes / self._rate_bps
        self._paid_s = max(self._paid_s, now_s - self.burst_s) + occupied_s
        return occupied_s

    def set_rate(self, rate_bps: float, now_s: float) -> None:
        """Change the rate. What was taken and is not paid yet is paid at the new one; what was saved up is lost."""
        owed_s = max(0.0, self._paid_s - now_s)
        self._paid_s = now_s + owed_s * self._rate_bps / rate_bps
        self._rate_bps = rate_bps
