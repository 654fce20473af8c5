"""`prfaas whatif`: what recorded traffic would have seen with another threshold, link, pool or policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from prfaas_cli import plan_manifests, scenario, scenario_traffic, trace, whatif_outcome, whatif_report, whatif_variants
from prfaas_cli.plan_manifests import ManifestError
from prfaas_cli.scenario import Overhead, Setup
from prfaas_cli.scenario_traffic import Traffic
from prfaas_cli.whatif_variants import Case, Change, Variant
from prfaas_core import errors

_CHANGES: dict[str, Callable[[str], Change]] = {
    "threshold": whatif_variants.threshold,
    "link": whatif_variants.link,
    "replicas": whatif_variants.replicas,
    "add_pool": whatif_variants.add_pool,
    "policy": whatif_variants.policy,
    "mode": whatif_variants.mode,
    "speed": whatif_variants.speed,
}


@click.command("whatif")
@click.option(
    "-f",
    "paths",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Manifest file or folder; may be repeated.",
)
@click.option("--route", default=None, help="The InferenceRoute, when the manifests hold several.")
@click.option(
    "--trace", "trace_path", type=click.Path(path_type=Path), default=None, help="Recorded requests, a trace."
)
@click.option(
    "--log", "log_paths", type=click.Path(path_type=Path), multiple=True,
    help="Recorded requests, a router's JSON log; once for each router.",
)  # fmt: skip
@click.option("--requests", "limit", type=click.IntRange(1), default=None, help="Only the first so many.")
@click.option(
    "--base-speed", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
    help="Times faster than recorded, everywhere.",
)  # fmt: skip
@click.option(
    "--workers", multiple=True, metavar="POOL=N", help="Workers of a pool everywhere, in place of its manifest's."
)
@click.option(
    "--overhead", metavar="S[,S[,S]]", default="0", show_default=True,
    help="Seconds of TTFT that are no queue, prefill or transfer: of a request, of each prompt token, of a crossing.",
)  # fmt: skip
@click.option("--threshold", multiple=True, metavar="TOKENS|Auto", help="What if it were so?")
@click.option("--link", multiple=True, metavar="NAME=GBPS", help="What if this KVLink carried so much?")
@click.option("--replicas", multiple=True, metavar="POOL=N", help="What if this pool had so many workers?")
@click.option(
    "--add-pool", multiple=True, metavar="NAME=LIKE", help="What if there were one more remote pool like this?"
)
@click.option("--policy", multiple=True, metavar="|".join(whatif_variants.POLICIES), help="What if it decided?")
@click.option("--mode", multiple=True, metavar="|".join(whatif_variants.MODES), help="What if the route had it?")
@click.option("--speed", multiple=True, metavar="TIMES", help="What if requests came so many times faster?")
@click.option("--together", is_flag=True, help="And what if all of it at once?")
@click.option(
    "-o", "output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to say it."
)
@click.pass_obj
def whatif_command(console: Console, /, **options: Any) -> None:
    """Say what recorded traffic would have seen with another threshold, link, pool, policy or load."""
    try:
        _run(console, **options)
    except (ManifestError, trace.TraceError, errors.CoreError) as error:
        raise click.ClickException(str(error)) from error


def _run(
    console: Console,
    *,
    paths: tuple[Path, ...],
    route: str | None,
    trace_path: Path | None,
    log_paths: tuple[Path, ...],
    limit: int | None,
    base_speed: float,
    workers: tuple[str, ...],
    overhead: str,
    together: bool,
    output: str,
    **asked: tuple[str, ...],
) -> None:
    changes = [make(text) for option, make in _CHANGES.items() for text in asked[option]]
    setup = scenario.read(
        plan_manifests.read(paths),
        route=route,
        workers=dict(whatif_variants.pool_workers("--workers", text) for text in workers),
        overhead=_overhead(overhead),
    )
    traffic = _traffic(setup, trace_path, log_paths, limit)
    base = Variant("baseline", Case(setup, traffic.faster(base_speed)))
    asked_for = [base, *whatif_variants.variants(base.case, changes, together=together)]
    outcomes = [whatif_outcome.simulate(variant) for variant in asked_for]
    notes = [*setup.notes, *traffic.notes]
    if output == "json":
        click.echo(json.dumps(whatif_report.as_json(outcomes, traffic.recorded, notes), indent=2))
    else:
        whatif_report.print_tables(console, outcomes, traffic.recorded, notes)


def _traffic(setup: Setup, trace_path: Path | None, log_paths: tuple[Path, ...], limit: int | None) -> Traffic:
    if (trace_path is None) == (not log_paths):
        given = (trace_path and str(trace_path), *map(str, log_paths))
        raise errors.InvalidValueError("--trace, --log", given, "give one of the two")
    if trace_path is not None:
        return scenario_traffic.of_trace(trace.load(trace_path, limit), setup.block_tokens)
    return scenario_traffic.of_log(log_paths, f"{setup.namespace}/{setup.route}", setup.block_tokens, limit)


def _overhead(text: str) -> Overhead:
    try:
        values = [float(part) for part in text.split(",")]
        return Overhead(*values)
    except (ValueError, TypeError) as error:
        raise errors.InvalidValueError("--overhead", text, "give one to three times in seconds, 0 or more") from error
