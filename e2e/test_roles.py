"""Instances change from prefill to decode while requests are served, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from prfaas_cli.trace import BLOCK_TOKENS, TraceRequest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(420)]

RATE_RPS, REQUESTS = 4.0, 320
PROMPT_TOKENS, ANSWER_TOKENS = BLOCK_TOKENS, 600
SIZE = 3  # of either pool
FAST = ["--role-interval-s=2", "--link-interval-s=2"]


def long_answers() -> list[TraceRequest]:
    """Return short prompts with long answers."""
    return [TraceRequest(number / RATE_RPS, PROMPT_TOKENS, ANSWER_TOKENS, (number,)) for number in range(REQUESTS)]


@pytest.fixture
def exchanging(system: Any) -> Iterator[Any]:
    """The installation with an operator that decides on roles every other second, and two pools of equal size."""
    operator = json.loads(system.hub.kubectl("get", "deployments", "-n", "prfaas-system", "-o", "json"))["items"][0]
    name, arguments = operator["metadata"]["name"], operator["spec"]["template"]["spec"]["containers"][0]["args"]

    def restart_with(found: list[str]) -> None:
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": found}]
        system.hub.kubectl("patch", "deployment", name, "-n", "prfaas-system", "--type=json", "-p", json.dumps(patch))
        system.hub.kubectl("rollout", "status", f"deployment/{name}", "-n", "prfaas-system", "--timeout=60s")

    restart_with([*arguments, *FAST])
    change = [{"op": "remove", "path": "/spec/scaling"}, {"op": "add", "path": "/spec/replicas", "value": SIZE}]
    system.patch("decodepool", "east-decode", change)
    system.wait(lambda: sizes(system) == (SIZE, SIZE), "both pools to have three workers", 90)
    yield system
    restart_with(arguments)


def sizes(system: Any) -> tuple[int, int]:
    """Return how many prefill and decode workers are ready."""
    found = [
        system.get(kind, name)["status"].get("readyReplicas", 0)
        for kind, name in (("prefillpool", "east-prefill"), ("decodepool", "east-decode"))
    ]
    return found[0], found[1]


def roles(system: Any, mode: str) -> None:
    wanted = {"mode": mode, "stabilizationWindowSeconds": 4}
    system.patch("inferenceroute", "chat", {"spec": {"policy": {"roles": wanted}}})


def test_long_answers_turn_prefill_into_decode_without_losing_a_request(exchanging: Any) -> None:
    system = exchanging
    load = system.serve(long_answers())
    system.wait(lambda: load.answered >= 80, "answers", 90)
    roles(system, "Auto")
    system.wait(lambda: sizes(system)[1] > SIZE, "a decode worker more", 60)
    system.wait(lambda: sizes(system)[0] < SIZE, "a prefill worker less", 30)
    plan = system.get("inferenceroute", "chat")["status"]["plan"]
    assert plan["wantedDecode"] > SIZE
    assert plan["wantedLocalPrefill"] + plan["wantedDecode"] == 2 * SIZE
    assert system.condition("inferenceroute", "chat", "RolesActive") == ("True", "RolesPlanned")

    # What a GitOps tool does: the spec says three, as it did before, and nothing goes back.
    (pool,) = [item for item in system.manifests.of_kind("PrefillPool") if item["metadata"]["name"] == "east-prefill"]
    assert pool["spec"]["replicas"] == SIZE
    assert "unchanged" in system.hub.kubectl("apply", "-f", "-", stdin=json.dumps(pool))

    outcomes = load.outcomes()
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert all(outcome.output_tokens == ANSWER_TOKENS for outcome in outcomes)
    # A conversion that is under way when the load ends is carried through.
    system.wait(lambda: sum(sizes(system)) == 2 * SIZE, "as many workers as before", 60)
    prefill, decode = sizes(system)
    assert prefill < SIZE
    print(f"{prefill} prefill and {decode} decode workers; {dict(system.reasons(outcomes))}")

    roles(system, "Fixed")
    system.wait(lambda: sizes(system) == (SIZE, SIZE), "the sizes of the specs", 90)
    assert "roles" not in system.get("inferenceroute", "chat")["status"]
    assert system.complete().status_code == 200
