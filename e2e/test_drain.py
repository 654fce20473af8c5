"""Pools get smaller while requests are served: nothing is cut off, and KV that was promised is fetched."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

POOLS = {"west-prefill": ("west", "prefillpool"), "east-prefill": ("east", "prefillpool"),
         "east-decode": ("east", "decodepool")}  # fmt: skip
# What broke, and was made good by somebody else.
BROKEN = ("failed", "not_offered", "unavailable")


def resize(system: Any, replicas: int) -> None:
    for name, (_, kind) in POOLS.items():
        system.kubectl("scale", f"{kind}/{name}", f"--replicas={replicas}")


def wait_pods(system: Any, replicas: int) -> None:
    for name, (cluster, kind) in POOLS.items():
        system.wait(
            lambda name=name, cluster=cluster: len(system.pods(cluster, pool=name)) == replicas,
            f"{name} to have {replicas} workers",
        )
        system.wait(
            lambda name=name, kind=kind: system.condition(kind, name) == ("True", "Available"), f"{name} to be complete"
        )


def test_workers_that_go_drop_nothing(system: Any, record_property: Any) -> None:
    for name, (_, kind) in POOLS.items():
        spec = {"spec": {"replicas": 3, "scaling": None}}
        system.patch(kind, name, spec)
    system.patch("inferenceroute", "chat", {"spec": {"policy": {"threshold": 4000}}})
    wait_pods(system, 3)
    load = system.replay(220, speed=4)
    load.wait_answered(20)

    began_s = time.monotonic()
    resize(system, 1)
    for name, (_, kind) in POOLS.items():
        system.wait(lambda name=name, kind=kind: system.condition(kind, name)[1] == "Draining", f"{name} to drain")
    wait_pods(system, 1)
    record_property("drained_s", time.monotonic() - began_s)
    assert load.answered < 220, "the workers went after the load was over"

    # And back again, while it is still there.
    resize(system, 2)
    wait_pods(system, 2)
    outcomes = load.outcomes()
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    reasons = system.reasons(outcomes)
    assert not [reason for reason in reasons if any(word in reason for word in BROKEN)], reasons
    assert reasons["uncached_above_threshold"] > 20
    events = json.loads(system.kubectl("get", "events", "-o", "json"))["items"]
    assert not [event["message"] for event in events if event["reason"] == "DrainTimedOut"]
