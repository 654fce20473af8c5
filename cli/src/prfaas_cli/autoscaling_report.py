"""Say what autoscalers decided: a table for people, JSON for programs."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prfaas_cli.autoscaling_replay import Look, Outcome
from prfaas_core.autoscaling import Reading, TargetType

_DATED_S = 1e9


def clock(at_s: float) -> str:
    """Return a time for people: a date if it is one, else hours since the beginning."""
    if at_s >= _DATED_S:
        return datetime.datetime.fromtimestamp(at_s, datetime.UTC).strftime("%m-%d %H:%M:%S")
    minutes, seconds = divmod(round(at_s), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def print_tables(console: Console, outcomes: Sequence[Outcome], notes: Sequence[str], limit: int) -> None:
    """Print the first `limit` decisions that changed something, what the others were, and the comparison."""
    for outcome in outcomes:
        changes = outcome.changes
        table = _table(f"{outcome.name}: {len(changes)} changes", "time", "replicas", "why", "wanted", "signals")
        for look in changes[:limit]:
            table.add_row(
                clock(look.at_s),
                f"{look.before} -> {look.replicas}",
                escape(_why(look)),
                "" if look.wanted is None else str(look.wanted),
                escape("  ".join(_seen(reading) for reading in look.readings)),
            )
        if len(changes) > limit:
            table.add_row("...", f"{len(changes) - limit} more", "-o json has all", "", "")
        console.print(table)
        held = Counter(look.reason for look in outcome.looks if look.replicas == look.before and look.reason)
        if held:
            console.print(f"held: {', '.join(f'{reason} {count}' for reason, count in held.most_common())}\n")
    table = _table("", "", "replica hours", "changes", "turns", "turns in an hour, at most", "requests", "TTFT missed")
    for outcome in outcomes:
        requests = outcome.requests
        table.add_row(
            outcome.name,
            f"{outcome.replica_s / 3600:.1f}",
            str(len(outcome.changes)),
            str(len(outcome.turns_s)),
            str(outcome.most_turns_an_hour),
            "" if requests is None else str(requests.count),
            "" if requests is None else f"{requests.missed} ({requests.missed / max(1, requests.count):.2%})",
        )
    console.print(table)
    for note in notes:
        console.print(f"- {escape(note)}", highlight=False)


def as_json(outcomes: Sequence[Outcome], notes: Sequence[str]) -> dict[str, Any]:
    """Return the outcomes as JSON values; what is not known is null."""
    return {"outcomes": [_outcome(outcome) for outcome in outcomes], "notes": list(notes)}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    requests = outcome.requests
    return {
        "name": outcome.name,
        "replicaHours": outcome.replica_s / 3600,
        "turns": len(outcome.turns_s),
        "mostTurnsAnHour": outcome.most_turns_an_hour,
        "requests": None if requests is None else {"count": requests.count, "missedTtft": requests.missed},
        "looks": len(outcome.looks),
        "held": dict(Counter(look.reason for look in outcome.looks if look.replicas == look.before)),
        "decisions": [
            {
                "time": look.at_s,
                "fromReplicas": look.before,
                "toReplicas": look.replicas,
                "readyReplicas": look.ready,
                "wantedReplicas": look.wanted,
                "reason": look.reason or None,
                "message": look.message,
                "signals": [
                    {"name": reading.name, "value": _finite(reading.value), "target": reading.target}
                    for reading in look.readings
                ],
            }
            for look in outcome.changes
        ],
    }


def _why(look: Look) -> str:
    return f"{look.reason}: {look.message}" if look.message else look.reason or "the formula"


def _seen(reading: Reading) -> str:
    guard = " (guard)" if reading.guard else ""
    if reading.value is None:
        return f"{reading.name}{guard}: {reading.fault or 'no value'}"
    each = " a worker" if reading.target_type is TargetType.AVERAGE_VALUE else ""
    return f"{reading.name}{guard} {reading.value:.4g} / {reading.target:g}{each}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
