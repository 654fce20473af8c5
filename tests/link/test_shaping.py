"""Bytes cross the link at its bandwidth, after its delay, in fair shares.

Bands are ratios to what was set. The upper ends are strict, whatever the machine does: the link never carries more than
its bandwidth and one burst. The lower ends leave room for a machine with other work, and the best of a few tries counts.
"""

import socket
import time
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

import pytest

LEAST_RATIO = 0.75
BURST_S = 0.05
"""More than the burst that the link allows itself after a pause, and one turn."""
TRIES = 5


def rate_bps(link: Any, sender: socket.socket, receiver: socket.socket, size_bytes: int) -> float:
    """Return the rate at which so many bytes cross, from before the first is sent until the last is there."""
    started_s = time.monotonic()
    sending = link.send(sender, bytes(size_bytes))
    link.receive(receiver, size_bytes)
    elapsed_s = time.monotonic() - started_s
    sending.result()
    return 8 * size_bytes / elapsed_s


def most_bps(capacity_bps: float, size_bytes: int) -> float:
    return 8 * size_bytes / (8 * size_bytes / capacity_bps - BURST_S)


@pytest.mark.parametrize(("capacity_bps", "upward"), [(2e6, True), (50e6, False), (400e6, True), (400e6, False)])
def test_throughput_is_the_bandwidth(start_link: Callable[..., Any], capacity_bps: float, upward: bool) -> None:
    link = start_link(capacityBps=capacity_bps)
    client, server = link.pair()
    sender, receiver = (client, server) if upward else (server, client)
    size_bytes = int(capacity_bps * 0.3 / 8)
    rates = []
    for _ in range(TRIES):
        rates.append(rate_bps(link, sender, receiver, size_bytes))
        assert rates[-1] <= most_bps(capacity_bps, size_bytes)
        if rates[-1] >= LEAST_RATIO * capacity_bps:
            return
    pytest.fail(f"{[rate / capacity_bps for rate in rates]} of the bandwidth")


def test_directions_do_not_share_their_bandwidth(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=40e6)
    client, server = link.pair()
    size_bytes, ratios = 2_000_000, []
    for _ in range(TRIES):
        started_s = time.monotonic()
        sending = [link.send(client, bytes(size_bytes)), link.send(server, bytes(size_bytes))]
        receiving = [link.threads.submit(link.receive, end, size_bytes) for end in (client, server)]
        for future in (*sending, *receiving):
            future.result()
        ratios.append(8 * size_bytes / (time.monotonic() - started_s) / 40e6)
        if ratios[-1] >= LEAST_RATIO:
            return
    pytest.fail(f"each way {ratios} of the bandwidth; one shared bandwidth gives 0.5")


@pytest.mark.parametrize("delay_s", [0.0, 0.06])
def test_bytes_arrive_a_delay_later(start_link: Callable[..., Any], delay_s: float) -> None:
    link = start_link(delaySeconds=delay_s)
    client, server = link.pair()
    fastest_s = float("inf")
    for _ in range(8):
        started_s = time.monotonic()
        client.sendall(b"ping")
        link.receive(server, 4)
        one_way_s = time.monotonic() - started_s
        assert one_way_s >= delay_s
        server.sendall(b"pong")
        link.receive(client, 4)
        there_and_back_s = time.monotonic() - started_s
        assert there_and_back_s >= 2 * delay_s
        fastest_s = min(fastest_s, there_and_back_s)
    assert fastest_s < 2 * delay_s + 0.05


def test_a_connection_takes_a_round_trip_before_its_first_byte(start_link: Callable[..., Any]) -> None:
    link = start_link(delaySeconds=0.05)
    started_s = time.monotonic()
    client = link.connect()
    client.sendall(b"hello")
    server = link.accept()
    assert time.monotonic() - started_s >= 0.05
    assert link.receive(server, 5) == b"hello"
    assert time.monotonic() - started_s >= 0.15


def test_a_delay_does_not_cost_bandwidth(start_link: Callable[..., Any]) -> None:
    """Many bytes are on the way at once, as on a long fat link."""
    link = start_link(capacityBps=100e6, delaySeconds=0.1)
    client, server = link.pair()
    ratios = []
    for _ in range(TRIES):
        sending = link.send(client, bytes(6_000_000))
        link.receive(server, 1)
        started_s = time.monotonic()
        link.receive(server, 5_999_999)
        ratios.append(48e6 / (time.monotonic() - started_s) / 100e6)
        sending.result()
        if ratios[-1] >= LEAST_RATIO:
            return
    pytest.fail(f"{ratios} of the bandwidth")


def test_a_delay_that_is_shortened_reorders_nothing(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=50e6, delaySeconds=0.2)
    client, server = link.pair()
    data = bytes(range(256)) * 8000
    sending = link.send(client, data)
    link.wait(lambda: link.metric('link_in_flight_bytes{direction="to_pods"}') > 200_000, "bytes on the way")
    link.put(delaySeconds=0.0)
    assert link.receive(server, len(data)) == data
    sending.result()


def test_connections_get_equal_shares(start_link: Callable[..., Any]) -> None:
    """Shares of connections that always have bytes are within 10 % of each other, also when one sends in small pieces."""
    link = start_link(capacityBps=60e6)
    pairs = [link.pair() for _ in range(4)]
    size_bytes = 4_000_000

    def in_pieces(client: socket.socket) -> None:
        for _ in range(size_bytes // 500):
            client.sendall(bytes(500))

    sending = [link.threads.submit(in_pieces, pairs[0][0]), *(link.send(c, bytes(size_bytes)) for c, _ in pairs[1:])]
    received = [0] * len(pairs)
    counts: list[list[int]] = []

    def count(index: int) -> None:
        server = pairs[index][1]
        while received[index] < size_bytes:
            received[index] += len(server.recv(1 << 16))
            if index == 0:
                counts.append(list(received))

    receiving = [link.threads.submit(count, index) for index in range(len(pairs))]
    for future in (*sending, *receiving):
        future.result()
    # Between two looks while all of them had bytes to send: the start is that of the slowest.
    busy = [look for look in counts if min(look) > 500_000 and max(look) < 3_500_000]
    shares = [last - first for first, last in zip(busy[0], busy[-1], strict=True)]
    assert min(shares) > 1_000_000, shares
    assert max(shares) <= 1.1 * min(shares) + 200_000


def test_a_small_transfer_does_not_wait_behind_a_big_one(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=20e6)
    client, server = link.pair()
    sending = link.send(client, bytes(5_000_000))
    link.receive(server, 100_000)
    small_client, small_server = link.pair()
    small_client.sendall(bytes(10_000))
    link.receive(small_server, 10_000)
    assert not sending.done()
    assert link.metric('link_bytes_total{direction="to_pods"}') < 4_000_000
    client.shutdown(socket.SHUT_RDWR)
    wait([sending])


def test_a_bandwidth_that_changes_applies_to_transfers_under_way(start_link: Callable[..., Any]) -> None:
    link = start_link(capacityBps=400e6)
    client, server = link.pair()
    sending = link.send(client, bytes(30_000_000))
    link.receive(server, 5_000_000)
    link.put(capacityBps=8e6)
    carried = link.metric('link_bytes_total{direction="to_pods"}')
    started_s = time.monotonic()
    while time.monotonic() - started_s < 0.4:
        server.recv(1 << 16)
    asked_s = time.monotonic()
    slow_bytes = link.metric('link_bytes_total{direction="to_pods"}') - carried
    assert slow_bytes <= 1e6 * (time.monotonic() - started_s + BURST_S)
    assert slow_bytes >= 0.3 * 1e6 * (asked_s - started_s - BURST_S)
    link.put(capacityBps=400e6)
    left = 25_000_000
    while left > 0 and (data := server.recv(1 << 20)):
        left -= len(data)
        if left < 1_000_000:
            break
    # What is left of 30 MB takes 30 s at the low bandwidth.
    assert time.monotonic() - started_s < 15
    client.shutdown(socket.SHUT_RDWR)
    wait([sending])
