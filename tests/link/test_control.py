"""The control API changes what it is told and nothing else, refuses what makes no sense, and shows metrics."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_local.link.state import CAPACITY_BPS, DELAY_S, Fault, LinkState, StateError

STATE = {"capacityBps": 1e9, "delaySeconds": 0.0, "fault": "none"}


def test_a_change_keeps_what_it_leaves_out(link: Any) -> None:
    assert link.http.get("/state").json() == STATE
    assert link.http.put("/state", json={"delaySeconds": 0.25}).json() == STATE | {"delaySeconds": 0.25}
    assert link.http.put("/state", json={"fault": "stall"}).json() == STATE | {"delaySeconds": 0.25, "fault": "stall"}
    assert link.http.put("/state", json={"capacityBps": 10_000_000, "fault": "none"}).is_success
    assert link.http.get("/state").json() == {"capacityBps": 1e7, "delaySeconds": 0.25, "fault": "none"}
    assert link.http.put("/state", json={}).json()["capacityBps"] == 1e7


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"[]", "send a JSON object with any of capacityBps, delaySeconds, fault"),
        (b'"cut"', "send a JSON object"),
        (b'{"capacity": 1}', "capacity: no such field; there are capacityBps, delaySeconds, fault"),
        (b'{"capacityBps": "1e9"}', "capacityBps is '1e9'; it must be a number"),
        (b'{"capacityBps": true}', "capacityBps is True; it must be a number"),
        (b'{"capacityBps": null}', "capacityBps is None; it must be a number"),
        (b'{"capacityBps": 0}', "capacityBps is 0; it must be from 8000"),
        (b'{"capacityBps": -1}', 'for a link that carries nothing set fault to "stall"'),
        (b'{"capacityBps": 1e13}', "it must be from 8000 to 1e+12 bits/s"),
        (b'{"capacityBps": NaN}', "the body is not JSON"),
        (b'{"delaySeconds": -0.1}', "delaySeconds is -0.1; it must be from 0 to 60 seconds one way"),
        (b'{"delaySeconds": 61}', "delaySeconds is 61"),
        (b'{"fault": "slow"}', "fault is 'slow'; it must be one of none, cut, stall"),
        (b'{"fault": ["cut"]}', "it must be one of none, cut, stall"),
        (b'{"delaySeconds": 1, "fault": "slow"}', "fault is 'slow'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_the_way_out(shared_link: Any, body: bytes, message: str) -> None:
    answer = shared_link.http.put("/state", content=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert shared_link.http.get("/state").json() == STATE


def test_other_requests_are_refused(shared_link: Any) -> None:
    assert shared_link.http.put("/state", content=b" " * 20_000).status_code == 413
    assert shared_link.http.post("/state", json={}).status_code == 405
    assert shared_link.http.get("/nothing").status_code == 404
    assert shared_link.http.get("/state").json() == STATE


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["capacityBps", "delaySeconds", "fault", "x"]), json_values)
    | st.fixed_dictionaries({}, optional={"capacityBps": st.floats(), "delaySeconds": st.floats(), "fault": st.sampled_from(Fault)})
    | json_values
)  # fmt: skip
def test_any_document_gives_a_possible_state_or_an_error(document: object) -> None:
    try:
        state = LinkState(1e9).changed(document)
    except StateError:
        return
    assert CAPACITY_BPS[0] <= state.capacity_bps <= CAPACITY_BPS[1]
    assert DELAY_S[0] <= state.delay_s <= DELAY_S[1]
    assert LinkState(1e6).changed(state.document()) == state


def test_endpoints_are_listed(link: Any) -> None:
    assert link.http.get("/endpoints").json() == {
        "endpoints": [{"listen": f"{link.near}:{port}", "target": f"{link.far}:{port}"} for port in (8000, 8001)]
    }


def test_metrics_say_what_crossed_and_how_the_link_is(link: Any) -> None:
    client, server = link.pair()
    client.sendall(bytes(200_000))
    link.receive(server, 200_000)
    server.sendall(bytes(300))
    link.receive(client, 300)
    assert link.http.get("/metrics").headers["content-type"].startswith("text/plain")
    assert link.metric('link_bytes_total{direction="to_pods"}') == 200_000
    assert link.metric('link_bytes_total{direction="from_pods"}') == 300
    # 1.6 Mbit at 1 Gbit/s.
    assert link.metric('link_busy_seconds_total{direction="to_pods"}') == pytest.approx(0.0016)
    assert link.metric("link_capacity_bps") == 1e9
    assert link.metric("link_delay_seconds") == 0
    assert link.metric("link_connections") == 1
    assert link.metric("link_accepted_connections_total") == 1
    assert [link.metric(f'link_fault{{fault="{fault}"}}') for fault in Fault] == [1, 0, 0]
    link.put(fault="stall", capacityBps=5e6, delaySeconds=0.5)
    client.sendall(bytes(1000))
    link.wait(lambda: link.metric('link_queued_bytes{direction="to_pods"}') == 1000, "bytes that wait")
    assert link.metric('link_waiting_connections{direction="to_pods"}') == 1
    assert link.metric("link_capacity_bps") == 5e6
    assert link.metric("link_delay_seconds") == 0.5
    assert [link.metric(f'link_fault{{fault="{fault}"}}') for fault in Fault] == [0, 0, 1]
    link.put(fault="none")
    link.wait(lambda: link.metric('link_in_flight_bytes{direction="to_pods"}') == 1000, "bytes on the way")
