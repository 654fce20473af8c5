"""`prfaas plan`: how many of which, what threshold, what it costs, and what binds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from prfaas_cli import plan_edits, plan_manifests, plan_report, trace
from prfaas_cli.plan_manifests import Assumptions, ManifestError
from prfaas_core import errors
from prfaas_core.lengths import Lengths
from prfaas_core.planning.fleet import Bounds
from prfaas_core.planning.plan import Goal, MaximiseRate, MinimiseCost, MinimiseTtft, Plan, ServiceLevel, plan

_OUTPUT_TOKENS = 1024.0
_FREE_UP_TO = 64


@click.command("plan")
@click.option(
    "-f",
    "paths",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Manifest file or folder; may be repeated.",
)
@click.option("--trace", "trace_path", type=click.Path(path_type=Path), default=None, help="Requests to plan for.")
@click.option("--lengths", "spec", default=None, help="Instead of a trace: log-normal:MU,SIGMA,LOW,HIGH in tokens.")
@click.option(
    "--prefix-hits/--no-prefix-hits",
    default=True,
    show_default=True,
    help="Take blocks that the trace has had before as cached.",
)
@click.option(
    "--output-tokens", type=float, default=None, help="Mean length of answers; default: the trace's, or 1024."
)
@click.option(
    "--goal",
    type=click.Choice(["throughput", "ttft", "cost"]),
    default="throughput",
    show_default=True,
    help="What is best.",
)
@click.option("--rate", type=float, default=None, help="Requests/s, for ttft and cost; default: the trace's own.")
@click.option("--slo-ttft-s", type=float, default=None, help="Default: the shortest slo.ttftSeconds of the routes.")
@click.option("--slo-quantile", type=float, default=0.9, show_default=True, help="Of the requests that keep it.")
@click.option("--no-slo", is_flag=True, help="Look for throughput or cost without a service level.")
@click.option(
    "--utilisation", type=float, default=0.9, show_default=True, help="For cost: how full the fleet may be at the rate."
)
@click.option("--price", "prices", multiple=True, metavar="ACCELERATOR=PRICE", help="Of one GPU for an hour.")
@click.option("--bounds", "bounds", multiple=True, metavar="POOL=LOW:HIGH", help="How many instances a pool may have.")
@click.option("--weight", "weights", multiple=True, metavar="ROUTE=WEIGHT", help="Its part of the requests.")
@click.option("--keep-roles", is_flag=True, help="Do not exchange instances between local prefill and decode.")
@click.option(
    "--arrival-scv", type=float, default=1.0, show_default=True, help="Burstiness: squared variation of arrival gaps."
)
@click.option(
    "-o",
    "output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="How to say it.",
)
@click.pass_obj
def plan_command(console: Console, /, **options: Any) -> None:
    """Say how many of which, what threshold, what it costs and what binds, for manifests and a trace."""
    try:
        _run(console, **options)
    except (ManifestError, trace.TraceError, errors.CoreError) as error:
        raise click.ClickException(str(error)) from error


def _run(
    console: Console,
    *,
    paths: tuple[Path, ...],
    trace_path: Path | None,
    spec: str | None,
    prefix_hits: bool,
    output_tokens: float | None,
    goal: str,
    rate: float | None,
    slo_ttft_s: float | None,
    slo_quantile: float,
    no_slo: bool,
    utilisation: float,
    prices: tuple[str, ...],
    bounds: tuple[str, ...],
    weights: tuple[str, ...],
    keep_roles: bool,
    arrival_scv: float,
    output: str,
) -> None:
    documents = plan_manifests.read(paths)
    lengths, mean_output, own_rate, notes = _workload(trace_path, spec, prefix_hits)
    assumptions = Assumptions(
        lengths=lengths,
        output_tokens=output_tokens if output_tokens is not None else mean_output,
        gpu_hour_prices=dict(_pair(text, "--price", float) for text in prices),
        bounds=dict(_pair(text, "--bounds", _bounds) for text in bounds),
        free_up_to=_FREE_UP_TO if goal == "cost" else None,
        exchange_roles=not keep_roles and goal != "cost",
        weights=dict(_pair(text, "--weight", float) for text in weights),
    )
    fleet = plan_manifests.fleet(documents, assumptions)
    for accelerator in assumptions.gpu_hour_prices:
        if accelerator not in {pool.profile.accelerator for pool in fleet.instance_pools()}:
            raise ManifestError(f"--price {accelerator}: no pool runs on it; take a name of accelerator.name")
    slo = None
    slo_s = slo_ttft_s if slo_ttft_s is not None else plan_manifests.least_slo_s(documents)
    if slo_s is not None and not no_slo and goal != "ttft":
        slo = ServiceLevel(slo_s, slo_quantile)
        notes.append(f"keeps TTFT within {slo_s:g} s for {slo_quantile:.0%} of the requests; --no-slo leaves that out")
    if goal == "cost" and not assumptions.gpu_hour_prices:
        notes.append("no --price was given, so instances are counted instead of money")
    found = plan(fleet, _goal(goal, rate if rate is not None else own_rate, utilisation, slo), arrival_scv=arrival_scv)
    _print(console, output, documents, fleet, found, tuple(notes))


def _print(
    console: Console,
    output: str,
    documents: tuple[plan_manifests.Document, ...],
    fleet: Any,
    found: Plan,
    notes: tuple[str, ...],
) -> None:
    match output:
        case "json":
            click.echo(json.dumps(plan_report.as_json(fleet, found, notes), indent=2))
        case "yaml":
            click.echo(plan_edits.mapping(plan_edits.planned(documents, found)), nl=False)
        case _:
            plan_report.print_tables(console, fleet, found, plan_manifests.now(documents), notes)


def _goal(name: str, rate: float | None, utilisation: float, slo: ServiceLevel | None) -> Goal:
    if name == "throughput":
        return MaximiseRate(slo)
    if rate is None:
        raise errors.MissingFieldError("--rate", "give the requests/s to plan for")
    return MinimiseTtft(rate) if name == "ttft" else MinimiseCost(rate, utilisation, slo)


def _workload(path: Path | None, spec: str | None, prefix_hits: bool) -> tuple[Lengths, float, float | None, list[str]]:
    """Return uncached lengths, mean answer, the rate if the workload has one, and notes on what was assumed."""
    if (path is None) == (spec is None):
        raise errors.InvalidValueError("--trace, --lengths", (path and str(path), spec), "give one of the two")
    if path is None:
        return _distribution(str(spec)), _OUTPUT_TOKENS, None, []
    requests = trace.load(path)
    lengths = _uncached(requests) if prefix_hits else Lengths.of(request.input_tokens for request in requests)
    output = sum(request.output_tokens for request in requests) / len(requests)
    lasts_s = requests[-1].arrival_s - requests[0].arrival_s
    notes = []
    if prefix_hits:
        whole = sum(request.input_tokens for request in requests) / len(requests)
        notes.append(
            f"mean prompt {whole:.0f} tokens, {lengths.mean:.0f} of them not cached if no prefix is ever evicted; "
            "--no-prefix-hits plans without a cache"
        )
    return lengths, output, (len(requests) - 1) / lasts_s if lasts_s > 0 else None, notes


def _uncached(requests: tuple[trace.TraceRequest, ...]) -> Lengths:
    """Return the lengths after the longest leading run of blocks seen before; the last token is always computed."""
    seen: set[int] = set()
    found = []
    for request in requests:
        hits = 0
        for block in request.block_ids:
            if block not in seen:
                break
            hits += 1
        seen.update(request.block_ids)
        found.append(max(1, request.input_tokens - hits * trace.BLOCK_TOKENS))
    return Lengths.of(found)


def _distribution(spec: str) -> Lengths:
    kind, _, numbers = spec.partition(":")
    remedy = "write log-normal:MU,SIGMA,LOW,HIGH, such as log-normal:9.9,1,128,131072"
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError as error:
        raise errors.InvalidValueError("--lengths", spec, remedy) from error
    if kind != "log-normal" or len(values) != 4:
        raise errors.InvalidValueError("--lengths", spec, remedy)
    mu, sigma, low, high = values
    return Lengths.log_normal(mu, sigma, low, high)


def _pair(text: str, option: str, read: Callable[[str], Any]) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        if not name or not equals:
            raise ValueError
        found = read(value)
    except errors.CoreError:
        raise
    except ValueError as error:
        raise errors.InvalidValueError(option, text, "write NAME=VALUE") from error
    if isinstance(found, float):
        errors.non_negative(f"{option} {name}", found)
    return name, found


def _bounds(text: str) -> Bounds:
    low, _, high = text.partition(":")
    return Bounds(int(low), int(high or low))
