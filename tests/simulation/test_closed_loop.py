"""The loops over the simulated case study: what the policies reach, and what nobody can."""

from dataclasses import replace
from random import Random

import pytest

from prfaas_core import case_study, routing, simulation
from prfaas_core.routing import Algorithm, baselines
from prfaas_core.simulation import DecodePool, Link, LinkChange, PrefillPool, Result, Scenario, bounds, traffic
from prfaas_core.simulation.closed_loop import ClosedLoop

H20, H200 = case_study.H20, case_study.H200


def run(
    algorithm: Algorithm, bps: float, roles: tuple[int, int], threshold: int, rate: float, count: int, **more: object
) -> Result:
    changes = more.pop("changes", ())
    controller = more.pop("controller", None) or ClosedLoop(
        case_study.PRFAAS, decode="d", local="l", remote=("r",), roles_period_s=float(more.pop("roles_period_s", 1e9))
    )
    scenario = Scenario(
        decode=DecodePool("d", H20, roles[1]),
        local=PrefillPool("l", H20, roles[0]),
        remote=(PrefillPool("r", H200, 4, link=Link(bps, changes=changes)),),
        threshold_tokens=threshold,
        algorithm=algorithm,
        prices={"d": 2.0, "l": 2.0, "r": 1.5},
        link_prices={"r": 1.0},
        controller=controller,
        control_period_s=20.0,
    )
    return simulation.simulate(scenario, traffic.poisson(Random(11), rate, count))


def test_the_fluid_bound_of_the_case_study() -> None:
    """True means: 3.156 req/s at 19.6K tokens (with our anchors a little more), 3.334 with fractional roles."""
    rate, threshold = bounds.capacity(case_study.PRFAAS, case_study.LENGTHS, absorb=False)
    assert rate == pytest.approx(3.16, abs=0.01)
    assert threshold == pytest.approx(19_600, abs=200)
    absorbed, _ = bounds.capacity(case_study.PRFAAS, case_study.LENGTHS, absorb=True)
    assert absorbed == pytest.approx(3.334, abs=0.01)
    slow = replace(case_study.PRFAAS, link_bps=8e9, local_instances=4, decode_instances=4)
    assert bounds.capacity(slow, case_study.LENGTHS, absorb=False)[0] == pytest.approx(2.645, abs=0.01)
    alone = replace(case_study.PRFAAS, link_bps=0.0)
    assert bounds.capacity(alone, case_study.LENGTHS, absorb=False)[0] == pytest.approx(
        3 / case_study.LENGTHS.expectation(H20.prefill_s), rel=1e-6
    )


def test_near_saturation_finish_time_beats_the_papers_rule() -> None:
    paper = run(Algorithm.PAPER, 1e11, (3, 5), 19_600, 3.0, 5000).summary(from_s=200)
    ours = run(Algorithm.FINISH_TIME, 1e11, (3, 5), 19_600, 3.0, 5000).summary(from_s=200)
    assert ours.ttft_mean_s < 0.85 * paper.ttft_mean_s
    assert ours.ttft_p90_s < 0.85 * paper.ttft_p90_s
    assert ours.throughput_rps >= 0.995 * paper.throughput_rps


def test_at_low_load_finish_time_beats_it_too() -> None:
    paper = run(Algorithm.PAPER, 1e11, (3, 5), 19_600, 1.5, 3000).summary()
    ours = run(Algorithm.FINISH_TIME, 1e11, (3, 5), 19_600, 1.5, 3000).summary()
    assert ours.ttft_mean_s < 0.9 * paper.ttft_mean_s
    assert ours.ttft_p90_s < paper.ttft_p90_s


@pytest.mark.parametrize(("bps", "roles", "threshold"), [(8e9, (4, 4), 28_700), (4e9, (5, 3), 46_800)])
def test_on_a_slow_link_the_loop_holds_97_percent_of_the_bound(
    bps: float, roles: tuple[int, int], threshold: int
) -> None:
    """At 97 % of what the best threshold carries for these roles, the wait stays bounded."""
    deployment = replace(case_study.PRFAAS, link_bps=bps, local_instances=roles[0], decode_instances=roles[1])
    bound, _ = bounds.capacity(deployment, case_study.LENGTHS, absorb=False)
    result = run(Algorithm.FINISH_TIME, bps, roles, threshold, 0.97 * bound, 6000)
    half = result.arrived_s[3000]
    first, second = result.summary(to_s=half), result.summary(from_s=half)
    assert second.throughput_rps > 0.95 * bound
    assert second.ttft_mean_s < 25.0
    assert second.ttft_mean_s < 3 * first.ttft_mean_s


def test_roles_follow_a_link_that_is_too_slow_for_them() -> None:
    result = run(Algorithm.FINISH_TIME, 4e9, (3, 5), 19_600, 1.5, 2500, roles_period_s=120.0)
    local = [value for _, what, value in result.history if what == "workers l"]
    assert local
    assert local[-1] in (4, 5)
    assert result.failed == 0


def test_a_link_that_drops_is_noticed_and_the_threshold_follows() -> None:
    drop = (LinkChange(300.0, 2e9), LinkChange(900.0, 1e10))
    result = run(Algorithm.PAPER, 1e10, (4, 4), 25_000, 1.8, 2400, changes=drop)
    thresholds = [(at_s, value) for at_s, what, value in result.history if what == "threshold"]
    during = [value for at_s, value in thresholds if 330.0 < at_s < 900.0]
    assert during
    assert max(during) > 1.3 * 25_000
    assert thresholds[-1][1] < max(during)


def test_no_policy_is_below_the_oracles_bounds() -> None:
    arrivals = list(traffic.poisson(Random(2), 2.8, 1500))
    offered = [(at_s, tokens) for at_s, tokens, _, _ in arrivals]
    sides = [(H200.prefill_s, 4.0), (H20.prefill_s, 8.0)]
    least = max(bounds.alone_s([tokens for _, tokens in offered], sides), bounds.pooled_s(offered, sides))
    for policy in (routing.decide, baselines.least_loaded, baselines.always_remote):
        scenario = Scenario(
            decode=DecodePool("d", H20, 5),
            local=PrefillPool("l", H20, 3),
            remote=(PrefillPool("r", H200, 4, link=Link(1e11)),),
            threshold_tokens=19_600,
            policy=policy,
            algorithm=Algorithm.FINISH_TIME,
            prices={"d": 2.0, "l": 2.0, "r": 1.5},
            link_prices={"r": 1.0},
        )
        assert simulation.simulate(scenario, arrivals).summary().ttft_mean_s > least
    # Alone and at once is what one request gets.
    assert bounds.alone_s([8192], sides) == bounds.pooled_s([(0.0, 8192)], [sides[0]], (1,)) * 4 == pytest.approx(0.72)
