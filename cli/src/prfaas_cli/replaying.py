"""`prfaas replay`: send a trace to a router, with a progress bar, and sum up what came of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from prfaas_cli import replay, report, trace

SLICE = Path("e2e/traces/mooncake_conversation_600.jsonl")

Command = Callable[..., Any]


def trace_options(command: Command) -> Command:
    """Add the options that choose a trace and its speed: `path`, `limit`, `speed`."""
    for option in (
        click.option("--speed", type=click.FloatRange(0, min_open=True), default=8.0, show_default=True,
                     help="Times faster than recorded."),
        click.option("--requests", "limit", type=click.IntRange(1), default=None, help="Replay only the first so many."),
        click.option("--trace", "path", type=click.Path(path_type=Path), default=SLICE, show_default=True,
                     help="Trace to replay."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("replay")
@click.option("--url", required=True, help="Base URL of a router.")
@click.option("--model", default="prfaas-1t", show_default=True, help="Model to ask for.")
@trace_options
@click.option(
    "--timeout-s", type=click.FloatRange(0, min_open=True), default=120.0, show_default=True, help="Of one request."
)
@click.pass_obj
def replay_command(
    console: Console, url: str, model: str, path: Path, limit: int | None, speed: float, timeout_s: float
) -> None:
    """Replay a request trace against a router and sum up what came of it."""
    summary = run(console, url, model, load(path, limit), speed, timeout_s)
    if summary.errors:
        sys.exit(1)


def load(path: Path, limit: int | None) -> tuple[trace.TraceRequest, ...]:
    """Return the requests of a trace; a bad one is the user's error."""
    try:
        return trace.load(path, limit)
    except trace.TraceError as error:
        raise click.ClickException(str(error)) from error


def run(
    console: Console, url: str, model: str, requests: tuple[trace.TraceRequest, ...], speed: float, timeout_s: float
) -> report.ReplaySummary:
    """Replay with a progress bar, print the summary and return it."""
    columns = (
        TextColumn("replay"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[errors]} errors"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("replay", total=len(requests), errors=0)
        errors = 0

        def seen(outcome: replay.Outcome) -> None:
            nonlocal errors
            errors += bool(outcome.error)
            progress.update(task, advance=1, errors=errors)

        outcomes = asyncio.run(replay.replay(requests, url, model, speed, timeout_s, seen))
    summary = report.summarise(outcomes)
    report.print_summary(console, summary)
    return summary
