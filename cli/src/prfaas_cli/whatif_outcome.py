"""What a simulated case comes to, and how two of them compare, in numbers and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prfaas_cli.scenario import Setup
from prfaas_cli.scenario_traffic import Recorded
from prfaas_cli.whatif_variants import Variant
from prfaas_core import simulation
from prfaas_core.simulation.results import CODES, quantile

_MATTERS = 0.02
"""Relative change of a time below which nothing is claimed."""
_KEEPS_UP = 0.9
"""Part of the arriving rate that has to be answered while requests arrive, unless waits do not grow."""
_GROWS = 2.0
"""Mean wait of the last quarter of the requests over that of the first from which waits are said to grow."""


@dataclass(frozen=True, slots=True)
class Times:
    """Times to first token of `requests` requests; seconds, NaN without any."""

    requests: int
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Times:
        """Return the times of requests that got a token."""
        mean_s = math.fsum(values) / len(values) if values else math.nan
        ordered = sorted(values)
        return cls(len(values), mean_s, quantile(ordered, 0.5), quantile(ordered, 0.9), quantile(ordered, 0.99))


@dataclass(frozen=True, slots=True)
class LinkUse:
    """What crossed a link.

    Attributes:
        gigabytes: 10^9 bytes of KV that arrived.
        cost: money, by the KVLink's costPerGB.
        utilisation: of its whole capacity, from the first arrival to the last event.
    """

    name: str
    gigabytes: float
    cost: float
    utilisation: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One simulated case.

    Attributes:
        requests, failed: that arrived; those that got no token.
        arriving_rps, throughput_rps: requests a second, from the first arrival to the last: that arrived, and that got their
            first token within that time.
        grows: whether late requests wait much longer than early ones.
        ttft: of all; `sides` by where the prefill ran.
        remote_share: part of all requests whose prefill ran in another cluster.
    """

    name: str
    threshold_tokens: int
    requests: int
    failed: int
    arriving_rps: float
    throughput_rps: float
    grows: bool
    ttft: Times
    sides: tuple[tuple[str, Times], ...]
    remote_share: float
    links: tuple[LinkUse, ...]

    @property
    def keeps_up(self) -> bool:
        """Whether requests are answered as fast as they arrive."""
        return not self.grows or self.throughput_rps >= _KEEPS_UP * self.arriving_rps

    @property
    def cost(self) -> float:
        """Money for all links."""
        return sum(link.cost for link in self.links)

    @property
    def gigabytes(self) -> float:
        """10^9 bytes over all links."""
        return sum(link.gigabytes for link in self.links)

    @property
    def utilisation(self) -> float:
        """Use of the busiest link."""
        return max((link.utilisation for link in self.links), default=0.0)


def simulate(variant: Variant) -> Outcome:
    """Return what a case comes to."""
    setup, traffic = variant.case.setup, variant.case.traffic
    scenario = setup.scenario(traffic.lengths, traffic.output_tokens)
    result = simulation.simulate(scenario, traffic.arrivals)
    summary = result.summary()
    by_side: dict[int, list[float]] = {}
    for code, tokens, ttft_s in zip(result.destinations, result.tokens, result.ttft_s, strict=True):
        if not math.isnan(ttft_s):
            by_side.setdefault(code, []).append(ttft_s + setup.overhead.seconds(tokens))
    lasts_s = max(result.ended_s, 1e-9)
    span_s = max(traffic.arrivals[-1][0] - traffic.arrivals[0][0], 1e-9)
    return Outcome(
        name=variant.name,
        threshold_tokens=scenario.threshold_tokens,
        requests=summary.requests,
        failed=summary.failed,
        arriving_rps=summary.requests / span_s,
        throughput_rps=summary.throughput_rps,
        grows=_grows([value for value in result.ttft_s if not math.isnan(value)]),
        ttft=Times.of([value for values in by_side.values() for value in values]),
        sides=tuple((CODES[code].value, Times.of(values)) for code, values in sorted(by_side.items())),
        remote_share=summary.remote_share,
        links=_links(setup, result, lasts_s),
    )


def _links(setup: Setup, result: simulation.Result, lasts_s: float) -> tuple[LinkUse, ...]:
    lines = {pool.line.name: pool.line for pool in setup.remote if pool.line is not None}
    found = []
    for name, line in lines.items():
        moved_bytes = sum(result.link_bytes[pool.name] for pool in setup.remote if pool.line == line)
        gigabytes = moved_bytes / 1e9
        found.append(
            LinkUse(name, gigabytes, gigabytes * line.cost_per_gb, 8 * moved_bytes / line.capacity_bps / lasts_s)
        )
    return tuple(found)


def change(value: float, base: float) -> float:
    """Return the relative change; NaN where it means nothing."""
    return value / base - 1 if base > 0 and not math.isnan(value) else math.nan


def verdict(outcome: Outcome, base: Outcome) -> str:
    """Return one sentence on what a variant does in comparison with the baseline."""
    if outcome.failed > base.failed:
        return f"{outcome.failed} of {outcome.requests} requests get no answer ({base.failed} before)."
    if not outcome.keeps_up:
        also = ", nor does the baseline" if not base.keeps_up else ""
        return (
            f"It does not keep up{also}: {outcome.throughput_rps:.3g} of {outcome.arriving_rps:.3g} requests/s get their first "
            f"token while requests arrive; TTFT P90 {outcome.ttft.p90_s:.3g} s."
        )
    mean, p90 = change(outcome.ttft.mean_s, base.ttft.mean_s), change(outcome.ttft.p90_s, base.ttft.p90_s)
    words = [_moved("mean TTFT", mean), _moved("P90", p90)]
    better = [value < -_MATTERS for value in (mean, p90)]
    worse = [value > _MATTERS for value in (mean, p90)]
    if any(better) and not any(worse):
        judged = "Better"
    elif any(worse) and not any(better):
        judged = "Worse"
    elif any(better):
        judged = "Mixed"
    else:
        judged = "No difference that matters"
    points = 100 * (outcome.remote_share - base.remote_share)
    if abs(points) >= 1:
        words.append(f"{abs(points):.0f} points {'more' if points > 0 else 'less'} sent across")
    extra = outcome.cost - base.cost
    if abs(extra) > 0.01 * max(base.cost, 1e-12):
        words.append(f"the link costs {abs(extra):.2g} {'more' if extra > 0 else 'less'}")
    return f"{judged}: {', '.join(words)}."


def of_record(recorded: Recorded) -> Times:
    """Return the times that a log says."""
    return Times.of(recorded.ttft_s)


def _grows(ttft_s: Sequence[float]) -> bool:
    quarter = len(ttft_s) // 4
    return quarter > 0 and sum(ttft_s[-quarter:]) > _GROWS * sum(ttft_s[:quarter])


def _moved(what: str, relative: float) -> str:
    if math.isnan(relative):
        return f"{what} unknown"
    if abs(relative) <= _MATTERS:
        return f"{what} the same"
    return f"{what} {abs(relative):.0%} {'shorter' if relative < 0 else 'longer'}"
