"""What a built-in signal is made of, whatever the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from prfaas_core.autoscaling import SignalName
from prfaas_core.profiles import Curve, Profile

_MOST_S = 600.0
"""No time that a signal measures is longer. A time in milliseconds or microseconds soon is."""
_TIMES_CAPACITY = 8
"""How far beyond its profile a worker is believed to work: profiles are coarse, and units are wrong by 100 or more."""
_LEAST_TOKEN_GAP_S, _TIMES_STEP = 10.0, 100
_PATIENCE = 10
"""A backlog is to be gone within so many windows; beyond that it is no reason for more workers."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """One signal of one pool over one window.

    Attributes:
        value: PromQL with one number, or none where it cannot be known.
        reporting: selectors of series, of which every pod that reports the signal has one at least.
        gauges: selectors of series that are negative only by a fault.
        bounded: PromQL of the number that the signal's limit is for; None: the value itself.
    """

    value: str
    reporting: tuple[str, ...]
    gauges: tuple[str, ...] = ()
    bounded: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """Beyond what a number is not believed.

    Attributes:
        of: returns it for the profile of the workers.
        unit: for people.
        per_worker: it is for each worker that reports.
    """

    of: Callable[[Profile], float]
    unit: str
    per_worker: bool = False


Build = Callable[["Asking"], BuiltIn]
Gauge = Callable[..., str]
"""Returns the PromQL of a gauge, by its name and labels, at some time: `last`, `before` or `mean` of what is asked."""


@dataclass(frozen=True, slots=True)
class Change:
    """PromQL of a number now, and of what it was a window ago, 0 if it was not there."""

    now: str
    before: str


@dataclass(frozen=True, slots=True)
class Asking:
    """What a signal's PromQL depends on beside its name.

    Attributes:
        select: returns the selector of the pool's series, with further labels.
        window_s: the time that is averaged over.
        quantile: of latencies.
        profile: of the workers.
    """

    select: Callable[..., str]
    window_s: int
    quantile: float
    profile: Profile

    def rate(self, metric: str, **labels: str) -> str:
        """Return the PromQL of a counter's rate, series by series."""
        return f"rate({metric}{self.select(**labels)}[{self.window_s}s])"

    def mean(self, metric: str, **labels: str) -> str:
        """Return the PromQL of a gauge's mean over the window, series by series."""
        return f"avg_over_time({metric}{self.select(**labels)}[{self.window_s}s])"

    def last(self, metric: str, **labels: str) -> str:
        """Return the PromQL of a gauge's newest value within the window, series by series."""
        return f"last_over_time({metric}{self.select(**labels)}[{self.window_s}s])"

    def before(self, metric: str, **labels: str) -> str:
        """Return the PromQL of a gauge's newest value within the window before, series by series."""
        return f"last_over_time({metric}{self.select(**labels)}[{self.window_s}s] offset {self.window_s}s)"


def load(tokens: str, requests: str, in_hand: Change, asking: Asking) -> str:
    """Return the PromQL of prefill work, in workers: requests that come in a second * T_prefill(mean tokens).

    It is absent while requests are in hand and none has ended within the window: then their length is not known.

    Args:
        tokens, requests: PromQL of one number each: prompt tokens computed a second, requests ended a second.
        in_hand: requests that wait or run.
    """
    mean = f"{tokens} / ({requests} != 0)"
    coming = at_least(arrivals(requests, in_hand, asking), f"{in_hand.now} / {_PATIENCE * asking.window_s}")
    return f"({coming}) * ({seconds(asking.profile.prefill_s, mean)}) or ({requests} + {in_hand.now} == 0)"


def steady(in_hand: str, requests: str, held: str, change: Change, asking: Asking) -> str:
    """Return the PromQL of the requests that a pool holds at once in the long run: those that come, times how long each is held.

    Those in hand are an upper limit: where a backlog is worked off there are more. Where none has ended, they are all there is.

    Args:
        in_hand: PromQL of the mean number of requests in hand.
        requests, held: PromQL of the requests ended a second, and of the seconds that they were held, a second.
        change: requests in hand.
    """
    long_run = f"({arrivals(requests, change, asking)}) * ({held} / ({requests} != 0))"
    known = f"{at_least(long_run, f'{in_hand} / {_PATIENCE}')} < {in_hand} and ({requests} != 0)"
    return f"({known}) or {in_hand}"


def arrivals(requests: str, in_hand: Change, asking: Asking) -> str:
    """Return the PromQL of the requests that come in a second: those that ended, and those that there are more in hand.

    What waits since before is not counted again at every look. It is worked off by what is above the target; a queue that
    grew while workers start would order more of them than the load needs.
    """
    return f"{requests} + ({in_hand.now} - {in_hand.before}) / {asking.window_s}"


def change(now: Iterable[str], before: Iterable[str]) -> Change:
    """Return the sum of numbers now, and a window ago."""
    return Change(f"({' + '.join(now)})", f"({' + '.join(before)} or vector(0))")


def at_least(number: str, floor: str) -> str:
    """Return the PromQL of the larger of two numbers."""
    return f"({number} > {floor} or {floor})"


def mean_of(total: str, count: str, waiting: str, running: str) -> str:
    """Return the PromQL of a mean; 0 with nothing in hand, absent while something is and nothing was counted."""
    return f"{total} / ({count} != 0) or {_idle(count, waiting, running)}"


def quantile_of(buckets: str, count: str, waiting: str, running: str, quantile: float) -> str:
    """Return the PromQL of a quantile; 0 with nothing in hand, absent while something is and nothing was counted."""
    found = f"histogram_quantile({quantile:g}, sum by (le) ({buckets}))"
    return f"({found} and {count} != 0) or {_idle(count, waiting, running)}"


def seconds(curve: Curve, tokens: str) -> str:
    """Return the PromQL of a curve at a length, exact: its first value, and the rise of every piece up to that length."""
    (start, first_s, _), *pieces = curve.pieces()
    rises = []
    for end, _, slope in pieces:
        beyond = f"{tokens} - {start:.9g}"
        # The last piece goes on for ever.
        part = f"clamp_min({beyond}, 0)" if math.isinf(end) else f"clamp({beyond}, 0, {end - start:.9g})"
        rises.append(f"{slope:.9g} * {part}")
        start = end
    return " + ".join((f"{first_s:.9g}", *rises))


def _most_prefill_tps(profile: Profile) -> float:
    curve = profile.prefill_s
    return _TIMES_CAPACITY * max(tokens / value for tokens, value in zip(curve.tokens, curve.values, strict=True))


def _most_requests(profile: Profile) -> float:
    return float(_TIMES_CAPACITY * profile.decode_slots)


def _most_output_tps(profile: Profile) -> float:
    return _TIMES_CAPACITY * profile.decode_slots / profile.step_s


def _most_token_gap_s(profile: Profile) -> float:
    return max(_LEAST_TOKEN_GAP_S, _TIMES_STEP * profile.step_s)


_SECONDS: Final = Limit(lambda _: _MOST_S, "s")
LIMITS: Final = {
    SignalName.PREFILL_LOAD: Limit(_most_prefill_tps, "prompt tokens/s a worker", per_worker=True),
    SignalName.PREFILL_QUEUE_WAIT: _SECONDS,
    SignalName.TIME_TO_FIRST_TOKEN: _SECONDS,
    SignalName.DECODE_REQUESTS: Limit(_most_requests, "requests that a worker runs", per_worker=True),
    SignalName.KV_CACHE_USE: Limit(lambda _: 1.01, "of 1"),
    SignalName.INTER_TOKEN_LATENCY: Limit(_most_token_gap_s, "s"),
    SignalName.GENERATION_TOKENS: Limit(_most_output_tps, "tokens/s a worker", per_worker=True),
}
"""What each signal, or the number that it is made of, is at most, whatever the engine."""


def _idle(count: str, waiting: str, running: str) -> str:
    """Return the PromQL of 0 while nothing is in hand, and of nothing otherwise."""
    return f"{count} + {waiting} + {running} == 0"
