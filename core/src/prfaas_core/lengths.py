"""Distributions of uncached prompt lengths: the log-normal of the case study, and what a trace holds.

Both are represented by the same thing, a sorted sample with prefix sums, so that the model asks one kind of question:
how much of the mix lies above a threshold, and what are the means on either side. For the log-normal the sample is made
of quantiles at equal steps, not of random draws; its error falls with the square of their number.

Means of a `Curve` over a part of the sample come from the prefix sums piece by piece, exact and without walking the
sample, so that a planner may ask for thousands of them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from statistics import NormalDist
from typing import Self

from prfaas_core import errors
from prfaas_core.profiles import Curve


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of lengths in tokens, as a sample in ascending order.

    Attributes:
        sample: lengths above 0, ascending.
    """

    sample: tuple[float, ...]
    _sums: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _squares: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.sample:
            raise errors.InvalidValueError("lengths", self.sample, "give at least one length")
        for length in (self.sample[0], self.sample[-1]):
            errors.positive("lengths", length)
        for index, (before, after) in enumerate(pairwise(self.sample), start=1):
            # Written so that NaN, which compares with nothing, is caught too.
            if not before <= after:
                raise errors.InvalidValueError(f"lengths[{index}]", after, "give finite numbers in ascending order")
        object.__setattr__(self, "_sums", (0.0, *accumulate(self.sample)))
        object.__setattr__(self, "_squares", (0.0, *accumulate(length * length for length in self.sample)))

    @classmethod
    def of(cls, lengths: Iterable[float]) -> Self:
        """Return the distribution of measured lengths.

        Raises:
            InvalidValueError: there are none, or one is not a finite number above 0.
        """
        return cls(tuple(sorted(errors.positive(f"lengths[{index}]", length) for index, length in enumerate(lengths))))

    @classmethod
    def log_normal(cls, mu: float, sigma: float, low: float, high: float, points: int = 20_000) -> Self:
        """Return a log-normal truncated to [low, high], as `points` quantiles."""
        errors.positive("sigma", sigma)
        errors.positive("low", low)
        if high <= low:
            raise errors.InvalidValueError("high", high, f"give more than low ({low:g})")
        normal = NormalDist(errors.finite("mu", mu), sigma)
        first, last = normal.cdf(math.log(low)), normal.cdf(math.log(high))
        step = (last - first) / errors.count("points", points, minimum=1)
        return cls(tuple(math.exp(normal.inv_cdf(first + (index + 0.5) * step)) for index in range(points)))

    @property
    def mean(self) -> float:
        """E[L]."""
        return self._sums[-1] / len(self.sample)

    def above(self, threshold: float) -> float:
        """Return p = P(L > t)."""
        return 1 - bisect_right(self.sample, threshold) / len(self.sample)

    def mean_above(self, threshold: float) -> float:
        """Return l_long = E[L | L > t]; NaN when nothing is longer."""
        cut = bisect_right(self.sample, threshold)
        count = len(self.sample) - cut
        return (self._sums[-1] - self._sums[cut]) / count if count else math.nan

    def mean_up_to(self, threshold: float) -> float:
        """Return l_short = E[L | L <= t]; NaN when nothing is as short."""
        cut = bisect_right(self.sample, threshold)
        return self._sums[cut] / cut if cut else math.nan

    def quantile(self, q: float) -> float:
        """Return the q-quantile, q from 0 to 1."""
        if not 0 <= q <= 1:
            raise errors.InvalidValueError("q", q, "give a number from 0 to 1")
        return self.sample[min(len(self.sample) - 1, int(q * len(self.sample)))]

    def index(self, threshold: float) -> int:
        """Return how many lengths of the sample are at most `threshold`."""
        return bisect_right(self.sample, threshold)

    def totals(self, curve: Curve, cuts: Sequence[int], *, squared: bool = False) -> list[float]:
        """Return the sums of `curve` over the lengths between each two of the ascending indices `cuts`.

        One value fewer than there are cuts; with `squared`, sums of the curve's square. Exact: a curve is linear between
        its anchors, so sums of lengths and of their squares are all that is needed.
        """
        found: list[float] = []
        pieces = iter(curve.pieces())
        end, intercept, slope = next(pieces)
        stop = self.index(end)
        for first, last in pairwise(cuts):
            total, at = 0.0, first
            while at < last:
                while stop <= at:
                    end, intercept, slope = next(pieces)
                    stop = self.index(end)
                upto = min(stop, last)
                count, lengths = upto - at, self._sums[upto] - self._sums[at]
                if squared:
                    squares = self._squares[upto] - self._squares[at]
                    total += intercept * intercept * count + 2 * intercept * slope * lengths + slope * slope * squares
                else:
                    total += intercept * count + slope * lengths
                at = upto
            found.append(total)
        return found

    def mean_of(self, curve: Curve, *, above: float = 0.0, up_to: float = math.inf) -> float:
        """Return E[curve(L) | above < L <= up_to], exactly; NaN when no length is there."""
        first, last = self.index(above), self.index(up_to)
        return self.totals(curve, (first, last))[0] / (last - first) if last > first else math.nan

    def expectation(self, function: Callable[[float], float]) -> float:
        """Return E[f(L)]."""
        return math.fsum(map(function, self.sample)) / len(self.sample)


CASE_STUDY = Lengths.log_normal(mu=9.90, sigma=1.00, low=128, high=131_072)
"""The input lengths of the paper's case study (section 4.1)."""
