"""The `prfaas` command."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from prfaas_cli import demonstration, replay, report, trace

console = Console()

SLICE = Path("e2e/traces/mooncake_conversation_600.jsonl")
PROFILES = Path("e2e/manifests/10-profiles.yaml")


@click.group()
@click.version_option(package_name="prfaas")
def cli() -> None:
    """Prefill as a service: long prefills in another cluster."""


def _existing(path: Path, what: str) -> Path:
    if not path.exists():
        raise click.ClickException(
            f"{what} {path} does not exist; run this from a clone of the repository or give the path"
        )
    return path


@cli.command("replay")
@click.option("--url", required=True, help="Base URL of a router.")
@click.option("--model", default="prfaas-1t", show_default=True, help="Model to ask for.")
@click.option(
    "--trace", "path", type=click.Path(path_type=Path), default=SLICE, show_default=True, help="Trace to replay."
)
@click.option("--requests", "limit", type=click.IntRange(1), default=None, help="Replay only the first so many.")
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    default=8.0,
    show_default=True,
    help="Times faster than recorded.",
)
@click.option(
    "--timeout-s", type=click.FloatRange(0, min_open=True), default=120.0, show_default=True, help="Of one request."
)
def replay_command(url: str, model: str, path: Path, limit: int | None, speed: float, timeout_s: float) -> None:
    """Replay a request trace against a router and sum up what came of it."""
    _replay(url, model, _load(path, limit), speed, timeout_s)


@cli.command("demo")
@click.option(
    "--trace", "path", type=click.Path(path_type=Path), default=SLICE, show_default=True, help="Trace to replay."
)
@click.option(
    "--profiles", type=click.Path(path_type=Path), default=PROFILES, show_default=True, help="ModelProfiles to run."
)
@click.option("--requests", "limit", type=click.IntRange(1), default=None, help="Replay only the first so many.")
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    default=8.0,
    show_default=True,
    help="Times faster than recorded.",
)
def demo_command(path: Path, profiles: Path, limit: int | None, speed: float) -> None:
    """Replay a trace through a router and simulated workers, started as processes on loopback without Kubernetes."""
    requests = _load(path, limit)
    try:
        with demonstration.running(_existing(profiles, "the profiles"), requests, speed) as demo:
            console.print(
                f"router on {demo.url}: {demo.remote} remote prefill, {demo.local} local prefill, {demo.decode} decode workers; "
                f"threshold [bold]{demo.threshold_tokens}[/] tokens ({demo.why})"
            )
            _replay(demo.url, demo.model, requests, speed, 120.0)
    except demonstration.DemonstrationError as error:
        raise click.ClickException(str(error)) from error


def _load(path: Path, limit: int | None) -> tuple[trace.TraceRequest, ...]:
    try:
        return trace.load(path, limit)
    except trace.TraceError as error:
        raise click.ClickException(str(error)) from error


def _replay(url: str, model: str, requests: tuple[trace.TraceRequest, ...], speed: float, timeout_s: float) -> None:
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
    report.print_summary(console, summary, speed)
    if summary.errors:
        sys.exit(1)


def main() -> None:
    """Run the command."""
    cli()
