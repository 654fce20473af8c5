"""A link that is cut resets and refuses, one that stalls keeps everything and goes on; both heal while it runs."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

QUIET_S = 0.3
"""How long nothing has to happen; what breaks it comes at once."""


def is_quiet(connection: socket.socket, for_s: float = QUIET_S) -> bool:
    before_s = connection.gettimeout()
    connection.settimeout(for_s)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        connection.settimeout(before_s)


def drain(connection: socket.socket) -> int:
    """Return how many bytes come before the connection is reset."""
    count = 0
    try:
        while data := connection.recv(1 << 16):
            count += len(data)
    except ConnectionResetError:
        return count
    pytest.fail("an end instead of a reset")


def test_a_cut_resets_both_ends_in_the_middle_of_a_transfer(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=100e6)
    client, server = link.pair()
    sending = link.send(client, bytes(20_000_000))
    link.receive(server, 100_000)
    link.put(fault="cut")
    assert drain(server) < 19_000_000
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        sending.result()
    link.wait_no_connections()
    assert link.metric('link_fault{fault="cut"}') == 1


def test_a_link_that_is_cut_refuses_until_it_heals(link: Any) -> None:
    link.put(fault="cut")
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            link.connect()
    assert link.http.get("/ready").is_success
    assert link.http.get("/endpoints").json() == {"endpoints": []}
    link.put(fault="none")
    client, server = link.pair()
    client.sendall(b"again")
    assert link.receive(server, 5) == b"again"


def test_a_cut_drops_what_is_on_the_way(start_link: Callable[..., Any]) -> None:
    link = start_link(delaySeconds=2.0)
    client, server = link.pair()
    client.sendall(b"lost")
    link.wait(lambda: link.metric('link_in_flight_bytes{direction="to_pods"}') == 4, "bytes on the way")
    link.put(fault="cut")
    assert drain(server) == 0
    link.put(fault="none", delaySeconds=0.0)
    client, server = link.pair()
    client.sendall(b"kept")
    assert link.receive(server, 4) == b"kept"


def test_a_stall_stops_the_bytes_and_goes_on_where_it_stopped(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=80e6, delaySeconds=0.01)
    client, server = link.pair()
    data = os.urandom(4_000_000)
    sending = link.send(client, data)
    received = link.receive(server, 500_000)
    link.put(fault="stall")
    carried = link.metric('link_bytes_total{direction="to_pods"}')
    while not is_quiet(server):
        received += server.recv(1 << 20)
    assert len(received) <= carried < len(data)
    assert link.metric('link_bytes_total{direction="to_pods"}') == carried
    link.put(fault="none")
    received += link.receive(server, len(data) - len(received))
    assert received == data
    sending.result()


def test_a_stall_holds_what_is_on_the_way(start_link: Callable[..., Any]) -> None:
    link = start_link(delaySeconds=1.0)
    client, server = link.pair()
    client.sendall(b"on the way")
    link.wait(lambda: link.metric('link_in_flight_bytes{direction="to_pods"}') == 10, "bytes on the way")
    link.put(fault="stall")
    assert is_quiet(server, for_s=1.0 + QUIET_S)
    link.put(fault="none")
    assert link.receive(server, 10) == b"on the way"


def test_connections_made_during_a_stall_work_after_it(link: Any) -> None:
    link.put(fault="stall")
    client = link.connect()
    client.sendall(b"early")
    assert is_quiet(client)
    link.put(fault="none")
    assert link.receive(link.accept(), 5) == b"early"


def test_closing_during_a_stall_is_told_after_it(link: Any) -> None:
    client, server = link.pair()
    client.sendall(b"abc")
    link.receive(server, 3)
    link.put(fault="stall")
    client.close()
    assert is_quiet(server)
    link.put(fault="none")
    assert server.recv(1) == b""


def test_a_stall_that_becomes_a_cut_resets(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=80e6, delaySeconds=0.05)
    client, server = link.pair()
    sending = link.send(client, bytes(10_000_000))
    link.receive(server, 100_000)
    link.put(fault="stall")
    link.put(fault="cut")
    assert drain(server) < 9_000_000
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        sending.result()
    link.put(fault="none", delaySeconds=0)
    client, server = link.pair()
    server.sendall(b"fine")
    assert link.receive(client, 4) == b"fine"


def test_a_drop_of_bandwidth_slows_and_loses_nothing(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=200e6)
    client, server = link.pair()
    data = os.urandom(3_000_000)
    sending = link.send(client, data)
    received = link.receive(server, 1_000_000)
    link.put(capacityBps=4e6)
    started_s = time.monotonic()
    received += link.receive(server, 500_000)
    # Up to a megabyte may lie in buffers behind the link.
    slow_s = time.monotonic() - started_s
    link.put(capacityBps=200e6)
    received += link.receive(server, 1_500_000)
    assert received == data
    assert slow_s < 5
    sending.result()
