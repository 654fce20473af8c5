"""Both policies of the router serve the same part of the trace on the real clusters."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("algorithm", "prefixes"),
    [("Paper", ("uncached_",)), ("FinishTime", ("finishes_sooner_", "price_"))],
)
def test_every_request_is_decided_by_the_algorithm_that_the_route_names(
    system: Any, record_property: Any, algorithm: str, prefixes: tuple[str, ...]
) -> None:
    system.patch("inferenceroute", "chat", {"spec": {"policy": {"algorithm": algorithm}}})
    system.wait(
        lambda: system.get("inferenceroute", "chat")["status"]["routersReady"] == "1/1", "the router to have it"
    )
    outcomes = system.replay(200, speed=4).outcomes()
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert all(outcome.reason.startswith(prefixes) for outcome in outcomes), system.reasons(outcomes)
    assert {outcome.destination for outcome in outcomes} >= {"local_prefill", "remote_prefill"}
    record_property("ttft_mean_s", sum(outcome.ttft_s for outcome in outcomes) / len(outcomes))
