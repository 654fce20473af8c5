"""What a run shows: one row for each request, and totals."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from prfaas_core import errors
from prfaas_core.routing import Destination, Reason

CODES = (Destination.DECODE, Destination.LOCAL_PREFILL, Destination.REMOTE_PREFILL)
"""Destinations by the code that `Result.destinations` holds: where the prefill finally ran."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers that runs are compared by; seconds unless the name says otherwise.

    Attributes:
        throughput_rps: requests that were served, over the time from the first counted arrival to the last; first tokens within that span.
        goodput_rps: of those, the ones within the TTFT and ITL objectives.
        itl_mean_s, itl_p99_s: of the requests' mean time between tokens.
    """

    requests: int
    finished: int
    failed: int
    throughput_rps: float
    goodput_rps: float
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    itl_mean_s: float
    itl_p99_s: float
    remote_share: float
    decode_share: float
    link_gb: float
    link_cost: float


@dataclass(slots=True)
class Result:
    """One run.

    Attributes:
        arrived_s, ttft_s, itl_s: by request in order of arrival; NaN in `ttft_s` for one that got no token, in `itl_s`
            also for one of a single token. `itl_s` is the request's mean time between tokens.
        tokens: prompt lengths.
        destinations: indices into `CODES`.
        reasons: how often each was given, by the router's last word on a request.
        ended_s: when the last event was.
        link_bytes: by remote pool, of transfers that ended; `links_taken_bytes` of those that began and were not given up.
        history: changes as `(at_s, what, value)`: thresholds; workers, those that serve; replicas, those that are asked for.
        replica_s: by pool that is scaled, the time that its workers were there, starting and draining included.
    """

    arrived_s: array[float]
    ttft_s: array[float]
    itl_s: array[float]
    tokens: array[int]
    destinations: array[int]
    finished: int
    failed: int
    ended_s: float
    reasons: Mapping[Reason, int]
    link_bytes: Mapping[str, float]
    link_taken_bytes: Mapping[str, float]
    link_cost: float
    history: Sequence[tuple[float, str, float]]
    replica_s: Mapping[str, float] = field(default_factory=dict)

    def sizes(self, pool: str) -> tuple[tuple[float, int], ...]:
        """Return the replicas that were asked for of a pool that is scaled, as `(at_s, replicas)`; the first is that of the
        beginning."""
        return tuple((at_s, int(value)) for at_s, what, value in self.history if what == f"replicas {pool}")

    def summary(
        self,
        *,
        from_s: float = 0.0,
        to_s: float = math.inf,
        slo_ttft_s: float = math.inf,
        slo_itl_s: float = math.inf,
    ) -> Summary:
        """Return the numbers of the requests that arrived in `[from_s, to_s)`; the rest is warm-up or tail.

        Raises:
            InvalidValueError: no request arrived then.
        """
        chosen = [index for index, at_s in enumerate(self.arrived_s) if from_s <= at_s < to_s]
        if not chosen:
            raise errors.InvalidValueError("from_s, to_s", (from_s, to_s), "give a time in which requests arrived")
        served = [index for index in chosen if not math.isnan(self.ttft_s[index])]
        ttft = sorted(self.ttft_s[index] for index in served)
        itl = sorted(value for index in served if not math.isnan(value := self.itl_s[index]))
        span_s = max(1e-9, self.arrived_s[chosen[-1]] - self.arrived_s[chosen[0]])
        good = sum(
            1
            for index in served
            if self.ttft_s[index] <= slo_ttft_s and (math.isnan(self.itl_s[index]) or self.itl_s[index] <= slo_itl_s)
        )
        # Requests that got their first token within the span: what a queue that grows without end keeps back is missing.
        end_s = self.arrived_s[chosen[-1]]
        through = sum(1 for index in served if self.arrived_s[index] + self.ttft_s[index] <= end_s)
        return Summary(
            requests=len(chosen),
            finished=len(served),
            failed=len(chosen) - len(served),
            throughput_rps=through / span_s,
            goodput_rps=good / span_s,
            ttft_mean_s=math.fsum(ttft) / len(ttft) if ttft else math.nan,
            ttft_p50_s=quantile(ttft, 0.5),
            ttft_p90_s=quantile(ttft, 0.9),
            ttft_p99_s=quantile(ttft, 0.99),
            itl_mean_s=math.fsum(itl) / len(itl) if itl else math.nan,
            itl_p99_s=quantile(itl, 0.99),
            remote_share=sum(1 for index in chosen if self.destinations[index] == 2) / len(chosen),
            decode_share=sum(1 for index in chosen if self.destinations[index] == 0) / len(chosen),
            link_gb=sum(self.link_bytes.values()) / 1e9,
            link_cost=self.link_cost,
        )


def turns_s(sizes: Iterable[tuple[float, int]]) -> tuple[float, ...]:
    """Return when a size that had grown shrank, or the other way round, of sizes as `(at_s, replicas)` in order of time."""
    found: list[float] = []
    grew: bool | None = None
    for (_, before), (at_s, after) in pairwise(sizes):
        if after != before:
            if grew is not None and grew != (after > before):
                found.append(at_s)
            grew = after > before
    return tuple(found)


def most_within(times_s: Sequence[float], span_s: float) -> int:
    """Return how many of the times, in order, lie at most within any `span_s` seconds."""
    return max((bisect_left(times_s, at_s + span_s) - index for index, at_s in enumerate(times_s)), default=0)


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the q-quantile of values in ascending order, the nearest rank; NaN without values."""
    if not 0 <= q <= 1:
        raise errors.InvalidValueError("q", q, "give a number from 0 to 1")
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else math.nan
