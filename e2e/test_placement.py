"""The router as a Deployment of its own and as a sidecar of the decode pods, and its decisions over gRPC."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from prfaas_protocol import decision_pb2 as pb
from prfaas_protocol import decision_pb2_grpc as rpc

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]


def decide(system: Any, tokens: int) -> pb.DecideResponse:
    host = system.url.removeprefix("http://").rsplit(":", 1)[0]
    with grpc.insecure_channel(f"{host}:9090") as channel:
        prompt = pb.TokenIds(ids=[(tokens * 7 + number * number) % 50_000 for number in range(tokens)])
        return rpc.RouterStub(channel).Decide(pb.DecideRequest(model="prfaas-1t", token_ids=prompt), timeout=10)


def test_a_gateway_gets_the_decision_that_the_data_path_would_take(system: Any) -> None:
    system.patch("inferenceroute", "chat", {"spec": {"policy": {"threshold": 3000}}})
    system.wait(lambda: decide(system, 3001).destination == pb.DecideResponse.REMOTE_PREFILL, "the threshold")
    far, near = decide(system, 3100), decide(system, 2900)
    assert (far.destination, far.reason) == (pb.DecideResponse.REMOTE_PREFILL, "uncached_above_threshold")
    assert (near.destination, near.reason) == (pb.DecideResponse.LOCAL_PREFILL, "uncached_within_threshold")
    assert far.prefill.address.startswith("127.130."), "the address as the decode cluster sees it, behind the link"
    assert far.decode.address.startswith("127.20.")
    answer = system.complete(tokens=3100)
    assert answer.headers["x-prfaas-reason"] == "uncached_above_threshold"


def test_the_router_moves_to_the_decode_pods_and_back_and_no_request_is_lost(system: Any) -> None:
    load = system.replay(600, speed=4)
    load.wait_answered(10)
    system.patch("inferenceroute", "chat", {"spec": {"router": {"placement": "Sidecar"}}})
    system.wait(lambda: not system.pods("east", role="router"), "the end of the router's Deployment", 120)
    pods = system.pods("east", pool="east-decode")
    assert all(len(pod["spec"]["containers"]) == 2 for pod in pods)
    system.wait(lambda: system.condition("inferenceroute", "chat")[0] == "True", "the route")
    routers = {item["name"] for item in system.get("inferenceroute", "chat")["status"]["configuration"]["routers"]}
    assert routers == {pod["metadata"]["name"] for pod in pods}
    assert system.complete().status_code == 200
    system.patch("inferenceroute", "chat", {"spec": {"router": {"placement": "Front"}}})
    system.wait(
        lambda: (
            all(len(pod["spec"]["containers"]) == 1 for pod in system.pods("east", pool="east-decode"))
            and len(system.pods("east", role="router")) == 1
        ),
        "decode pods without routers",
        120,
    )
    system.wait(lambda: system.complete().status_code == 200, "an answer")
    assert [outcome.error for outcome in load.outcomes() if outcome.error] == []


def test_an_upgrade_of_workers_drops_no_stream(system: Any) -> None:
    """A new template rolls the decode pool while answers are streamed."""
    load = system.replay(200, speed=3)
    load.wait_answered(10)
    before = {pod["metadata"]["name"] for pod in system.pods("east", pool="east-decode")}
    container = system.get("decodepool", "east-decode")["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "GENERATION", "value": "2"}]
    system.patch("decodepool", "east-decode", {"spec": {"template": {"spec": {"containers": [container]}}}})
    system.wait(
        lambda: (
            not before & {pod["metadata"]["name"] for pod in system.pods("east", pool="east-decode")}
            and system.condition("decodepool", "east-decode")[0] == "True"
        ),
        "the new pods",
        120,
    )
    assert [outcome.error for outcome in load.outcomes() if outcome.error] == []
    names = json.loads(system.kubectl("get", "pods", "-l", "prfaas.dev/pool=east-decode", "-o", "json", cluster="east"))
    assert all(pod["spec"]["containers"][0]["env"][0]["name"] == "GENERATION" for pod in names["items"])
