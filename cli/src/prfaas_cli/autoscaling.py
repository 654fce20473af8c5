"""`prfaas autoscale replay`: what a pool's `scaling` makes of a recorded or synthetic series."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from prfaas_cli import (
    autoscaling_figure,
    autoscaling_pool,
    autoscaling_replay,
    autoscaling_report,
    autoscaling_series,
    plan_manifests,
)
from prfaas_cli.autoscaling_pool import ScaledPool
from prfaas_cli.autoscaling_replay import Load, Outcome
from prfaas_cli.autoscaling_series import DEMAND, PANIC, READY, Series, SeriesError
from prfaas_cli.plan_manifests import ManifestError
from prfaas_core import errors

_SLO_TTFT_S = 10.0


@click.group("autoscale")
def autoscale_command() -> None:
    """Try the autoscaler without a cluster."""


@autoscale_command.command("replay")
@click.option(
    "-f", "paths", type=click.Path(path_type=Path), multiple=True, required=True,
    help="Manifest file or folder; may be repeated.",
)  # fmt: skip
@click.option("--pool", "name", default=None, help="PrefillPool or DecodePool with scaling, when there are several.")
@click.option(
    "--csv", "csv_path", type=click.Path(path_type=Path), default=None,
    help="Recorded signals: a column time, and one for each signal by its name in the pool's status.",
)  # fmt: skip
@click.option(
    "--prometheus", "answers", multiple=True, metavar="SIGNAL=FILE",
    help="Recorded signal: the JSON answer to a range query, of one series; once a signal.",
)  # fmt: skip
@click.option("--diurnal", is_flag=True, help="Simulate the pool under a load with a day's ups and downs, and noise.")
@click.option(
    "--step", type=click.Choice(["prompts", "answers", "requests"]), default=None,
    help="Simulate the pool under a load of which this becomes FACTOR times as much.",
)  # fmt: skip
@click.option("--factor", type=click.FloatRange(0, min_open=True), default=4.0, show_default=True, help="Of --step.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), default=None, help="Of a load: 24; of a step 1.5.")
@click.option(
    "--rps", type=click.FloatRange(0, min_open=True), default=None,
    help="Mean requests/s of a day, or those before a step; default: such that the most takes 4/5 of maxReplicas.",
)  # fmt: skip
@click.option("--prompt-tokens", type=click.IntRange(1), default=8000, show_default=True, help="Mean, uncached.")
@click.option("--answer-tokens", type=click.IntRange(1), default=500, show_default=True, help="Mean.")
@click.option(
    "--slo-ttft-s", type=click.FloatRange(0, min_open=True), default=None,
    help=f"Default: the shortest slo.ttftSeconds of the routes, or {_SLO_TTFT_S:g}.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of a load.")
@click.option("--replicas", type=click.IntRange(1), default=None, help="At the beginning; default: minReplicas, or 1.")
@click.option(
    "--period-s", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True,
    help="How often the operator looks: its --autoscaling-interval-s.",
)  # fmt: skip
@click.option(
    "--scrape-s", type=click.FloatRange(0, min_open=True), default=15.0, show_default=True,
    help="How often Prometheus reads a simulated pool.",
)  # fmt: skip
@click.option("--against", type=click.Choice(["hpa"]), default=None, help="Let a HorizontalPodAutoscaler decide too.")
@click.option("--plot", type=click.Path(path_type=Path), default=None, help="Draw signals and replicas: .svg or .png.")
@click.option("--limit", type=click.IntRange(1), default=40, show_default=True, help="Decisions in the table.")
@click.option(
    "-o", "output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to say it."
)
@click.pass_obj
def replay_command(
    console: Console,
    /,
    paths: tuple[Path, ...],
    name: str | None,
    csv_path: Path | None,
    answers: tuple[str, ...],
    diurnal: bool,
    step: str | None,
    factor: float,
    hours: float | None,
    rps: float | None,
    prompt_tokens: int,
    answer_tokens: int,
    slo_ttft_s: float | None,
    seed: int,
    replicas: int | None,
    period_s: float,
    scrape_s: float,
    against: str | None,
    plot: Path | None,
    limit: int,
    output: str,
) -> None:
    """Say what a pool's scaling would decide, and why, for recorded signals or for a simulated load."""
    try:
        if plot is not None and plot.suffix not in autoscaling_figure.SUFFIXES:
            raise SeriesError(f"--plot {plot}: give a name that ends in {' or '.join(autoscaling_figure.SUFFIXES)}")
        given = [csv_path is not None, bool(answers), diurnal, step is not None]
        if sum(given) != 1:
            raise SeriesError("give one of --csv, --prometheus, --diurnal and --step")
        documents = plan_manifests.read(paths)
        pool = autoscaling_pool.read(documents, name, period_s)
        first = replicas if replicas is not None else max(pool.settings.min_replicas, 1)
        by = autoscaling_replay.scalers(pool, against_hpa=against is not None)
        if diurnal or step is not None:
            slo_s = slo_ttft_s if slo_ttft_s is not None else plan_manifests.least_slo_s(documents) or _SLO_TTFT_S
            load = _load(pool, step, factor, hours, rps, prompt_tokens, answer_tokens, slo_s, seed)
            outcomes = [
                autoscaling_replay.closed_loop(pool, load, first, scrape_s, who, make) for who, make in by.items()
            ]
            notes = _closed_loop_notes(pool, load)
        else:
            series = _series(pool, csv_path, answers)
            outcomes = [autoscaling_replay.open_loop(pool, series, first, who, make) for who, make in by.items()]
            notes = _open_loop_notes(pool, series)
        _say(console, outcomes, notes, limit, output)
        if plot is not None:
            autoscaling_figure.write(plot, f"{type_of(pool)} {pool.name}", outcomes)
    except (ManifestError, SeriesError, errors.CoreError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"--plot {plot}: {error.strerror}") from error


def type_of(pool: ScaledPool) -> str:
    """Return the pool's kind."""
    return "PrefillPool" if pool.prefills else "DecodePool"


def _load(
    pool: ScaledPool, step: str | None, factor: float, hours: float | None, rps: float | None, prompt_tokens: int,
    answer_tokens: int, slo_s: float, seed: int,
) -> Load:  # fmt: skip
    if step is None:
        return autoscaling_replay.diurnal_load(pool, hours or 24.0, rps, prompt_tokens, answer_tokens, slo_s, seed)
    return autoscaling_replay.step_load(
        pool, step, factor, hours or 1.5, rps, prompt_tokens, answer_tokens, slo_s, seed
    )


def _series(pool: ScaledPool, csv_path: Path | None, answers: tuple[str, ...]) -> Series:
    titles = [sized.title for sized in pool.signals]
    known = [*titles, *(f"{title}{PANIC}" for title in titles), READY, DEMAND]
    if csv_path is not None:
        series = autoscaling_series.of_csv(csv_path, known)
    else:
        files: dict[str, Path] = {}
        for answer in answers:
            title, found, path = answer.partition("=")
            if not found or not path:
                raise SeriesError(f"--prometheus {answer}: give SIGNAL=FILE")
            files[title] = Path(path)
        series = autoscaling_series.of_prometheus(files, known)
    missing = [sized.title for sized in pool.signals if not sized.guard and sized.title not in series.columns]
    if missing:
        raise SeriesError(
            f"{type_of(pool)} {pool.name} is sized by {', '.join(missing)} too, of which there is no record; add a column, or "
            "--prometheus, or take the signal out of the manifest"
        )
    return series


def _open_loop_notes(pool: ScaledPool, series: Series) -> list[str]:
    notes = [
        "open loop: the signals were recorded with other replicas, and decisions do not change them",
        "a total stays right all the same; a mean or a quantile would fall with more replicas",
    ]
    guards = [sized.title for sized in pool.signals if sized.guard and sized.title not in series.columns]
    if guards:
        notes.append(
            f"the operator adds {', '.join(guards)} as a guard, of which there is no record: it would not let the pool shrink as far"
        )
    if series.step_s > pool.settings.stale_after_s:
        notes.append(
            f"samples are {series.step_s:g} s apart, and a value counts for {pool.settings.stale_after_s:g} s only: between them "
            "replicas hold (SignalStale). Record with a smaller step"
        )
    return notes


def _closed_loop_notes(pool: ScaledPool, load: Load) -> list[str]:
    side = "decode" if pool.prefills else "prefill"
    return [
        f"closed loop: the pool is simulated by its profile, and {side} has workers to spare",
        f"a worker starts in {pool.settings.startup_s:g} s",
        f"the most is {load.rps:.3g} requests/s of {load.prompt_tokens:.0f} + {load.answer_tokens:.0f} tokens",
        f"a request misses if its first token takes more than {load.slo_ttft_s:g} s",
    ]


def _say(console: Console, outcomes: list[Outcome], notes: list[str], limit: int, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(autoscaling_report.as_json(outcomes, notes), indent=2))
    else:
        autoscaling_report.print_tables(console, outcomes, notes, limit)
