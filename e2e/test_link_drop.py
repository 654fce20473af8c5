"""The link between the clusters falls to a fifth of what it was while requests are served, and recovers."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(420)]

# Of this the trace takes about half at four times its speed, so that a fifth of it is far too little.
CAPACITY_BPS = 50e6
REQUESTS, SPEED = 450, 4
DROP_AFTER = 100  # answers
FOLLOWS_WITHIN_S = 15.0


class LinkQueue:
    """How many transfers wait for the link, twice a second."""

    def __init__(self, system: Any) -> None:
        self._url = f"{system.environment.link_url}/metrics"
        self._ended = threading.Event()
        self._samples: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(10)

    def longest_since(self, start_s: float) -> float:
        found = [waiting for at_s, waiting in self._samples if at_s >= start_s]
        assert found, "the link was not looked at"
        return max(found)

    def _run(self) -> None:
        while not self._ended.wait(0.5):
            text = httpx.get(self._url, timeout=5, trust_env=False).text
            (waiting,) = re.findall(r'^link_waiting_connections{direction="from_pods"} (\S+)', text, re.MULTILINE)
            self._samples.append((time.monotonic(), float(waiting)))


def threshold(system: Any) -> int:
    """Return the threshold that the router works with."""
    (found,) = re.findall(r"^prfaas_router_threshold_tokens\S* (\S+)", system.metrics("chat-router"), re.MULTILINE)
    return int(float(found))


def ttft_p90_s(outcomes: Sequence[Any], since_s: float) -> float:
    """Return the 90th percentile of the TTFT of what was sent after a time of the replay."""
    found = sorted(outcome.ttft_s for outcome in outcomes if outcome.sent_s >= since_s)
    return float(found[math.ceil(0.9 * len(found)) - 1])


@pytest.fixture
def narrow(system: Any) -> Any:
    """The installation with a link that matters, and pools that stay as they are."""
    system.link(capacityBps=CAPACITY_BPS)
    system.patch("kvlink", "west-to-east", {"spec": {"capacityGbps": CAPACITY_BPS / 1e9}})
    for kind, name, replicas in (("prefillpool", "west-prefill", 4), ("decodepool", "east-decode", 5)):
        change = [
            {"op": "remove", "path": "/spec/scaling"},
            {"op": "add", "path": "/spec/replicas", "value": replicas},
        ]
        system.patch(kind, name, change)
    system.wait(system.converged, "the pools to be ready", 90)
    return system


def capacity_state(system: Any) -> str:
    state: str = system.get("kvlink", "west-to-east")["status"]["capacity"]["state"]
    return state


def settled(system: Any) -> int:
    """Serve the trace once, so that lengths and link are measured; return the threshold for it."""
    outcomes = system.replay(200, SPEED).outcomes()
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert system.get("inferenceroute", "chat")["status"]["thresholdSource"] == "Measured"
    return threshold(system)


def serve_through_the_drop(system: Any) -> tuple[Any, float, float, LinkQueue]:
    """Begin to serve, and cut the link to a fifth; return the load, the time of the drop on the clock and in the replay, and the
    queue."""
    queue, started_s = LinkQueue(system), time.monotonic()
    load = system.replay(REQUESTS, SPEED)
    load.wait_answered(DROP_AFTER)
    system.link(capacityBps=CAPACITY_BPS / 5)
    dropped_s = time.monotonic()
    return load, dropped_s, dropped_s - started_s, queue


def test_the_threshold_follows_a_link_that_falls_to_a_fifth(narrow: Any, record_property: Any) -> None:
    """Nothing is lost, the queue on the link goes away, and TTFT is better than with the threshold that was right before."""
    before = settled(narrow)

    load, dropped_s, since_s, queue = serve_through_the_drop(narrow)
    narrow.wait(lambda: threshold(narrow) > 1.3 * before, "a higher threshold", FOLLOWS_WITHIN_S)
    followed_s = time.monotonic() - dropped_s
    outcomes = load.outcomes()
    queue.stop()
    capacity = narrow.get("kvlink", "west-to-east")["status"]["capacity"]
    planned = queue.longest_since(dropped_s + FOLLOWS_WITHIN_S + 5)
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    auto_s = ttft_p90_s(outcomes, since_s)

    narrow.link(capacityBps=CAPACITY_BPS)
    narrow.patch("inferenceroute", "chat", {"spec": {"policy": {"threshold": before}}})
    narrow.wait(lambda: threshold(narrow) == before, "the threshold of before")
    load, dropped_s, since_s, queue = serve_through_the_drop(narrow)
    outcomes = load.outcomes()
    queue.stop()
    static = queue.longest_since(dropped_s)
    static_s = ttft_p90_s(outcomes, since_s)

    print(
        f"threshold {before}, followed after {followed_s:.1f} s; {capacity['message']}; waiting transfers {planned:.0f} "
        f"(static {static:.0f}); TTFT P90 {auto_s:.2f} s (static {static_s:.2f} s)"
    )
    record_property("followed_s", followed_s)
    record_property("ttft_p90_s", (auto_s, static_s))
    assert capacity["state"] == "Slow"
    assert capacity["usableBps"] < 0.5 * CAPACITY_BPS
    assert planned < static / 2
    assert auto_s < static_s


def test_a_link_that_recovers_is_used_again(narrow: Any) -> None:
    """What still crosses the slow link shows that it is fast again."""
    before = settled(narrow)
    narrow.link(capacityBps=CAPACITY_BPS / 5)
    load = narrow.replay(REQUESTS, SPEED)
    narrow.wait(lambda: capacity_state(narrow) == "Slow", "the drop to be noticed")
    narrow.wait(lambda: threshold(narrow) > 1.3 * before, "a higher threshold")
    narrow.link(capacityBps=CAPACITY_BPS)
    narrow.wait(lambda: capacity_state(narrow) == "Nominal", "the recovery to be noticed", 90)
    narrow.wait(lambda: threshold(narrow) < 1.2 * before, "a threshold like the old one", 30)
    assert [outcome.error for outcome in load.outcomes() if outcome.error] == []
