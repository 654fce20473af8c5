"""Something is killed, cut or slowed down while requests are served: each is answered or fails clearly, none hangs, and the
state converges afterwards."""

from __future__ import annotations

import os
import signal
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

REMOTE_FAILED = {"remote_prefill_failed", "remote_prefill_failed_decode", "kv_transfer_failed", "remote_unavailable"}


def check(system: Any, load: Any, *, errors: bool = False) -> Any:
    """Every request ended, with a reason or a clear error; afterwards everything is ready and answers."""
    outcomes = load.outcomes()
    failed = [outcome for outcome in outcomes if outcome.error]
    if not errors:
        assert [outcome.error for outcome in failed] == []
    for outcome in failed:
        assert outcome.status >= 500 or "error in the stream" in outcome.error or "Error" in outcome.error, outcome
    assert all(outcome.reason for outcome in outcomes if not outcome.error)
    system.wait(system.converged, "everything to be ready again", 90)
    system.wait(lambda: system.complete().status_code == 200, "an answer")
    return outcomes


def long_prompts_go_remote(system: Any) -> None:
    system.patch("inferenceroute", "chat", {"spec": {"policy": {"threshold": 4000}}})
    system.wait(lambda: system.get("inferenceroute", "chat")["status"]["thresholdTokens"] == 4000, "the threshold")
    system.wait(
        lambda: system.get("inferenceroute", "chat")["status"]["routersReady"] == "1/1", "the router to have it"
    )


def test_a_killed_operator_costs_no_request_and_goes_on(system: Any) -> None:
    operator = system.operator()
    load = system.replay(100, speed=4)
    load.wait_answered(20)
    system.kill(operator)
    system.patch("prefillpool", "east-prefill", {"spec": {"replicas": 2}})
    outcomes = check(system, load)
    assert {outcome.status for outcome in outcomes} == {200}
    system.wait(lambda: len(system.pods("east", pool="east-prefill")) == 2, "the change made meanwhile")


def test_a_killed_prefill_worker_is_passed_over_in_mid_transfer(system: Any) -> None:
    long_prompts_go_remote(system)
    # So slow that transfers are under way all the time.
    system.link(capacityBps=20e6)
    load = system.replay(100, speed=3)
    load.wait_answered(10)
    for pod in system.pods("west", pool="west-prefill"):
        system.kill(pod["metadata"]["name"])
    outcomes = check(system, load)
    counts = system.reasons(outcomes)
    assert counts.get("uncached_above_threshold", 0) > 0
    assert REMOTE_FAILED & counts.keys(), counts


def test_a_killed_decode_worker_fails_only_what_it_was_streaming(system: Any) -> None:
    load = system.replay(100, speed=4)
    load.wait_answered(20)
    system.kill(system.pods("east", pool="east-decode")[0]["metadata"]["name"])
    outcomes = check(system, load, errors=True)
    failed = [outcome for outcome in outcomes if outcome.error]
    assert len(failed) < 50
    assert all("error in the stream" in outcome.error or outcome.status == 502 for outcome in failed), failed


def test_a_killed_router_comes_back_with_its_last_configuration(system: Any) -> None:
    load = system.replay(100, speed=4)
    load.wait_answered(20)
    router = system.pods("east", route="chat")[0]["metadata"]["name"]
    system.kill(router)
    outcomes = check(system, load, errors=True)
    assert sum(not outcome.error for outcome in outcomes) > 20
    assert "serving the last known good configuration" in system.log("east", router)


@pytest.mark.parametrize("cluster", ["east", "west"])
def test_a_member_without_its_api_server_serves_on(system: Any, cluster: str) -> None:
    load = system.replay(100, speed=4)
    load.wait_answered(20)
    server = system.cluster(cluster).apiserver
    server.kill()
    try:
        system.wait(lambda: system.condition("membercluster", cluster)[0] == "False", "the hub to notice", 60)
        assert system.complete().status_code == 200
        outcomes = load.outcomes()
        assert [outcome.error for outcome in outcomes if outcome.error] == []
    finally:
        server.start()
    system.wait(system.converged, "everything to be ready again", 90)


def test_pools_hold_without_prometheus_and_say_so(system: Any) -> None:
    load = system.replay(100, speed=4)
    load.wait_answered(20)
    before = system.get("prefillpool", "west-prefill")["status"]["desiredReplicas"]
    pid = system.environment.prometheus.pid
    system.environment.prometheus.kill()
    assert pid is not None
    try:
        system.wait(
            lambda: system.condition("prefillpool", "west-prefill", "ScalingActive")[0] == "False", "the condition"
        )
        assert system.get("prefillpool", "west-prefill")["status"]["desiredReplicas"] >= before
        assert [outcome.error for outcome in load.outcomes() if outcome.error] == []
    finally:
        system.environment.prometheus.start()
    system.wait(lambda: system.condition("prefillpool", "west-prefill", "ScalingActive")[0] == "True", "the signal")
    check(system, load)


def test_a_cut_link_sends_prefills_to_the_local_side_with_a_reason(system: Any) -> None:
    long_prompts_go_remote(system)
    load = system.replay(150, speed=3)
    load.wait_answered(20)
    system.link(fault="cut")
    load.wait_answered(80)
    system.link(fault="none")
    counts = system.reasons(check(system, load))
    assert REMOTE_FAILED & counts.keys(), counts
    assert counts.get("uncached_within_threshold", 0) > 0


def test_a_stalled_link_delays_and_loses_nothing(system: Any) -> None:
    long_prompts_go_remote(system)
    load = system.replay(100, speed=3)
    load.wait_answered(20)
    system.link(fault="stall")
    load.wait_answered(40)
    system.link(fault="none")
    check(system, load)


def test_a_killed_node_takes_its_pods_along_and_they_come_back(system: Any) -> None:
    load = system.replay(100, speed=4)
    load.wait_answered(20)
    pid = system.environment.nodes["west"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    outcomes = check(system, load)
    assert len(outcomes) == 100
    restarts = [
        pod["status"]["containerStatuses"][0]["restartCount"] for pod in system.pods("west", pool="west-prefill")
    ]
    assert sum(restarts) >= 1


def test_bad_requests_get_errors_of_the_openai_kind(system: Any) -> None:
    cases = [
        (b"{", 400, "JSON"),
        (b'{"model": "other", "prompt": "x"}', 404, "other"),
        (b'{"model": "prfaas-1t", "prompt": []}', 400, "prompt"),
        (b'{"model": "prfaas-1t", "prompt": "x", "max_tokens": -1}', 400, "max_tokens"),
        (b'{"model": "prfaas-1t", "prompt": [' + b"1," * 140_000 + b"1]}", 400, "131072"),
    ]
    for body, status, named in cases:
        answer = httpx.post(f"{system.url}/v1/completions", content=body, timeout=30, trust_env=False)
        assert answer.status_code == status, answer.text
        assert named in answer.json()["error"]["message"]
