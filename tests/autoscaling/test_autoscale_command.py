"""`prfaas autoscale replay` on the repository's own manifests: recorded series, synthetic loads, and wrong input."""

import json
import math
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from prfaas_cli.main import cli

MANIFESTS = Path(__file__).parents[2] / "e2e" / "manifests"


@pytest.fixture
def manifests(tmp_path):
    folder = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, folder)
    return folder


def scale(manifests, name, **scaling):
    """Give a pool another scaling block."""
    for path in manifests.glob("*.yaml"):
        documents = list(yaml.safe_load_all(path.read_text()))
        for document in documents:
            if document["metadata"]["name"] == name:
                document["spec"].pop("replicas", None)
                document["spec"]["scaling"] = scaling
        path.write_text(yaml.safe_dump_all(documents))


def run(*arguments):
    return CliRunner().invoke(cli, ["autoscale", "replay", *map(str, arguments)], env={"COLUMNS": "200"})


def answer(*arguments):
    result = run(*arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def record(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    return path


def decode(manifests, **changes):
    signals = [{"name": "DecodeRequests", "targetValue": 15}]
    scale(manifests, "east-decode", **{"minReplicas": 1, "maxReplicas": 20, "signals": signals, **changes})
    return ("-f", manifests, "--pool", "east-decode")


def test_a_recorded_step_is_followed_up_at_once_and_down_after_the_window(manifests, tmp_path):
    pool = decode(manifests)
    rows = [(at_s, 30 if at_s < 300 or at_s >= 600 else 120) for at_s in range(0, 1500, 15)]
    path = record(tmp_path / "a.csv", "time,DecodeRequests", rows)
    outcome, hpa = answer(*pool, "--csv", path, "--replicas", 2, "--against", "hpa")["outcomes"]
    assert [(d["time"], d["fromReplicas"], d["toReplicas"], d["reason"]) for d in outcome["decisions"]] == [
        (300, 2, 6, "RateLimited"),
        (315, 6, 8, "AboveTarget"),
        (895, 8, 2, "BelowTarget"),
    ]
    assert [(d["time"], d["toReplicas"]) for d in hpa["decisions"]] == [(300, 6), (315, 8), (885, 2)]
    assert outcome["mostTurnsAnHour"] == 1
    assert outcome["held"]["Stabilized"] > 0


def test_a_gap_in_the_record_holds_the_pool(manifests, tmp_path):
    pool = decode(manifests, behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})
    rows = [(at_s, 60 if at_s < 100 else 0) for at_s in (*range(0, 105, 15), *range(600, 700, 15))]
    rows[3] = (45, "NaN")
    outcome = answer(*pool, "--csv", record(tmp_path / "a.csv", "time,DecodeRequests", rows), "--replicas", 4)
    (outcome,) = outcome["outcomes"]
    assert [(d["time"], d["toReplicas"]) for d in outcome["decisions"]] == [(600, 1)]
    assert outcome["held"]["SignalInvalid"] == 3
    assert outcome["held"]["SignalStale"] > 50


def test_answers_of_prometheus_are_read(manifests, tmp_path):
    pool = decode(manifests)
    values = [[1_772_000_000 + at_s, "30" if at_s < 60 else "90"] for at_s in range(0, 300, 15)]
    path = tmp_path / "requests.json"
    path.write_text(
        json.dumps(
            {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": values}]}}
        )
    )
    (outcome,) = answer(*pool, "--prometheus", f"DecodeRequests={path}", "--replicas", 2)["outcomes"]
    assert [(d["time"], d["toReplicas"]) for d in outcome["decisions"]] == [(1_772_000_060, 6)]
    table = run(*pool, "--prometheus", f"DecodeRequests={path}", "--replicas", 2).output
    assert "02-25 06:14:20" in table
    assert "2 -> 6" in table
    assert "open loop" in table


def test_schedules_hold_at_the_time_of_the_record(manifests, tmp_path):
    pool = decode(
        manifests,
        schedules=[{"start": "0 8 * * *", "end": "0 9 * * *", "timeZone": "Europe/Berlin", "minReplicas": 7}],
    )
    rows = [(f"2026-03-02T{hour:02}:{minute:02}:00+01:00", 30) for hour in (7, 8) for minute in range(60)]
    path = record(tmp_path / "a.csv", "time,DecodeRequests", rows)
    found = answer(*pool, "--csv", path, "--replicas", 2)
    first = found["outcomes"][0]["decisions"][0]
    assert (first["toReplicas"], first["reason"]) == (7, "ScheduledFloor")
    assert math.isclose(first["time"], 1_772_434_800)


def test_a_simulated_step_of_answers_is_settled_and_drawn(manifests, tmp_path):
    pool = decode(manifests, maxReplicas=12)
    step = ("--step", "answers", "--rps", 3, "--answer-tokens", 2000, "--replicas", 3)
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG")):
        plot = tmp_path / f"replicas{suffix}"
        found = answer(*pool, *step, "--hours", 0.6, "--against", "hpa", "--plot", plot)
        assert plot.read_bytes().startswith(start)
    outcome, hpa = found["outcomes"]
    # 3 requests/s of 8000 tokens at 3.125 ms are 75 at once, of which 15 are for one worker.
    assert 5 <= outcome["decisions"][-1]["toReplicas"] <= 6
    assert outcome["requests"]["count"] == hpa["requests"]["count"] > 0
    assert outcome["replicaHours"] > 0


def test_a_simulated_day_moves_a_prefill_pool(manifests):
    signals = [{"name": "PrefillLoad", "targetValue": 0.7}]
    scale(manifests, "east-prefill", minReplicas=1, maxReplicas=6, signals=signals, panic={"windowSeconds": 30})
    arguments = ("-f", manifests, "--pool", "east-prefill", "--diurnal", "--hours", 12)
    load = ("--prompt-tokens", 120_000, "--limit", 2, "--slo-ttft-s", 60)
    table = run(*arguments, *load).output
    assert " more" in table
    assert "closed loop" in table
    (outcome,) = answer(*arguments, *load)["outcomes"]
    assert max(d["toReplicas"] for d in outcome["decisions"]) >= 4
    assert outcome["mostTurnsAnHour"] <= 3
    assert outcome["requests"]["missedTtft"] < outcome["requests"]["count"] / 10


WRONG = {
    "windows without two scrapes": (
        ["--pool", "east-decode", "--diurnal"],
        "--scrape-s: 15.0 is not valid; give at most 5: DecodeRequests of east-decode has a window of 10 s",
    ),
    "no pool": (
        ["--pool", "nobody", "--diurnal"],
        "--pool nobody: no pool with spec.scaling is called so; there are east-decode",
    ),
    "several pools": (["--diurnal"], "--pool is missing; the manifests scale east-decode, west-prefill"),
    "no series": (["--pool", "east-decode"], "give one of --csv, --prometheus, --diurnal and --step"),
    "two series": (["--pool", "east-decode", "--diurnal", "--step", "answers"], "give one of"),
    "no file": (["--pool", "east-decode", "--csv", "nowhere.csv"], "--csv nowhere.csv: No such file"),
    "a plot of a kind that is not known": (
        ["--pool", "east-decode", "--diurnal", "--plot", "a.pdf"],
        "--plot a.pdf: give a name that ends in .svg or .png",
    ),
    "an answer without a name": (["--pool", "east-decode", "--prometheus", "a.json"], "give SIGNAL=FILE"),
    "an answer for no signal": (
        ["--pool", "east-decode", "--prometheus", "Other=a.json"],
        "Other is no signal of the pool; there may be DecodeRequests",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_options_say_what_helps(arguments, message):
    result = run("-f", MANIFESTS, *arguments)
    assert result.exit_code == 1
    assert message in result.output


CELLS = {
    "no time": ("when,DecodeRequests\n0,1", "the first line has no column time; it has when, DecodeRequests"),
    "another column": ("time,Nothing\n0,1", "column Nothing is no signal of the pool"),
    "no number": ("time,DecodeRequests\n0,many", "line 2, column DecodeRequests: 'many' is no number"),
    "no order": ("time,DecodeRequests\n5,1\n5,1", "line 3: time 5 is not after 5"),
    "no time at all": ("time,DecodeRequests\nsoon,1", "line 2: time 'soon'; give seconds or ISO 8601"),
    "too few cells": ("time,DecodeRequests\n5", "line 2: 1 cells; 2 are expected"),
    "no values": ("time,DecodeRequests\n5,", "holds no values"),
    "empty": ("", "the first line has no column time; it has nothing"),
    "a signal without a record": ("time,ready\n5,1", "is sized by DecodeRequests too, of which there is no record"),
}


@pytest.mark.parametrize(("text", "message"), CELLS.values(), ids=CELLS.keys())
def test_wrong_records_name_the_place(text, message, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text)
    result = run("-f", MANIFESTS, "--pool", "east-decode", "--csv", path)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


ANSWERS = {
    "an error": ({"status": "error", "error": "bad_data"}, "status error; bad_data"),
    "an instant query": (
        {"status": "success", "data": {"resultType": "vector", "result": []}},
        "a vector; ask /api/v1/query_range",
    ),
    "no series": ({"status": "success", "data": {"resultType": "matrix", "result": []}}, "0 series; ask for one"),
    "something else": ([], "no answer of Prometheus to a range query"),
}


@pytest.mark.parametrize(("body", "message"), ANSWERS.values(), ids=ANSWERS.keys())
def test_wrong_answers_say_what_to_ask(body, message, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(body))
    result = run("-f", MANIFESTS, "--pool", "east-decode", "--prometheus", f"DecodeRequests={path}")
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


def test_the_model_of_a_pool_has_no_queries(manifests):
    signals = [{"name": "Query", "query": "sum(up)", "targetValue": 1.0, "targetType": "AverageValue"}]
    result = run(*decode(manifests, signals=signals), "--diurnal")
    assert result.exit_code == 1
    assert "the model of a pool has only built-in signals; replay a record of it with --csv" in result.output
