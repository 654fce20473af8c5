"""`prfaas whatif` on the repository's own manifests and trace."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from prfaas_cli.main import cli

ROOT = Path(__file__).parents[2]
MANIFESTS, TRACE = ROOT / "e2e" / "manifests", ROOT / "e2e" / "traces" / "mooncake_conversation_600.jsonl"


@pytest.fixture
def manifests(tmp_path):
    folder = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, folder)
    return folder


def run(*arguments):
    return CliRunner().invoke(cli, ["whatif", *map(str, arguments)], env={"COLUMNS": "120"})


def answer(manifests, *arguments, speed=8, requests=200):
    result = run(
        "-f", manifests, "--trace", TRACE, "--requests", requests, "--base-speed", speed, *arguments, "-o", "json"
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def edit(manifests, kind, name, change):
    """Change the spec of one object of the manifests."""
    for path in manifests.glob("*.yaml"):
        documents = list(yaml.safe_load_all(path.read_text()))
        for document in documents:
            if (document["kind"], document["metadata"]["name"]) == (kind, name):
                change(document["spec"])
        path.write_text(yaml.safe_dump_all(documents))


def test_the_table_compares_every_variant_with_the_baseline_and_judges_it(manifests):
    result = run(
        "-f", manifests, "--trace", TRACE, "--requests", 200, "--base-speed", 8,
        "--threshold", "6000", "--link", "west-to-east=0.05", "--replicas", "west-prefill=4",
        "--add-pool", "north=west-prefill", "--policy", "finish_time", "--mode", "LocalOnly", "--speed", "0.5",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    names = (
        "threshold 6000", "link west-to-east 0.05 Gbit/s", "west-prefill 4 workers", "pool north like west-prefill",
        "policy finish_time", "mode LocalOnly", "speed 0.5",
    )  # fmt: skip
    for name in names:
        verdicts = [line for line in result.output.splitlines() if line.startswith(f"{name}: ")]
        assert len(verdicts) == 1
        assert verdicts[0].endswith(".")
    assert "note: west-prefill scales from 2 to 4; taken as 2" in result.output


def test_the_same_call_gives_the_same_answer(manifests):
    arguments = ("--threshold", "6000", "--policy", "finish_time")
    assert answer(manifests, *arguments) == answer(manifests, *arguments)


def test_a_variant_that_changes_nothing_differs_in_nothing(manifests):
    found = answer(manifests, "--link", "west-to-east=0.8", "--replicas", "west-prefill=2", "--speed", "1")
    for variant in found["variants"]:
        assert all(value == pytest.approx(0, abs=1e-12) for value in variant["change"].values())
        assert variant["verdict"] == "No difference that matters: mean TTFT the same, P90 the same."


def test_the_threshold_divides_what_is_sent_across(manifests):
    found = answer(manifests, "--threshold", "0", "--threshold", "6000", "--threshold", "200000", "--threshold", "Auto")
    everything, some, nothing, auto = found["variants"]
    assert everything["remoteShare"] == 1.0
    assert 0 < some["remoteShare"] < 1
    assert nothing["remoteShare"] == 0.0
    assert nothing["links"][0]["gigabytes"] == 0.0
    # The manifests say Auto, so that the baseline is what the operator would choose.
    assert auto["thresholdTokens"] == found["baseline"]["thresholdTokens"]
    assert auto["change"]["ttftMean"] == 0.0


def test_all_kv_of_what_is_sent_across_is_counted_and_paid(manifests):
    (variant,) = answer(manifests, "--threshold", "0", "--workers", "west-prefill=4", speed=1)["variants"]
    (link,) = variant["links"]
    anchors = yaml.safe_load_all((MANIFESTS / "10-profiles.yaml").read_text())
    least = next(iter(anchors))["spec"]["kvSize"][0]["bytes"]
    assert link["gigabytes"] >= 200 * least / 1e9
    assert link["cost"] == pytest.approx(0.01 * link["gigabytes"])
    assert 0 < link["utilisation"] < 1


def test_a_slow_link_takes_longer_and_is_used_more(manifests):
    found = answer(manifests, "--link", "west-to-east=0.02", "--threshold", "6000")
    threshold, slow = found["variants"]
    assert threshold["change"]["linkGigabytes"] > 0
    assert slow["change"]["ttftMean"] > 0
    assert slow["links"][0]["utilisation"] > 5 * found["baseline"]["links"][0]["utilisation"]


def test_one_pool_more_helps_like_more_workers_of_the_one_there_is(manifests):
    found = answer(manifests, "--threshold", "3000", "--add-pool", "north=west-prefill", "--replicas", "west-prefill=4")
    base = found["baseline"]
    _, workers, pool = found["variants"]
    for better in (workers, pool):
        assert better["ttftSeconds"]["mean"] < base["ttftSeconds"]["mean"]
        assert better["verdict"].startswith("Better: mean TTFT")
    assert [link["name"] for link in pool["links"]] == ["west-to-east", "west-to-east-north"]
    assert all(link["gigabytes"] > 0 for link in pool["links"])
    assert pool["ttftSeconds"]["mean"] == pytest.approx(workers["ttftSeconds"]["mean"], rel=0.2)


def test_a_load_that_is_too_high_is_called_so(manifests):
    (variant,) = answer(manifests, "--speed", "20")["variants"]
    assert variant["verdict"].startswith("It does not keep up: ")
    assert variant["throughputRps"] < variant["arrivingRps"]


def test_a_handful_of_requests_is_no_load(manifests):
    found = answer(manifests, "--threshold", "0", speed=0.1, requests=4)
    assert "keep up" not in found["variants"][0]["verdict"]


def test_together_is_all_changes_at_once(manifests):
    changes = ("--threshold", "3000", "--link", "west-to-east=0.02")
    one, other, both = answer(manifests, *changes, "--together")["variants"]
    assert both["name"] == "threshold 3000 and link west-to-east 0.02 Gbit/s"
    assert both["thresholdTokens"] == one["thresholdTokens"] == 3000
    assert both["links"][0]["utilisation"] > other["links"][0]["utilisation"]


def test_prefix_caches_are_those_of_the_profiles(manifests):
    arguments = ("--policy", "never_remote")
    (whole,) = answer(manifests, *arguments, speed=2, requests=600)["variants"]
    for name in ("case-study-h200", "case-study-h20"):
        edit(manifests, "ModelProfile", name, lambda spec: spec["prefixCache"].update(capacityTokens=0))
    (bare,) = answer(manifests, *arguments, speed=2, requests=600)["variants"]
    assert bare["ttftSeconds"]["mean"] > whole["ttftSeconds"]["mean"]


def test_blocks_of_another_size_than_the_traces_find_the_same_prefixes(manifests):
    usual = answer(manifests, "--threshold", "6000", requests=600)["variants"][0]
    for name in ("case-study-h200", "case-study-h20"):
        edit(manifests, "ModelProfile", name, lambda spec: spec["prefixCache"].update(blockTokens=256))
    finer = answer(manifests, "--threshold", "6000", requests=600)["variants"][0]
    assert finer["remoteShare"] == pytest.approx(usual["remoteShare"], abs=0.02)
    assert finer["ttftSeconds"]["mean"] == pytest.approx(usual["ttftSeconds"]["mean"], rel=0.1)


def test_overhead_is_on_top_and_only_on_crossings_where_it_says_so(manifests):
    arguments = ("--policy", "never_remote", "--policy", "always_remote")
    bare = answer(manifests, *arguments, speed=1)["variants"]
    with_it = answer(manifests, *arguments, "--overhead", "0.5,0,0.25", speed=1)["variants"]
    for before, after, more_s in zip(bare, with_it, (0.5, 0.75), strict=True):
        assert after["ttftSeconds"]["mean"] - before["ttftSeconds"]["mean"] == pytest.approx(more_s, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threshold", "many"], "--threshold: 'many' is not valid; give a whole number of tokens from 0, or Auto"),
        (["--threshold", "-1"], "--threshold: '-1' is not valid; give a whole number of tokens from 0, or Auto"),
        (["--link", "west-to-east"], "--link: 'west-to-east' is not valid; write NAME=GBPS"),
        (["--link", "west-to-east=0"], "--link: 'west-to-east=0' is not valid; give a number above 0"),
        (["--link", "west-to-east=nan"], "--link: 'west-to-east=nan' is not valid; give a number above 0"),
        (["--link", "moon=1"], "--link: 'moon' is not valid; the route uses the KVLinks west-to-east"),
        (["--replicas", "moon=1"], "--replicas: 'moon' is not valid; the route uses the pools east-decode, east-prefill, west-prefill"),
        (["--replicas", "east-prefill=few"], "give a whole number of workers from 0 to 10000"),
        (["--replicas", "east-decode=0"], "--replicas: 'east-decode=0' is not valid; a decode pool needs at least 1"),
        (["--add-pool", "north=east-prefill"], "--add-pool: 'east-prefill' is not valid; the route uses the remote pools west-prefill"),
        (["--add-pool", "west-prefill=west-prefill"], "west-prefill is there already; give the new pool another name"),
        (["--policy", "best"], "--policy: 'best' is not valid; give one of paper, finish_time"),
        (["--mode", "Off"], "--mode: 'Off' is not valid; give one of Enforce, Shadow, LocalOnly"),
        (["--speed", "0"], "--speed: '0' is not valid; give a number above 0"),
        (["--overhead", "a"], "--overhead: 'a' is not valid; give one to three times in seconds, 0 or more"),
        (["--overhead", "-1"], "overhead"),
        (["--workers", "moon=1"], "moon: no such pool in InferenceRoute chat; it has east-decode, east-prefill, west-prefill"),
        (["--route", "moon"], "--route moon: no such InferenceRoute; there are chat"),
        (["--threshold", "1", "--threshold", "2", "--together"], "give --threshold once with it"),
        (["--log", "router.log"], "--trace, --log"),
    ],
)  # fmt: skip
def test_bad_input_is_named_with_the_way_out(manifests, arguments, words):
    result = run("-f", manifests, "--trace", TRACE, "--requests", 10, *arguments)
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_manifests_that_do_not_hold_together_are_refused(manifests, tmp_path):
    (manifests / "30-link.yaml").unlink()
    result = run("-f", manifests, "--trace", TRACE)
    assert result.exit_code == 1
    assert "no KVLink leads from west, where west-prefill is, to east; add one" in result.output
    (tmp_path / "empty").mkdir()
    assert "holds no .yaml file" in run("-f", tmp_path / "empty", "--trace", TRACE).output
    (manifests / "40-route.yaml").unlink()
    assert "the manifests hold no InferenceRoute" in run("-f", manifests, "--trace", TRACE).output


def test_a_local_pool_of_no_workers_leaves_prefill_to_decode(manifests):
    (variant,) = answer(manifests, "--replicas", "east-prefill=0", speed=1)["variants"]
    assert {side["prefill"] for side in variant["sides"]} <= {"decode", "remote_prefill"}
