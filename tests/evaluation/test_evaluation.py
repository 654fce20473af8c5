"""`prfaas evaluate`: what it compares, what it writes, and what it refuses."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from prfaas_cli.evaluating import evaluate_command
from prfaas_cli.evaluation import report, running, scenarios
from prfaas_cli.evaluation.arms import ARMS, FINISH_TIME, PAPER, build
from prfaas_cli.evaluation.running import Row

ROW = Row(
    scenario="s", arm=PAPER, seed=1, throughput_rps=2.0, goodput_rps=1.0, ttft_mean_s=4.0, ttft_p50_s=3.0, ttft_p90_s=8.0,
    ttft_p99_s=9.0, itl_mean_s=0.025, itl_p99_s=0.03, remote_share=0.5, decode_share=0.0, failed=0, link_gb=1.0,
    link_cost=0.1, flaps=0, conversions=0, oracle_s=1.0,
)  # fmt: skip


def rows(*means_s: float) -> list[Row]:
    theirs = [replace(ROW, seed=seed) for seed in range(len(means_s))]
    return theirs + [
        replace(row, arm=FINISH_TIME, ttft_mean_s=mean_s) for row, mean_s in zip(theirs, means_s, strict=True)
    ]


@pytest.mark.parametrize(
    ("means_s", "verdict"),
    [
        ((3.0, 3.1, 2.9), "better"),
        ((5.0, 5.1, 4.9), "worse"),
        ((3.0, 5.0, 4.2), "even"),
        ((4.05, 4.05, 4.05), "even"),
        ((3.0,), "better"),
    ],
    ids=["all better", "all worse", "seeds differ", "within the noise", "one seed"],
)
def test_a_difference_counts_when_seeds_agree_and_it_is_not_noise(means_s: tuple[float, ...], verdict: str) -> None:
    found = {entry.metric: entry.verdict for entry in report.compare(rows(*means_s))}
    assert found.pop("mean TTFT") == verdict
    assert set(found.values()) == {"even"}


def test_names_are_unique_and_every_scenario_can_be_built_by_every_arm() -> None:
    for items in (scenarios.SCENARIOS, ARMS):
        assert len({item.name for item in items}) == len(items)
    for scenario in scenarios.SCENARIOS:
        for arm in ARMS:
            made = build(scenario, arm)
            assert len(made.remote) == len(scenario.remote)
            assert made.threshold_tokens > 0


def test_the_command_writes_data_document_and_plots_that_agree(tmp_path: Path) -> None:
    trace = tmp_path / "small.jsonl"
    lines = [
        {"timestamp": 300 * i, "input_length": 1024 + 512 * (i % 5), "output_length": 20, "hash_ids": [0, 1, *range(10 * i, 10 * i + i % 5)]}
        for i in range(40)
    ]  # fmt: skip
    trace.write_text("\n".join(json.dumps(line) for line in lines))
    arguments = [
        "--seeds",
        "2",
        "--only",
        "small",
        "--trace",
        str(trace),
        "--workers",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    for arm in (PAPER, FINISH_TIME):
        arguments += ["--arm", arm]
    result = CliRunner().invoke(evaluate_command, arguments, obj=Console(quiet=True))
    assert result.exit_code == 0, result.output
    with (tmp_path / "out/evaluation/runs.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [(row["scenario"], row["arm"], row["seed"]) for row in written] == [
        ("trace small", arm, seed) for arm in (PAPER, FINISH_TIME) for seed in ("1", "2")
    ]
    text = (tmp_path / "out/evaluation.md").read_text()
    assert "trace small" in text
    mean = sum(float(row["ttft_mean_s"]) for row in written if row["arm"] == PAPER) / 2
    assert f"| {PAPER} | " in text
    assert f" {mean:.2f} ± " in text
    assert json.loads((tmp_path / "out/evaluation/comparison.json").read_text())
    for plot in ("ttft-mean.svg", "ttft-p90.svg"):
        assert (tmp_path / "out/evaluation" / plot).read_text().startswith("<?xml")


def test_a_single_seed_has_no_interval(tmp_path: Path) -> None:
    found = [replace(row, scenario=scenarios.SCENARIOS[0].name) for row in rows(3.0)]
    report.write(found, tmp_path / "data", tmp_path / "evaluation.md")
    assert {entry["half"] for entry in json.loads((tmp_path / "data/comparison.json").read_text())} == {None}
    assert "±" not in (tmp_path / "evaluation.md").read_text()


def test_a_scenario_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        evaluate_command, ["--only", "nonsense", "--out", str(tmp_path)], obj=Console(quiet=True)
    )
    assert result.exit_code == 2
    assert "nonsense" in result.output


def test_the_same_seed_is_the_same_row() -> None:
    scenario = replace(scenarios.SCENARIOS[0], traffic=scenarios.steady(1.5, 300), warm_up_s=0.0)
    arm = next(arm for arm in ARMS if arm.name == FINISH_TIME)
    assert running.run(scenario, arm, 1) == running.run(scenario, arm, 1) != running.run(scenario, arm, 2)
