"""Nothing is lost and nothing is made up, whatever breaks; and a seed is a run."""

import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_core import autoscaling, case_study, routing, simulation
from prfaas_core.autoscaling import SignalName
from prfaas_core.routing import Algorithm, baselines
from prfaas_core.simulation import (
    Conversion,
    Core,
    DecodePool,
    Failure,
    Link,
    LinkChange,
    Metric,
    PrefillPool,
    Result,
    Scaling,
    Scenario,
    traffic,
)
from prfaas_core.simulation.closed_loop import ClosedLoop

H20 = replace(case_study.H20, cache_capacity_tokens=300_000)
H200 = replace(case_study.H200, cache_capacity_tokens=300_000)
PRICES = {"d": 2.0, "l": 2.0, "r": 1.5}


def chats(seed: int, count: int = 150, rate_rps: float = 2.0) -> tuple[simulation.Arrival, ...]:
    return traffic.conversations(
        Random(seed), rate_rps, count, turns=5, first=traffic.log_normal(9.0, 1.0, 128, 60_000),
        growth=traffic.log_normal(7.0, 1.0, 64, 8000), think_s=20.0, shared_blocks=2, output_tokens=200,
    )  # fmt: skip


def scenario(**changes: object) -> Scenario:
    base = Scenario(
        decode=DecodePool("d", H20, 3),
        local=PrefillPool("l", H20, 2),
        remote=(PrefillPool("r", H200, 2, link=Link(2e10, delay_s=0.02, cost_per_gb=0.05)),),
        threshold_tokens=8000,
        algorithm=Algorithm.FINISH_TIME,
        prices=PRICES,
        link_prices={"r": 1.0},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def accounted(result: Result, count: int) -> None:
    assert len(result.ttft_s) == count
    assert result.finished + result.failed == count
    assert all(value >= 0 for value in result.ttft_s if not math.isnan(value))
    for name, taken in result.link_taken_bytes.items():
        assert result.link_bytes[name] == pytest.approx(taken, rel=1e-9, abs=1.0)


CHANGES = st.lists(
    st.builds(
        LinkChange,
        st.floats(0, 100),
        st.sampled_from([0.0, 1e9, 4e9, 2e10]),
        st.sampled_from([0.0, 5e8]),
        st.integers(0, 3),
    ),
    max_size=4,
).map(lambda changes: (*sorted(changes, key=lambda change: change.at_s), LinkChange(120.0, 2e10)))
FAILURES = st.lists(
    st.builds(Failure, st.floats(1, 90), st.sampled_from("dlr"), st.integers(1, 3), st.sampled_from([5.0, 40.0])),
    max_size=3,
).map(tuple)
CONVERSIONS = st.lists(st.builds(Conversion, st.floats(1, 90), st.booleans(), st.just(1), st.just(3.0)), max_size=3)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    algorithm=st.sampled_from(Algorithm),
    push=st.booleans(),
    hybrid=st.booleans(),
    batch=st.sampled_from([0, 16_000]),
    chunk=st.sampled_from([1.0, 0.5]),
    changes=CHANGES,
    failures=FAILURES,
    conversions=CONVERSIONS.map(tuple),
    timeout_s=st.sampled_from([math.inf, 20.0]),
)
def test_every_request_is_answered_or_failed_and_every_byte_arrives(
    seed, algorithm, push, hybrid, batch, chunk, changes, failures, conversions, timeout_s
) -> None:
    remote = PrefillPool("r", H200, 2, link=Link(2e10, delay_s=0.02, changes=changes), push=push, batch_tokens=batch)
    arrivals = chats(seed)
    what = scenario(
        decode=DecodePool("d", H20, 3, chunk_share=chunk),
        remote=(remote,),
        algorithm=algorithm,
        hybrid=hybrid,
        state_tokens=10_000,
        failures=failures,
        conversions=conversions,
        transfer_timeout_s=timeout_s,
    )
    result = simulation.simulate(what, arrivals)
    accounted(result, len(arrivals))
    if not failures:
        assert result.failed == 0
    assert sum(result.reasons.values()) >= result.finished


def test_the_same_traffic_gives_the_same_run() -> None:
    def run(seed: int) -> Result:
        loop = ClosedLoop(case_study.PRFAAS, decode="d", local="l", remote=("r",), roles_period_s=30.0)
        return simulation.simulate(scenario(controller=loop), chats(seed))

    one, two, other = run(1), run(1), run(2)
    assert (one.ttft_s, one.itl_s, one.history, one.link_bytes) == (two.ttft_s, two.itl_s, two.history, two.link_bytes)
    assert one.ttft_s != other.ttft_s


def test_a_worker_that_dies_loses_only_what_it_was_answering() -> None:
    arrivals = chats(3)
    dead_prefill = simulation.simulate(scenario(failures=(Failure(20.0, "r", 2), Failure(20.0, "l", 2))), arrivals)
    accounted(dead_prefill, len(arrivals))
    assert dead_prefill.failed == 0
    assert dead_prefill.reasons[routing.Reason.LOCAL_PREFILL_UNAVAILABLE] > 0
    dead_decode = simulation.simulate(scenario(failures=(Failure(20.0, "d", 1, 10.0),)), arrivals)
    accounted(dead_decode, len(arrivals))
    assert 0 < dead_decode.failed <= H20.decode_slots


def test_without_decode_workers_requests_fail_until_they_are_back() -> None:
    arrivals = chats(4)
    result = simulation.simulate(scenario(failures=(Failure(20.0, "d", 3, 10.0),)), arrivals)
    accounted(result, len(arrivals))
    down = [index for index, at_s in enumerate(result.arrived_s) if 20.0 <= at_s < 30.0]
    assert all(math.isnan(result.ttft_s[index]) for index in down)
    assert not math.isnan(result.ttft_s[-1])


def test_an_outage_holds_transfers_up_and_a_timeout_ends_the_wait() -> None:
    always = baselines.always_remote
    link = Link(2e10, changes=(LinkChange(10.0, 0.0), LinkChange(200.0, 2e10)))
    remote = (PrefillPool("r", H200, 2, link=link),)
    arrivals = list(traffic.poisson(Random(1), 0.4, 30))
    patient = simulation.simulate(scenario(remote=remote, policy=always), arrivals)
    hasty = simulation.simulate(scenario(remote=remote, policy=always, transfer_timeout_s=5.0), arrivals)
    accounted(patient, 30)
    accounted(hasty, 30)
    assert max(patient.ttft_s) > 150 > 100 > max(hasty.ttft_s)
    assert hasty.reasons[routing.Reason.KV_TRANSFER_FAILED] > 0


def test_a_conversion_drains_and_changes_the_role() -> None:
    result = simulation.simulate(scenario(conversions=(Conversion(10.0, True, 1, 5.0),)), chats(5))
    workers = [(what, value) for _, what, value in result.history]
    assert workers == [("workers l", 1), ("workers d", 4)]
    assert result.failed == 0


def test_a_pool_grows_with_its_load_and_needs_time_to_start() -> None:
    settings_ = autoscaling.Settings(min_replicas=1, max_replicas=6, down=autoscaling.Rules(30.0))
    load = Metric(SignalName.PREFILL_LOAD, target=0.7, window_s=30.0)
    local = PrefillPool("l", H20, 1, scaling=Scaling((load,), Core(settings_), start_up_s=15.0, scrape_s=5.0))
    arrivals = list(traffic.varying(Random(1), [(60, 0.2, traffic.fixed(8000)), (120, 2.0, traffic.fixed(8000)), (300, 0.1, traffic.fixed(8000))], 50))  # fmt: skip
    result = simulation.simulate(
        scenario(local=local, remote=(), algorithm=Algorithm.PAPER, threshold_tokens=10**6), arrivals
    )
    accounted(result, len(arrivals))
    sizes = [(at_s, value) for at_s, what, value in result.history if what == "workers l"]
    assert 480 < result.replica_s["l"] < 480 * max(value for _, value in sizes)
    assert max(value for _, value in sizes) >= 3
    assert sizes[0][0] >= 60 + 15
    assert sizes[-1][1] < max(value for _, value in sizes)


def test_prefill_on_a_decode_worker_holds_its_tokens_up() -> None:
    """One request decodes for 10 s; a prefill of 2 s there makes it 12 s, and 10 s when both run side by side."""
    tokens = int(H20.prefill_s.inverse(2.0))
    arrivals = [(0.0, 128, 401, ()), (3.0, tokens, 1, ())]
    for interference, expected_s in ((1.0, 12.0), (0.5, 11.0), (0.0, 10.0)):
        for chunk in (1.0, 0.25):
            what = scenario(
                decode=DecodePool("d", H20, 1, interference=interference, chunk_share=chunk), local=None, remote=()
            )
            result = simulation.simulate(what, arrivals)
            assert result.itl_s[0] * 400 == pytest.approx(expected_s, rel=1e-3)
            assert result.ttft_s[1] == pytest.approx(2.0 / chunk, rel=1e-3)


def test_pushed_kv_is_there_with_its_last_layer() -> None:
    tokens = 32_768
    prefill_s, size_bytes = H200.prefill_s(tokens), H200.kv_bytes(tokens)
    for push, wide_s in ((False, 8 * size_bytes / 1e11), (True, 8 * size_bytes / 60 / 1e11)):
        for bps, expected_s in ((1e11, prefill_s + wide_s), (1e9, 8 * size_bytes / 1e9 + (0.0 if push else prefill_s))):
            remote = PrefillPool("r", H200, 1, link=Link(bps), push=push)
            what = scenario(remote=(remote,), policy=baselines.always_remote)
            result = simulation.simulate(what, [(0.0, tokens, 1, ())])
            assert result.ttft_s[0] == pytest.approx(expected_s, rel=0.01)


def test_short_prompts_in_a_batch_share_the_fixed_cost() -> None:
    arrivals = [(0.0, 40_000, 1, ()), (0.1, 1000, 1, ()), (0.2, 1000, 1, ())]
    ends = {}
    for batch in (0, 4000):
        local = PrefillPool("l", H20, 1, batch_tokens=batch)
        result = simulation.simulate(scenario(local=local, remote=(), absorb=False), arrivals)
        ends[batch] = result.ttft_s[2]
    assert ends[4000] == pytest.approx(H20.prefill_s(40_000) + H20.prefill_s(2000) - 0.2)
    assert ends[0] == pytest.approx(H20.prefill_s(40_000) + 2 * H20.prefill_s(1000) - 0.2)


def test_arrivals_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="order them"):
        simulation.simulate(scenario(), [(1.0, 10, 1, ()), (0.5, 10, 1, ())])
