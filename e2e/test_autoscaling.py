"""Each side is sized on its own, from Prometheus: steps of load on real clusters, sleep, and the first request after it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from prfaas_cli.trace import BLOCK_TOKENS, TraceRequest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(420)]

RATE_RPS = 3.0
PREFILL, DECODE = ("prefillpool", "west-prefill"), ("decodepool", "east-decode")
WINDOW_S = 15
SETTLED_S = 12.0
AT_ONCE = {"stabilizationWindowSeconds": 0, "policies": []}
BEHAVIOR = {"scaleUp": AT_ONCE, "scaleDown": {"stabilizationWindowSeconds": 600}}


def requests_of(phases: Sequence[tuple[float, int, int]]) -> list[TraceRequest]:
    """Return requests at a steady rate whose lengths change from phase to phase: (seconds, prompt, answer tokens)."""
    requests: list[TraceRequest] = []
    began_s = 0.0
    for duration_s, prompt_tokens, answer_tokens in phases:
        for number in range(int(duration_s * RATE_RPS)):
            first = 1000 * len(requests)
            blocks = tuple(range(first, first + prompt_tokens // BLOCK_TOKENS))
            requests.append(TraceRequest(began_s + number / RATE_RPS, prompt_tokens, answer_tokens, blocks))
        began_s += duration_s
    return requests


def sizes(system: Any) -> tuple[int, int]:
    """Return how many prefill and decode workers are asked for."""
    prefill, decode = (system.get(*pool)["status"]["desiredReplicas"] for pool in (PREFILL, DECODE))
    return prefill, decode


def watched(system: Any, until_s: float) -> list[tuple[float, tuple[int, int]]]:
    """Return what was asked for until a time, as (when, sizes)."""
    seen = []
    while time.monotonic() < until_s:
        seen.append((time.monotonic(), sizes(system)))
        time.sleep(0.5)
    return seen


def settled(seen: list[tuple[float, tuple[int, int]]]) -> tuple[int, int]:
    """Return the sizes at the end, which have not changed for a while before."""
    end_s, last = seen[-1]
    assert {found for at_s, found in seen if end_s - at_s <= SETTLED_S} == {last}, seen
    return last


def scale(system: Any, pool: tuple[str, str], **scaling: Any) -> None:
    """Give a pool another `spec.scaling`."""
    system.patch(*pool, [{"op": "replace", "path": "/spec/scaling", "value": scaling}])


def test_a_step_on_prompts_scales_prefill_and_one_on_answers_decode(system: Any, record_property: Any) -> None:
    """Four times the prompt tokens, then four times the answer tokens: the other side stays, and neither overshoots."""
    system.patch("inferenceroute", "chat", {"spec": {"policy": {"threshold": 100}}})
    common = {"minReplicas": 1, "startupSeconds": 5, "behavior": BEHAVIOR}
    load = {"name": "PrefillLoad", "targetValue": 0.6, "windowSeconds": WINDOW_S}
    scale(system, PREFILL, **common, maxReplicas=6, signals=[load])
    requests = {"name": "DecodeRequests", "targetValue": 3.5, "windowSeconds": WINDOW_S}
    scale(system, DECODE, **common, maxReplicas=6, signals=[requests])
    quick = {"scaleDown": {"stabilizationWindowSeconds": 1}}
    for pool in (PREFILL, DECODE):
        system.patch(*pool, {"spec": {"scaling": {"behavior": quick}}})
    system.wait(lambda: sizes(system) == (1, 1), "one worker of each side")
    system.wait(
        lambda: (
            [len(system.pods(cluster, pool=name)) for cluster, name in (("west", PREFILL[1]), ("east", DECODE[1]))]
            == [1, 1]
        ),
        "the others to go",
    )
    for pool in (PREFILL, DECODE):
        system.patch(*pool, {"spec": {"scaling": {"behavior": BEHAVIOR}}})
    phases = [(14.0, 16_384, 240), (45.0, 65_536, 240), (45.0, 16_384, 960)]
    began_s = time.monotonic()
    work = system.serve(requests_of(phases))
    ends_s = [began_s + sum(duration_s for duration_s, *_ in phases[: index + 1]) for index in range(len(phases))]
    base, prompts, answers = [watched(system, end_s) for end_s in ends_s]
    outcomes = work.outcomes(deadline_s=90)
    record_property("sizes", [settled(phase) for phase in (base, prompts, answers)])
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    before, after_prompts, after_answers = settled(base), settled(prompts), settled(answers)
    assert before == (1, 1)
    assert after_prompts[0] >= 3
    assert {decode for _, (_, decode) in prompts} == {1}
    assert after_answers[1] >= 3
    assert {prefill for _, (prefill, _) in answers} == {after_prompts[0]}
    for phase, side in ((prompts, 0), (answers, 1)):
        numbers = [found[side] for _, found in phase]
        assert numbers == sorted(numbers), "it turned back"
        # What the load needs by the profile is three; more than one above it is an overshoot.
        assert max(numbers) <= 4
    assert system.condition(*PREFILL, "ScalingActive") == ("True", "SignalObserved")


def test_both_sides_sleep_and_the_first_requests_wake_them(system: Any, record_property: Any) -> None:
    """Nobody asks, so nothing runs; requests then wait in the router, and all of them are answered."""
    system.patch("inferenceroute", "chat", {"spec": {"policy": {"threshold": 100}}})
    sleepy = {
        "minReplicas": 0, "maxReplicas": 2, "startupSeconds": 5, "idle": {"coolDownSeconds": 2},
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 1}},
    }  # fmt: skip
    scale(system, PREFILL, **sleepy, signals=[{"name": "PrefillLoad", "targetValue": 0.6, "windowSeconds": 5}])
    scale(system, DECODE, **sleepy, signals=[{"name": "DecodeRequests", "targetValue": 12, "windowSeconds": 5}])

    def asleep() -> bool:
        return not system.pods("west", pool=PREFILL[1]) and not system.pods("east", pool=DECODE[1])

    system.wait(asleep, "both sides to sleep", 120)
    assert system.condition(*DECODE) == ("True", "ScaledToZero")
    started_s = time.monotonic()
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: system.complete(tokens=2000), range(8)))
    record_property("cold_start_s", time.monotonic() - started_s)
    assert [answer.status_code for answer in answers] == [200] * 8, answers[0].text
    assert all(float(answer.headers["x-prfaas-waited-s"]) > 0 for answer in answers)
    # Prefill was wanted as well; until it is there, decode does both.
    system.wait(lambda: len(system.pods("west", pool=PREFILL[1])) >= 1, "prefill to wake up")
    system.wait(
        lambda: system.complete(tokens=2000).headers["x-prfaas-decision"] == "remote_prefill", "a remote prefill", 60
    )
