"""Writes what was evaluated: rows as CSV, comparisons as JSON, docs/evaluation.md and its plots."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from prfaas_cli.evaluation.arms import FINISH_TIME, PAPER
from prfaas_cli.evaluation.running import Row
from prfaas_cli.evaluation.scenarios import SCENARIOS

# Two-sided 95 % points of Student's t for 1 to 9 degrees of freedom.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
STATIC = "paper, static"
NOISE = 0.02
"""Relative difference that is called noise even when all seeds agree on it."""

Metric = Callable[[Row], float]
_JUDGED: tuple[tuple[str, Metric, bool], ...] = (
    ("throughput", lambda row: row.throughput_rps, True),
    ("mean TTFT", lambda row: row.ttft_mean_s, False),
    ("P90 TTFT", lambda row: row.ttft_p90_s, False),
    ("goodput", lambda row: row.goodput_rps, True),
    ("mean ITL", lambda row: row.itl_mean_s, False),
    ("GB on the link", lambda row: row.link_gb, False),
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and half the width of its 95 % confidence interval; infinite for a single seed."""

    mean: float
    half: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Return the interval of independent values."""
        count = len(values)
        if count < 2:
            return cls(values[0], math.inf)
        student = _STUDENT[count - 2] if count - 2 < len(_STUDENT) else 1.96
        return cls(statistics.fmean(values), student * statistics.stdev(values) / math.sqrt(count))

    def __str__(self) -> str:
        """Show it as a cell."""
        return f"{self.mean:.2f}" if math.isinf(self.half) else f"{self.mean:.2f} ± {self.half:.2f}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of `finish_time` against `paper` in one scenario, over the same traffic.

    Attributes:
        against: the other arm.
        change: mean of the relative differences, above 0 when finish_time is higher.
        half: half the width of its 95 % interval.
        verdict: better, worse or even.
    """

    scenario: str
    against: str
    metric: str
    change: float
    half: float
    verdict: str


def compare(rows: Sequence[Row], ours: str = FINISH_TIME, theirs: str = PAPER) -> list[Comparison]:
    """Return how two arms differ, seed by seed."""
    found = []
    by_run = {(row.scenario, row.arm, row.seed): row for row in rows}
    for scenario in dict.fromkeys(row.scenario for row in rows):
        seeds = [row.seed for row in rows if (row.scenario, row.arm) == (scenario, ours)]
        for name, metric, more_is_better in _JUDGED:
            changes = [
                metric(by_run[scenario, ours, seed]) / metric(by_run[scenario, theirs, seed]) - 1
                for seed in seeds
                if (scenario, theirs, seed) in by_run and metric(by_run[scenario, theirs, seed]) > 0
            ]
            if changes:
                interval = Interval.of(changes)
                found.append(
                    Comparison(scenario, theirs, name, interval.mean, interval.half, _verdict(interval, more_is_better))
                )
    return found


def _verdict(interval: Interval, more_is_better: bool) -> str:
    gain = interval.mean if more_is_better else -interval.mean
    if abs(gain) <= max(NOISE, 0.0 if math.isinf(interval.half) else interval.half):
        return "even"
    return "better" if gain > 0 else "worse"


def write(rows: Sequence[Row], folder: Path, document: Path) -> None:
    """Write everything.

    Args:
        rows: of all runs.
        folder: for data and plots; made if missing.
        document: the markdown file; the plots are linked from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "runs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        for row in rows:
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in asdict(row).values()])
    comparisons = [*compare(rows), *compare(rows, theirs=STATIC)]
    (folder / "comparison.json").write_text(
        json.dumps([_finite(asdict(entry)) for entry in comparisons], indent=1, allow_nan=False) + "\n",
        encoding="utf-8",
    )
    with mpl.rc_context({"svg.hashsalt": "prfaas", "font.size": 9}):
        for name, label, metric in (
            ("ttft-mean", "mean TTFT, s", lambda row: row.ttft_mean_s),
            ("ttft-p90", "P90 TTFT, s", lambda row: row.ttft_p90_s),
        ):
            _plot(rows, folder / f"{name}.svg", label, metric)
    document.write_text(_markdown(rows, comparisons, folder.name), encoding="utf-8")


def _finite(entry: dict[str, object]) -> dict[str, object]:
    """Return an entry with null for what a single seed does not give."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()
    }


def _plot(rows: Sequence[Row], path: Path, label: str, metric: Metric) -> None:
    arms = [arm for arm in (STATIC, PAPER, FINISH_TIME) if any(row.arm == arm for row in rows)]
    names = list(dict.fromkeys(row.scenario for row in rows))
    figure = Figure(figsize=(8.0, 0.42 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    high = 0.8 / max(1, len(arms))
    for index, arm in enumerate(arms):
        values = [_interval(rows, name, arm, metric) for name in names]
        positions = [-place - index * high for place in range(len(names))]
        errors = [0.0 if math.isinf(value.half) else value.half for value in values]
        axes.barh(
            positions, [value.mean for value in values], height=high, xerr=errors, label=arm, error_kw={"lw": 0.8}
        )
    axes.set_yticks([-place - 0.3 for place in range(len(names))], names)
    axes.set_xscale("log")
    axes.set_xlabel(f"{label} (95 % intervals over seeds)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _interval(rows: Iterable[Row], scenario: str, arm: str, metric: Metric) -> Interval:
    return Interval.of([metric(row) for row in rows if (row.scenario, row.arm) == (scenario, arm)] or [math.nan])


def _markdown(rows: Sequence[Row], comparisons: Sequence[Comparison], folder: str) -> str:
    seeds = len({row.seed for row in rows})
    worse = [entry for entry in comparisons if entry.verdict == "worse"]
    lines = [
        "# Evaluation",
        "",
        f"Written by `prfaas evaluate`, {seeds} seeds each; the runs are in [runs.csv]({folder}/runs.csv), the comparison in",
        f"[comparison.json]({folder}/comparison.json). What is simulated, and how far the simulator can be trusted, is in",
        "[scheduler.md](scheduler.md); the scenarios are data in `prfaas_cli.evaluation.scenarios`. `paper` is section 3.4.3 with its",
        "closed loop (the threshold is searched again every 10 s), `paper, static` keeps the first threshold, which is the planner's.",
        "",
        "## finish_time against paper, on the same traffic",
        "",
        (
            "Relative change with its 95 % interval over seeds. `even`: within the interval, or within "
            f"{100 * NOISE:.0f} %."
        ),
        "",
        "| scenario | against | " + " | ".join(name for name, _, _ in _JUDGED) + " |",
        "| --- | --- | " + " | ".join("---" for _ in _JUDGED) + " |",
    ]
    for scenario in dict.fromkeys(entry.scenario for entry in comparisons):
        for against in dict.fromkeys(entry.against for entry in comparisons):
            cells = [_change(entry) for entry in comparisons if (entry.scenario, entry.against) == (scenario, against)]
            if cells:
                lines.append(f"| {scenario} | {against} | " + " | ".join(cells) + " |")
    lines += ["", "## Where finish_time is worse", ""]
    for name, _, _ in _JUDGED:
        lines.append(
            f"- {name}: {_where([entry for entry in worse if entry.metric == name], len(comparisons) // len(_JUDGED))}."
        )
    lines += [
        "",
        "Prefill on decode workers holds up the tokens that they decode: that is the mean ITL, and goodput where it passes the",
        "objective. `finish_time, no absorption` does without. And what is sent to the faster chips crosses the link.",
    ]
    lines += ["", f"![mean TTFT]({folder}/ttft-mean.svg)", "", f"![P90 TTFT]({folder}/ttft-p90.svg)", ""]
    groups = {scenario.name: scenario.group for scenario in SCENARIOS}
    groups |= {row.scenario: "Traces" for row in rows if row.scenario not in groups}
    names = list(dict.fromkeys(row.scenario for row in rows))
    for group in dict.fromkeys(groups[name] for name in names):
        lines += [f"## {group}", ""]
        for name in [name for name in names if groups[name] == group]:
            lines += _table(rows, name)
    return "\n".join(lines)


def _where(found: Sequence[Comparison], of: int) -> str:
    """Say where a metric is worse: by name while that can be read."""
    if not found:
        return "nowhere"
    if len(found) <= 4:
        return "; ".join(f"{entry.scenario} (against {entry.against}: {100 * entry.change:+.0f} %)" for entry in found)
    changes = sorted((abs(entry.change), entry.scenario) for entry in found)
    return (
        f"in {len(found)} of {of} comparisons, by {100 * changes[0][0]:.0f} to {100 * changes[-1][0]:.0f} % "
        f"(most: {changes[-1][1]})"
    )


def _change(entry: Comparison) -> str:
    width = "" if math.isinf(entry.half) else f" ± {100 * entry.half:.1f}"
    return f"{100 * entry.change:+.1f} %{width}, {entry.verdict}"


def _table(rows: Sequence[Row], scenario: str) -> list[str]:
    oracle_s = statistics.fmean(row.oracle_s for row in rows if row.scenario == scenario)
    bound = f"; no policy can have a mean TTFT below {oracle_s:.2f} s" if oracle_s else ""
    lines = [
        f"### {scenario}",
        "",
        f"Requests a second, seconds, milliseconds between tokens{bound}.",
        "",
        "| policy | req/s | goodput | TTFT mean | P50 | P90 | P99 | ITL mean | ITL P99 | remote | decode | failed | GB | $ | thresholds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for arm in dict.fromkeys(row.arm for row in rows if row.scenario == scenario):
        own = [row for row in rows if (row.scenario, row.arm) == (scenario, arm)]

        def mean(metric: Metric, own: Sequence[Row] = own) -> float:
            return statistics.fmean(metric(row) for row in own)

        def cell(metric: Metric, own: Sequence[Row] = own) -> str:
            return str(Interval.of([metric(row) for row in own]))

        lines.append(
            f"| {arm} | {cell(lambda row: row.throughput_rps)} | {mean(lambda row: row.goodput_rps):.2f} "
            f"| {cell(lambda row: row.ttft_mean_s)} | {mean(lambda row: row.ttft_p50_s):.2f} "
            f"| {cell(lambda row: row.ttft_p90_s)} | {mean(lambda row: row.ttft_p99_s):.1f} "
            f"| {mean(lambda row: 1000 * row.itl_mean_s):.1f} | {mean(lambda row: 1000 * row.itl_p99_s):.1f} "
            f"| {mean(lambda row: 100 * row.remote_share):.0f} % | {mean(lambda row: 100 * row.decode_share):.0f} % "
            f"| {mean(lambda row: row.failed):.1f} | {mean(lambda row: row.link_gb):.0f} "
            f"| {mean(lambda row: row.link_cost):.1f} | {mean(lambda row: row.flaps):.0f} |"
        )
    return [*lines, ""]
