"""`prfaas plan` on the repository's own manifests and trace."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from prfaas_cli.main import cli

ROOT = Path(__file__).parents[2]
MANIFESTS, TRACE = ROOT / "e2e" / "manifests", ROOT / "e2e" / "traces" / "mooncake_conversation_600.jsonl"
LENGTHS = "log-normal:9.9,1,128,131072"


@pytest.fixture
def manifests(tmp_path):
    folder = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, folder)
    return folder


def run(*arguments):
    return CliRunner().invoke(cli, ["plan", *map(str, arguments)], env={"COLUMNS": "200"})


def answer(*arguments):
    result = run(*arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_table_says_how_many_what_threshold_what_cost_and_what_binds(manifests):
    result = run("-f", manifests, "--trace", TRACE, "--price", "H200=4", "--price", "H20=2")
    assert result.exit_code == 0, result.output
    for text in ("west-prefill", "east-decode", "west-to-east", "chat", "binds:", "to spare:", "next:", "costs "):
        assert text in result.output
    assert "no prefix is ever evicted" in result.output


def test_json_holds_what_adds_up(manifests):
    found = answer("-f", manifests, "--trace", TRACE, "--price", "H200=4", "--price", "H20=2")
    assert found["rateRps"] <= found["capacityRps"]
    pools = sum(pool["costPerHour"] for pool in found["pools"])
    assert found["costPerHour"] == pytest.approx(pools + found["linkCostPerHour"])
    assert found["binding"]
    assert {pool["name"] for pool in found["pools"]} == {"west-prefill", "east-prefill", "east-decode"}


def test_prefix_hits_leave_less_to_prefill(manifests):
    bare, cached = (
        answer("-f", manifests, "--trace", TRACE, "--no-slo", flag) for flag in ("--no-prefix-hits", "--prefix-hits")
    )
    assert cached["capacityRps"] > bare["capacityRps"]


def test_yaml_is_the_manifests_with_the_plan_in_them(manifests):
    goal = ("-f", manifests, "--lengths", LENGTHS, "--goal", "cost", "--rate", "20", "--no-slo")
    plan = answer(*goal)
    text = run(*goal, "-o", "yaml").output
    before = "---\n".join(path.read_text() for path in sorted(manifests.glob("*.yaml")))
    changed = [(old, new) for old, new in zip(before.splitlines(), text.splitlines(), strict=True) if old != new]
    assert changed
    assert all(re.fullmatch(r"\s*(replicas|minReplicas|threshold): \S+.*", new) for _, new in changed)
    replicas = {pool["name"]: pool["replicas"] for pool in plan["pools"]}
    for body in yaml.safe_load_all(text):
        name, spec = body["metadata"]["name"], body.get("spec", {})
        if name in replicas:
            planned = spec["replicas"] if "replicas" in spec else spec["scaling"]["minReplicas"]
            assert planned == max(replicas[name], 0 if "replicas" in spec else 1)
        if body["kind"] == "InferenceRoute":
            assert spec["policy"]["threshold"] == plan["routes"][0]["thresholdTokens"]


def test_a_plan_that_is_committed_is_planned_to_again(manifests):
    goal = ("--lengths", LENGTHS, "--keep-roles", "--no-slo")
    first = run("-f", manifests, *goal, "-o", "yaml").output
    (manifests / "all.yaml").write_text(first)
    second = run("-f", manifests / "all.yaml", *goal, "-o", "yaml").output
    assert second == first


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    threshold: Auto\n", ""),
        ("  policy:\n    mode: Enforce\n    threshold: Auto\n    bandwidth: Auto\n", ""),
        ("  policy:\n    mode: Enforce\n    threshold: Auto\n    bandwidth: Auto\n", "  policy: {mode: Enforce}\n"),
    ],
)
def test_a_threshold_that_was_not_there_is_added(manifests, old, new):
    route = manifests / "40-route.yaml"
    text = route.read_text()
    assert old in text
    route.write_text(text.replace(old, new))
    result = run("-f", manifests, "--lengths", LENGTHS, "-o", "yaml")
    (body,) = (one for one in yaml.safe_load_all(result.stdout) if one["kind"] == "InferenceRoute")
    assert body["spec"]["policy"].pop("threshold") > 0
    before = yaml.safe_load(route.read_text())["spec"]
    assert {**body["spec"], "policy": body["spec"]["policy"] or None} == {**before, "policy": before.get("policy")}


def test_the_plan_says_what_the_service_level_costs(manifests):
    goal = ("-f", manifests, "--lengths", LENGTHS)
    kept, free = answer(*goal, "--slo-ttft-s", "0.8"), answer(*goal, "--no-slo")
    assert kept["rateRps"] < free["rateRps"]
    assert kept["ttftSeconds"]["p90"] <= 0.8
    assert free["ttftSeconds"]["mean"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of the two"),
        (("--trace", "/nope"), "give the path of a trace"),
        (("--lengths", "uniform:1,2"), "write log-normal:MU,SIGMA,LOW,HIGH"),
        (("--lengths", "log-normal:9.9,-1,128,131072"), "sigma: -1.0"),
        (("--lengths", "log-normal:nan,1,128,131072"), "mu: nan"),
        (("--lengths", LENGTHS, "--goal", "cost"), "--rate: is missing"),
        (("--lengths", LENGTHS, "--goal", "cost", "--rate", "-1"), "rate: -1.0"),
        (("--lengths", LENGTHS, "--goal", "cost", "--rate", "1e6"), "cannot be carried, at most"),
        (("--lengths", LENGTHS, "--slo-ttft-s", "0.001"), "cannot be kept, at best"),
        (("--lengths", LENGTHS, "--bounds", "nope=1:2"), "--bounds nope: no such name; there are east-decode"),
        (("--lengths", LENGTHS, "--bounds", "east-prefill=3:2"), "maximum: 2"),
        (("--lengths", LENGTHS, "--bounds", "east-prefill"), "write NAME=VALUE"),
        (("--lengths", LENGTHS, "--price", "H100=1"), "no pool runs on it"),
        (("--lengths", LENGTHS, "--price", "H20=-1"), "--price H20: -1.0"),
        (("--lengths", LENGTHS, "--weight", "nope=1"), "--weight nope"),
        (("--lengths", LENGTHS, "--output-tokens", "0"), "output_tokens: 0.0"),
    ],
)
def test_bad_input_is_the_users_error_with_a_way_out(manifests, arguments, message):
    result = run("-f", manifests, *arguments)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("10-profiles.yaml", "tokens: 8192, seconds:", "tokens: 512, seconds:", "anchors are not in ascending order"),
        (
            "20-pools.yaml",
            "profileRef: {name: case-study-h200}",
            "profileRef: {name: other}",
            "ModelProfile other is not",
        ),
        ("30-link.yaml", "fromClusterRef: {name: west}", "fromClusterRef: {name: south}", "no KVLink leads from west"),
        ("30-link.yaml", "capacityGbps:", "capacityGbps: 0 #", "capacityGbps"),
        (
            "40-route.yaml",
            "decodePoolRef: {name: east-decode}",
            "decodePoolRef: {name: missing}",
            "DecodePool missing is not",
        ),
        ("40-route.yaml", "kind: InferenceRoute", "kind: Other", "no InferenceRoute"),
        ("40-route.yaml", "kind: InferenceRoute", "kind: [", "not YAML"),
    ],
)
def test_bad_manifests_are_named(manifests, file, old, new, message):
    path = manifests / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    result = run("-f", manifests, "--lengths", LENGTHS)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


def test_an_empty_trace_and_a_missing_folder_are_refused(manifests, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    assert "holds no requests" in run("-f", manifests, "--trace", tmp_path / "empty.jsonl").output
    assert "give a file or folder" in run("-f", tmp_path / "nope", "--lengths", LENGTHS).output
