"""Say what variants do: tables for people, JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prfaas_cli import whatif_outcome
from prfaas_cli.scenario_traffic import Recorded
from prfaas_cli.whatif_outcome import Outcome, Times


def as_json(outcomes: Sequence[Outcome], recorded: Recorded | None, notes: Sequence[str]) -> dict[str, Any]:
    """Return the outcomes as JSON values, the baseline first; what is not known is null."""
    base, *others = outcomes
    return {
        "recorded": None
        if recorded is None
        else {"ttftSeconds": _times(whatif_outcome.of_record(recorded)), "remoteShare": recorded.remote_share},
        "baseline": _outcome(base),
        "variants": [
            {
                **_outcome(other),
                "change": {
                    "throughput": _finite(whatif_outcome.change(other.throughput_rps, base.throughput_rps)),
                    "ttftMean": _finite(whatif_outcome.change(other.ttft.mean_s, base.ttft.mean_s)),
                    "ttftP50": _finite(whatif_outcome.change(other.ttft.p50_s, base.ttft.p50_s)),
                    "ttftP90": _finite(whatif_outcome.change(other.ttft.p90_s, base.ttft.p90_s)),
                    "ttftP99": _finite(whatif_outcome.change(other.ttft.p99_s, base.ttft.p99_s)),
                    "remoteSharePoints": 100 * (other.remote_share - base.remote_share),
                    "linkGigabytes": other.gigabytes - base.gigabytes,
                    "linkCost": other.cost - base.cost,
                },
                "verdict": whatif_outcome.verdict(other, base),
            }
            for other in others
        ],
        "notes": list(notes),
    }


def print_tables(
    console: Console, outcomes: Sequence[Outcome], recorded: Recorded | None, notes: Sequence[str]
) -> None:
    """Print the comparison, times by side, verdicts and notes. The first outcome is the baseline."""
    base, *others = outcomes
    table = _table(f"TTFT of {base.requests} requests, seconds", "", "mean", "P50", "P90", "P99")
    if recorded is not None:
        table.add_row("as recorded", *_compared(whatif_outcome.of_record(recorded), None))
    for outcome in outcomes:
        table.add_row(escape(outcome.name), *_compared(outcome.ttft, None if outcome is base else base.ttft))
    console.print(table)
    table = _table("Load and links", "", "threshold", "req/s", "across", "GB", "money", "used")
    if recorded is not None:
        table.add_row("as recorded", "", "", f"{recorded.remote_share:.1%}", "", "", "")
    for outcome in outcomes:
        table.add_row(*_load(outcome, None if outcome is base else base))
    console.print(table)
    sides = _table("TTFT by where the prefill ran, seconds", "", "prefill", "requests", "mean", "P50", "P90", "P99")
    for outcome in outcomes:
        for index, (side, times) in enumerate(outcome.sides):
            name = "" if index else escape(outcome.name)
            sides.add_row(name, side, str(times.requests), *_compared(times, None))
    console.print(sides)
    for other in others:
        console.print(f"[bold]{escape(other.name)}[/]: {escape(whatif_outcome.verdict(other, base))}", soft_wrap=True)
    for note in notes:
        console.print(f"note: {note}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _table(title: str, name: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(name, overflow="fold", min_width=12)
    for column in columns:
        table.add_column(column, justify="left" if column == "prefill" else "right", no_wrap=True)
    return table


def _compared(times: Times, base: Times | None) -> list[str]:
    values = (times.mean_s, times.p50_s, times.p90_s, times.p99_s)
    if base is None:
        return [f"{value:.3f}" for value in values]
    before = (base.mean_s, base.p50_s, base.p90_s, base.p99_s)
    return [f"{value:.3f}{_percent(value, old)}" for value, old in zip(values, before, strict=True)]


def _load(outcome: Outcome, base: Outcome | None) -> list[str]:
    rate = across = gigabytes = ""
    if base is not None:
        rate = _percent(outcome.throughput_rps, base.throughput_rps)
        across = f" {100 * (outcome.remote_share - base.remote_share):+.0f}"
        gigabytes = _percent(outcome.gigabytes, base.gigabytes)
    return [
        escape(outcome.name),
        str(outcome.threshold_tokens),
        f"{outcome.throughput_rps:.3g}{rate}",
        f"{outcome.remote_share:.0%}{across}",
        f"{outcome.gigabytes:.3g}{gigabytes}",
        f"{outcome.cost:.2g}",
        f"{outcome.utilisation:.1%}",
    ]


def _percent(value: float, base: float) -> str:
    relative = whatif_outcome.change(value, base)
    return "" if math.isnan(relative) else f" {relative:+.0%}"


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "thresholdTokens": outcome.threshold_tokens,
        "requests": outcome.requests,
        "failed": outcome.failed,
        "arrivingRps": outcome.arriving_rps,
        "throughputRps": outcome.throughput_rps,
        "ttftSeconds": _times(outcome.ttft),
        "sides": [{"prefill": side, "requests": times.requests, **_times(times)} for side, times in outcome.sides],
        "remoteShare": outcome.remote_share,
        "links": [
            {
                "name": link.name,
                "gigabytes": link.gigabytes,
                "cost": link.cost,
                "utilisation": link.utilisation,
            }
            for link in outcome.links
        ],
    }


def _times(times: Times) -> dict[str, float | None]:
    return {
        "mean": _finite(times.mean_s),
        "p50": _finite(times.p50_s),
        "p90": _finite(times.p90_s),
        "p99": _finite(times.p99_s),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
