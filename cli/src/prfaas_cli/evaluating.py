"""`prfaas evaluate`."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console

from prfaas_cli.evaluation import report, running
from prfaas_cli.evaluation.arms import ARMS
from prfaas_cli.evaluation.scenarios import SCENARIOS, from_trace
from prfaas_cli.trace import TraceError


@click.command("evaluate")
@click.option(
    "--seeds", type=click.IntRange(1, 50), default=4, show_default=True, help="Runs of each, with other traffic."
)
@click.option("--only", metavar="TEXT", default="", help="Scenarios whose name or group holds this.")
@click.option(
    "--arm", "arms", multiple=True, type=click.Choice([arm.name for arm in ARMS]), help="Only these policies."
)
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Replay this trace as one more scenario.",
)
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("docs"), show_default=True,
    help="Folder for evaluation.md, and below it evaluation/ with data and plots.",
)  # fmt: skip
@click.pass_obj
def evaluate_command(
    console: Console, seeds: int, only: str, arms: tuple[str, ...], trace: Path | None, workers: int, out: Path
) -> None:
    """Simulate the policies against each other, and write what they do.

    Takes minutes; a seed gives the same numbers again.
    """
    try:
        known = (*SCENARIOS, *((from_trace(trace),) if trace is not None else ()))
    except TraceError as error:
        raise click.BadParameter(str(error), param_hint="--trace") from error
    scenarios = [item for item in known if only.lower() in f"{item.group} {item.name}".lower()]
    if not scenarios:
        raise click.BadParameter(f"no scenario has {only!r} in its name or group", param_hint="--only")
    chosen = [arm for arm in ARMS if not arms or arm.name in arms]
    total, done = len(scenarios) * len(chosen) * seeds, 0

    def note(row: running.Row) -> None:
        nonlocal done
        done += 1
        console.print(
            f"{done}/{total} {row.scenario}, {row.arm}, seed {row.seed}: TTFT {row.ttft_mean_s:.2f} s, P90 {row.ttft_p90_s:.2f} s",
            highlight=False,
        )

    rows = list(running.run_all(scenarios, chosen, range(1, seeds + 1), workers, note, trace))
    out.mkdir(parents=True, exist_ok=True)
    report.write(rows, out / "evaluation", out / "evaluation.md")
    console.print(f"wrote {out / 'evaluation.md'}")
