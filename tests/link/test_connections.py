"""Connections over the link behave as TCP connections do: half-close, resets, refusals, back pressure."""

import hashlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

RESET = struct.pack("ii", 1, 0)


def die(connection: socket.socket) -> None:
    """Close as the kernel does for a process that was killed with bytes unread."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


def test_half_close_lets_the_other_direction_go_on(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=200e6, delaySeconds=0.01)
    client, server = link.pair()
    question, answer = os.urandom(300_000), os.urandom(2_000_000)
    client.sendall(question)
    client.shutdown(socket.SHUT_WR)
    assert link.receive(server, len(question)) == question
    assert server.recv(1) == b""
    sending = link.send(server, answer)
    assert link.receive(client, len(answer)) == answer
    sending.result()
    assert link.metric("link_connections") == 1
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    link.wait_no_connections()


def test_the_pod_may_end_first(link: Any) -> None:
    client, server = link.pair()
    server.sendall(b"greeting")
    server.shutdown(socket.SHUT_WR)
    assert link.receive(client, 8) == b"greeting"
    assert client.recv(1) == b""
    client.sendall(b"late")
    assert link.receive(server, 4) == b"late"


@pytest.mark.parametrize("delay_s", [0.0, 0.02])
def test_what_is_sent_and_ended_at_once_arrives(start_link: Callable[..., Any], delay_s: float) -> None:
    """The first bytes and the end of the stream come before the pod's end is connected; neither may be lost."""
    link = start_link(delaySeconds=delay_s)
    for _ in range(20):
        with link.connect() as client:
            client.sendall(b"first and last")
            client.shutdown(socket.SHUT_WR)
            server = link.accept()
            assert link.receive(server, 14) == b"first and last"
            assert server.recv(1) == b""
            server.close()
    link.wait_no_connections()


def test_an_end_without_bytes_arrives(link: Any) -> None:
    client = link.connect()
    client.shutdown(socket.SHUT_WR)
    server = link.accept()
    assert server.recv(1) == b""
    server.sendall(b"anyway")
    assert link.receive(client, 6) == b"anyway"


def test_a_pod_that_refuses_is_a_reset(link: Any) -> None:
    link.server.close()
    # On a busy machine it may come before `connect` has returned.
    with pytest.raises(ConnectionResetError):
        link.connect().recv(1)
    link.wait_no_connections()


def test_thousands_of_small_transfers(link: Any) -> None:
    """Each comes back whole, and nothing of them is left in the link."""
    transfers, side_by_side = 3000, 6

    def echo() -> None:
        while True:
            try:
                server, _ = link.server.accept()
            except OSError:
                return
            with server:
                while data := server.recv(1 << 16):
                    server.sendall(data)

    def client(first: int) -> int:
        done = 0
        for number in range(first, transfers, side_by_side):
            data = hashlib.sha256(str(number).encode()).digest() * (1 + number % 40)
            with socket.create_connection((link.near, 8000), timeout=30) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                assert link.receive(connection, len(data)) == data
                assert connection.recv(1) == b""
            done += 1
        return done

    before = link.descriptors()
    for _ in range(side_by_side):
        link.threads.submit(echo)
    futures = [link.threads.submit(client, first) for first in range(side_by_side)]
    assert sum(future.result() for future in futures) == transfers
    link.server.shutdown(socket.SHUT_RDWR)
    link.wait_no_connections()
    assert link.metric("link_accepted_connections_total") == transfers
    assert link.metric('link_bytes_total{direction="to_pods"}') == link.metric(
        'link_bytes_total{direction="from_pods"}'
    )
    link.wait(lambda: link.descriptors() <= before + 2, "no socket is left open")


@pytest.mark.parametrize("delay_s", [0.0, 0.05])
def test_a_client_that_dies_resets_the_pod(start_link: Callable[..., Any], delay_s: float) -> None:
    link = start_link(capacityBps=50e6, delaySeconds=delay_s)
    client, server = link.pair()
    sending = link.send(server, bytes(10_000_000))
    link.receive(client, 100_000)
    die(client)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        sending.result()
    link.wait_no_connections()


def test_a_pod_that_dies_resets_the_client(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=50e6, delaySeconds=0.02)
    client, server = link.pair()
    sending = link.send(client, bytes(10_000_000))
    link.receive(server, 100_000)
    die(server)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        sending.result()
    link.wait_no_connections()


def test_clients_that_die_at_any_moment_leave_nothing(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=20e6, delaySeconds=0.005)
    before = link.descriptors()
    for number in range(120):
        client = link.connect()
        client.settimeout(0)
        for _ in range(number % 4):
            client.send(bytes(30_000))
        if number % 2:
            link.accept()
        die(client)
    link.server.close()
    link.wait_no_connections()
    link.wait(lambda: link.descriptors() <= before + 2, "no socket is left open")
    for direction in ("to_pods", "from_pods"):
        link.wait(
            lambda d=direction: link.metric(f'link_in_flight_bytes{{direction="{d}"}}') == 0, "nothing on the way"
        )
        assert link.metric(f'link_queued_bytes{{direction="{direction}"}}') == 0


def test_a_receiver_that_does_not_read_stops_its_sender_and_nobody_else(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=2e9)
    before = link.resident_bytes()
    stuck = [link.pair() for _ in range(4)]
    for client, _ in stuck:
        client.settimeout(0.5)
    sent = [0] * len(stuck)

    def fill(index: int) -> None:
        client = stuck[index][0]
        try:
            while sent[index] < 64 * 1024 * 1024:
                sent[index] += client.send(bytes(1 << 16))
        except TimeoutError:
            return

    for future in [link.threads.submit(fill, index) for index in range(len(stuck))]:
        future.result()
    # What the kernel's buffers on both sides and the link take, which is far from all.
    assert max(sent) < 24 * 1024 * 1024
    assert link.resident_bytes() - before < 24 * 1024 * 1024
    client, server = link.pair()
    sending = link.send(client, bytes(5_000_000))
    link.receive(server, 5_000_000)
    sending.result()
    for (_, server), size_bytes in zip(stuck, sent, strict=True):
        link.receive(server, size_bytes)


def test_a_long_link_keeps_a_window_and_no_more(start_link: Callable[..., Any]) -> None:
    """Bytes on the way are in the link's memory, so a connection may have so many and no more, whatever the delay."""
    link = start_link(capacityBps=20e9)
    client, _ = link.pair()
    link.put(delaySeconds=60)
    client.settimeout(1)
    with pytest.raises(TimeoutError):
        client.sendall(bytes(64 * 1024 * 1024))
    assert link.metric('link_in_flight_bytes{direction="to_pods"}') <= 17 * 1024 * 1024
    link.put(fault="cut")
    link.wait_no_connections()
