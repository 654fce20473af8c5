"""Sum up a replay and print it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prfaas_cli.observation import Observation
from prfaas_cli.replay import Outcome
from prfaas_core.simulation.results import quantile


@dataclass(frozen=True, slots=True)
class SideSummary:
    """TTFT of the requests whose prefill ran on one side; seconds of the replay."""

    destination: str
    requests: int
    share: float
    ttft_mean_s: float
    ttft_p90_s: float


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """A replay in numbers.

    Attributes:
        requests, errors: how many were sent and how many of them failed.
        lost: requests without any answer, clear error or not; 0 is the promise.
        remote_share: part of the answered requests whose prefill ran in another cluster.
        hit_rate: cached prompt tokens over prompt tokens, as the workers counted them.
        sides: by destination, most requests first.
        reasons: how many requests each reason has; they add up to `requests`, "no answer" included.
    """

    requests: int
    errors: int
    lost: int
    remote_share: float
    hit_rate: float
    duration_s: float
    sides: tuple[SideSummary, ...]
    reasons: tuple[tuple[str, int], ...]
    first_errors: tuple[str, ...]


def summarise(outcomes: Sequence[Outcome]) -> ReplaySummary:
    """Return the summary of the outcomes of a replay."""
    answered = [outcome for outcome in outcomes if not outcome.error]
    failed = [outcome for outcome in outcomes if outcome.error]
    by_side: dict[str, list[Outcome]] = {}
    for outcome in answered:
        by_side.setdefault(outcome.destination or "unknown", []).append(outcome)
    sides = tuple(
        SideSummary(
            destination=destination,
            requests=len(group),
            share=len(group) / len(outcomes),
            ttft_mean_s=sum(ttfts) / len(ttfts) if ttfts else math.nan,
            ttft_p90_s=quantile(ttfts, 0.9),
        )
        for destination, group in sorted(by_side.items(), key=lambda item: (-len(item[1]), item[0]))
        for ttfts in [sorted(outcome.ttft_s for outcome in group if outcome.ttft_s is not None)]
    )
    prompt_tokens = sum(outcome.prompt_tokens for outcome in answered)
    reasons = Counter(outcome.reason or "no answer" for outcome in outcomes)
    return ReplaySummary(
        requests=len(outcomes),
        errors=len(failed),
        lost=sum(outcome.status == 0 for outcome in failed),
        remote_share=len(by_side.get("remote_prefill", ())) / len(answered) if answered else 0.0,
        hit_rate=sum(outcome.cached_tokens for outcome in answered) / prompt_tokens if prompt_tokens else 0.0,
        duration_s=max((outcome.sent_s + outcome.total_s for outcome in outcomes), default=0.0),
        sides=sides,
        reasons=tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        first_errors=tuple(outcome.error for outcome in failed[:3]),
    )


def print_summary(console: Console, summary: ReplaySummary) -> None:
    """Print the summary."""
    console.print(
        f"[bold]{summary.requests}[/] requests in {summary.duration_s:.1f} s, "
        f"[bold]{summary.errors}[/] errors, [bold]{summary.lost}[/] lost, "
        f"[bold]{summary.remote_share:.1%}[/] prefilled across, prefix hit rate [bold]{summary.hit_rate:.1%}[/]",
        soft_wrap=True,
    )
    sides = Table("prefill", "requests", "share", "TTFT mean", "TTFT P90")
    for side in summary.sides:
        sides.add_row(
            side.destination,
            str(side.requests),
            f"{side.share:.1%}",
            f"{side.ttft_mean_s:.3f} s",
            f"{side.ttft_p90_s:.3f} s",
        )
    console.print(sides)
    reasons = Table("why", "requests")
    for reason, count in summary.reasons:
        reasons.add_row(reason, str(count))
    reasons.add_section()
    reasons.add_row("sum", str(sum(count for _, count in summary.reasons)))
    console.print(reasons)
    for error in summary.first_errors:
        console.print(f"[red]error:[/] {escape(error)}", highlight=False)


def print_observation(console: Console, seen: Observation) -> None:
    """Print the use of the link, and the workers of each pool over time."""
    if seen.link is None:
        console.print("link: no numbers, because nothing measures it here", soft_wrap=True)
    else:
        console.print(
            f"link: mean [bold]{seen.link.mean / 1e9:.3f}[/], peak [bold]{seen.link.peak / 1e9:.3f}[/] of "
            f"{seen.link_capacity_bps / 1e9:.3f} Gbit/s",
            soft_wrap=True,
        )
    workers = Table("pool", "workers over time")
    for pool in seen.pools:
        workers.add_row(
            pool.name, ", ".join(f"{value:.0f} at {max(at_s, 0.0):.0f} s" for at_s, value in pool.changes())
        )
    console.print(workers)
