"""The uncached lengths of recent requests, as a histogram that forgets: what a router reports and the planner is fed with.

Buckets are geometric, eight to a doubling, so that a length inside one is known to 9 per cent and a few dozen numbers describe
hours of traffic. A count halves in every `HALF_LIFE_S`: the histogram follows a shift of the mix within a minute or two, and
never drops it at once. Reports are states and not differences: the newest one of each router is all there is to know, and
their sum is the traffic of a route.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from prfaas_core import errors
from prfaas_core.lengths import Lengths

HALF_LIFE_S = 60.0
FIRST_TOKENS = 64
PER_DOUBLING = 8
BUCKETS = 1 + 14 * PER_DOUBLING
"""The last one ends at 64 x 2^14 = 1,048,576 tokens, and takes whatever is longer."""
_POINTS = 2_000
_NEGLIGIBLE = 1e-3


def bucket_of(tokens: float) -> int:
    """Return the bucket of a length: 0 up to `FIRST_TOKENS`, then eight to a doubling."""
    if tokens <= FIRST_TOKENS:
        return 0
    return min(BUCKETS - 1, math.ceil(PER_DOUBLING * math.log2(tokens / FIRST_TOKENS) - 1e-9))


def upper_tokens(bucket: int) -> float:
    """Return the longest length of a bucket."""
    return float(FIRST_TOKENS * 2.0 ** (bucket / PER_DOUBLING))


@dataclass(frozen=True, slots=True)
class Bucket:
    """Part of a histogram.

    Attributes:
        index: which bucket; see `bucket_of`.
        count: requests, decayed.
        tokens: sum of their lengths, decayed alike.
    """

    index: int
    count: float
    tokens: float

    def __post_init__(self) -> None:
        if not 0 <= errors.count("bucket.index", self.index) < BUCKETS:
            raise errors.InvalidValueError("bucket.index", self.index, f"give 0 to {BUCKETS - 1}")
        errors.non_negative("bucket.count", self.count)
        errors.non_negative("bucket.tokens", self.tokens)


class TrafficWindow:
    """The decayed histogram of one router. Not safe for use from several threads."""

    __slots__ = ("_at_s", "_counts", "_tokens")

    def __init__(self, now_s: float) -> None:
        self._at_s = now_s
        self._counts = array("d", bytes(8 * BUCKETS))
        self._tokens = array("d", bytes(8 * BUCKETS))

    def record(self, uncached_tokens: float, now_s: float) -> None:
        """Count a request. `now_s` is a clock in seconds that does not go back."""
        # Instead of decaying all that was counted, what comes later counts for more; `buckets` brings it back to now.
        weight = 2.0 ** ((now_s - self._at_s) / HALF_LIFE_S)
        if weight > 1e6:
            self._decay(now_s)
            weight = 1.0
        index = bucket_of(uncached_tokens)
        self._counts[index] += weight
        self._tokens[index] += weight * uncached_tokens

    def buckets(self, now_s: float) -> tuple[Bucket, ...]:
        """Return what is left of each bucket at `now_s`; those with next to nothing are left out."""
        self._decay(now_s)
        return tuple(
            Bucket(index, count, self._tokens[index]) for index, count in enumerate(self._counts) if count > _NEGLIGIBLE
        )

    def _decay(self, now_s: float) -> None:
        factor = 2.0 ** (-(now_s - self._at_s) / HALF_LIFE_S)
        for index in range(BUCKETS):
            self._counts[index] *= factor
            self._tokens[index] *= factor
        self._at_s = now_s


@dataclass(frozen=True, slots=True)
class Traffic:
    """The recent requests of one route.

    Attributes:
        requests: how many the histogram stands for, decayed.
        rate_rps: how many come in a second, if they kept coming as they did.
        lengths: their uncached lengths.
    """

    requests: float
    rate_rps: float
    lengths: Lengths


def _spread(index: int, mean: float, points: int) -> list[float]:
    """Return lengths of one bucket with a mean, evenly about it.

    All at the mean they would change sides together when a threshold passes by, and a drift of the mean would look like a shift
    of the traffic.
    """
    reach = max(0.0, min(mean - (upper_tokens(index - 1) if index else 1.0), upper_tokens(index) - mean))
    return [max(1.0, mean + reach * ((2 * point + 1) / points - 1)) for point in range(points)]


def combine(reports: Iterable[Iterable[Bucket]], least_requests: float) -> Traffic | None:
    """Return the traffic that several routers saw together; None when it is less than `least_requests`."""
    counts, tokens = [0.0] * BUCKETS, [0.0] * BUCKETS
    for buckets in reports:
        for bucket in buckets:
            counts[bucket.index] += bucket.count
            tokens[bucket.index] += bucket.tokens
    total = math.fsum(counts)
    if total <= 0 or total < least_requests:
        return None
    sample: list[float] = []
    owed = 0.0
    for index, count in enumerate(counts):
        # What rounding takes from one bucket the next one gets, so that the points add up.
        owed += count / total * _POINTS
        points, owed = int(owed), owed - int(owed)
        if count:
            sample += _spread(index, tokens[index] / count, points)
    # A steady rate r leaves r x half-life / ln 2 in a histogram that decays.
    return Traffic(total, total * math.log(2) / HALF_LIFE_S, Lengths.of(sample))
