"""Manifests as the simulator's scenario: what they say is in it, and what they leave open is as documented."""

import copy
from pathlib import Path

import pytest
import yaml

from prfaas_cli import scenario, scenario_traffic, whatif_outcome, whatif_variants
from prfaas_cli.plan_manifests import Document, ManifestError
from prfaas_core import errors, routing, simulation
from prfaas_core.lengths import Lengths

MANIFESTS = Path(__file__).parents[2] / "e2e" / "manifests"
LENGTHS = Lengths.of([500, 3000, 9000, 20_000, 50_000])


@pytest.fixture
def bodies():
    """The specs of the manifests, to change before they are read: `bodies[kind, name]`."""
    return {
        (body["kind"], body["metadata"]["name"]): copy.deepcopy(body)
        for path in sorted(MANIFESTS.glob("*.yaml"))
        for body in yaml.safe_load_all(path.read_text())
    }


def read(bodies, **arguments):
    documents = [Document(Path("manifests.yaml"), index, body) for index, body in enumerate(bodies.values())]
    return scenario.read(documents, **arguments)


def of_engine(bodies, engine, **kv):
    for name in ("case-study-h200", "case-study-h20"):
        spec = bodies["ModelProfile", name]["spec"]
        spec["engine"]["name"] = engine
        spec["kv"].update(kv)


def test_pools_link_and_policy_are_those_of_the_manifests(bodies):
    setup = read(bodies)
    assert [(pool.name, pool.workers) for pool in setup.pools()] == [
        ("east-decode", 3), ("east-prefill", 3), ("west-prefill", 2),
    ]  # fmt: skip
    (remote,) = setup.remote
    assert remote.line == scenario.Line("west-to-east", 0.8e9, 0.8, 0.01)
    assert (setup.threshold, setup.mode, setup.algorithm) == ("Auto", routing.Mode.ENFORCE, routing.Algorithm.PAPER)
    assert len(setup.notes) == 2, "two pools scale, and are taken as they start"
    made = setup.scenario(LENGTHS, 300.0)
    assert (made.decode.workers, made.remote[0].workers) == (3, 2)
    assert made.remote[0].link.capacity_bps == 0.8e9
    assert made.remote[0].link.told_bps == pytest.approx(0.64e9)


def test_given_workers_replace_those_of_the_manifests(bodies):
    setup = read(bodies, workers={"west-prefill": 4, "east-prefill": 1})
    assert {pool.name: pool.workers for pool in setup.pools()} == {
        "east-decode": 3, "east-prefill": 1, "west-prefill": 4,
    }  # fmt: skip


def test_auto_follows_the_workers_and_a_number_stays(bodies):
    few, many = (read(bodies, workers={"west-prefill": count}).threshold_tokens(LENGTHS, 300.0) for count in (1, 12))
    assert many < few
    bodies["InferenceRoute", "chat"]["spec"]["policy"]["threshold"] = 1234
    assert read(bodies).threshold_tokens(LENGTHS, 300.0) == 1234


def test_finish_time_is_told_the_operators_prices(bodies):
    bodies["InferenceRoute", "chat"]["spec"]["policy"]["algorithm"] = "FinishTime"
    made = read(bodies).scenario(LENGTHS, 300.0)
    assert made.algorithm is routing.Algorithm.FINISH_TIME
    assert set(made.prices) == {"east-decode", "east-prefill", "west-prefill"}
    assert set(made.link_prices) == {"west-prefill"}
    assert all(price > 0 for price in (*made.prices.values(), *made.link_prices.values()))
    assert made.base_prices["east-prefill"] > 0
    result = simulation.simulate(made, [(float(at_s), 40_000, 10, ()) for at_s in range(20)])
    missing = {reason for reason in result.reasons if reason.kind is routing.ReasonKind.FAULT}
    assert not missing, "every signal that the policy needs is there"


def test_bandwidth_is_fixed_or_found_by_the_link(bodies):
    assert read(bodies).scenario(LENGTHS, 300.0).controller is not None
    bodies["InferenceRoute", "chat"]["spec"]["policy"]["bandwidth"] = "Scarce"
    made = read(bodies).scenario(LENGTHS, 300.0)
    assert made.controller is None
    assert made.bandwidth is routing.Bandwidth.SCARCE


def test_a_link_that_is_full_becomes_scarce(bodies):
    bodies["KVLink", "west-to-east"]["spec"]["capacityGbps"] = 0.008
    bodies["InferenceRoute", "chat"]["spec"]["policy"]["threshold"] = 0
    made = read(bodies).scenario(LENGTHS, 300.0)
    seen = []

    def watched(observation):
        seen.append(observation.bandwidth)
        return made.controller(observation)

    simulation.simulate(
        simulation.Scenario(
            decode=made.decode, local=made.local, remote=made.remote, controller=watched,
            control_period_s=made.control_period_s,
        ),
        [(at / 2, 30_000, 10, ()) for at in range(200)],
    )  # fmt: skip
    assert seen[0] is routing.Bandwidth.ABUNDANT
    assert routing.Bandwidth.SCARCE in seen


def test_only_real_engines_hold_decoding_up_and_keep_recurrent_state(bodies):
    simulated = read(bodies)
    assert (simulated.hybrid, simulated.interference) == (False, 0.0)
    of_engine(bodies, "VLLM")
    real = read(bodies)
    assert (real.hybrid, real.interference) == (True, 1.0)
    # 182.5 kB of state at 17.14 B a token.
    assert real.scenario(LENGTHS, 300.0).state_tokens == pytest.approx(10_650, rel=0.02)
    of_engine(bodies, "VLLM", attention="GQA")
    assert not read(bodies).hybrid


def test_the_connector_says_whether_kv_is_pushed(bodies):
    assert not read(bodies).scenario(LENGTHS, 300.0).remote[0].push
    of_engine(bodies, "VLLM", connector={"name": "NixlPushConnector", "version": "15"})
    assert read(bodies).scenario(LENGTHS, 300.0).remote[0].push


def test_a_tight_objective_between_tokens_keeps_prefill_off_decode_workers(bodies):
    assert not read(bodies).absorb
    del bodies["InferenceRoute", "chat"]["spec"]["slo"]["itlSeconds"]
    assert read(bodies).absorb


def test_pools_of_one_cluster_are_behind_one_link(bodies):
    second = copy.deepcopy(bodies["PrefillPool", "west-prefill"])
    second["metadata"]["name"] = "west-more"
    bodies["PrefillPool", "west-more"] = second
    bodies["InferenceRoute", "chat"]["spec"]["remotePrefillPoolRefs"].append({"name": "west-more"})
    bodies["InferenceRoute", "chat"]["spec"]["policy"]["threshold"] = 0
    setup = read(bodies)
    assert [pool.line.name for pool in setup.remote] == ["west-to-east"] * 2
    one, two = setup.scenario(LENGTHS, 300.0).remote
    assert one.link == two.link
    traffic = scenario_traffic.Traffic(tuple((at / 4, 30_000, 10, ()) for at in range(40)), LENGTHS, 10.0)
    slow = whatif_variants.link("west-to-east=0.01")(whatif_variants.Case(setup, traffic))
    assert {pool.line.capacity_bps for pool in slow.case.setup.remote} == {1e7}
    (link,) = whatif_outcome.simulate(slow).links
    assert link.name == "west-to-east"
    assert link.gigabytes == pytest.approx(40 * 0.689e-3, rel=0.01)
    assert link.utilisation == pytest.approx(1.0, abs=0.05)


def test_several_routes_need_a_choice(bodies):
    second = copy.deepcopy(bodies["InferenceRoute", "chat"])
    second["metadata"]["name"] = "other"
    bodies["InferenceRoute", "other"] = second
    with pytest.raises(
        ManifestError, match="the manifests hold the InferenceRoutes chat, other; choose one with --route"
    ):
        read(bodies)
    assert read(bodies, route="other").route == "other"


def test_overhead_below_zero_is_refused():
    with pytest.raises(errors.InvalidValueError, match=r"overhead\.token_s"):
        scenario.Overhead(0.1, -1.0)
    assert scenario.Overhead(0.5, 0.001).seconds(1000) == pytest.approx(1.5)
