"""A link in a process of its own, and servers behind it that the test plays."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from prfaas_local.network import Network
from prfaas_local.testing import free_network

PORT = 8000
DEADLINE_S = 30.0
_HOSTS = itertools.count(1)


class RunningLink:
    """A link to one pod, whose server the test plays."""

    def __init__(self, pid: int, control: str, near: str, far: str) -> None:
        self.pid = pid
        self.near = near
        self.far = far
        self.http = httpx.Client(base_url=control, trust_env=False, timeout=DEADLINE_S)
        self.threads = ThreadPoolExecutor(16)
        self.sockets = ExitStack()
        self.server = self.listen(PORT)

    def listen(self, port: int) -> socket.socket:
        """Return a listening socket of the pod."""
        server = self.sockets.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit the small buffer, so that back pressure comes after a known number of bytes.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 512 * 1024)
        server.bind((self.far, port))
        server.listen(256)
        server.settimeout(DEADLINE_S)
        return server

    def put(self, **changes: Any) -> None:
        """Change the state; the change is in effect after the call."""
        answer = self.http.put("/state", json=changes)
        assert answer.is_success, answer.text

    def connect(self, port: int = PORT) -> socket.socket:
        """Return a connection to the link's end."""
        client = self.sockets.enter_context(socket.create_connection((self.near, port), timeout=DEADLINE_S))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a connection over the link."""
        client = self.connect()
        return client, self.accept()

    def accept(self) -> socket.socket:
        """Return the pod's end of a connection that comes over the link."""
        server = self.sockets.enter_context(self.server.accept()[0])
        server.settimeout(DEADLINE_S)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    def send(self, connection: socket.socket, data: bytes) -> Future[None]:
        """Send in the background."""
        return self.threads.submit(connection.sendall, data)

    def receive(self, connection: socket.socket, size_bytes: int) -> bytearray:
        """Return exactly so many bytes."""
        data = bytearray(size_bytes)
        view = memoryview(data)
        while view:
            count = connection.recv_into(view)
            assert count, f"the stream ended {len(view)} bytes early"
            view = view[count:]
        return data

    def metric(self, line: str) -> float:
        """Return the value of a sample, named with its labels."""
        for found in self.http.get("/metrics").text.splitlines():
            if found.startswith(f"{line} "):
                return float(found.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {line}")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition that itself takes a moment to look at."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline_s, what

    def wait_no_connections(self) -> None:
        self.wait(lambda: self.metric("link_connections") == 0, "all connections are gone")

    def descriptors(self) -> int:
        """Return how many files and sockets the process has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def resident_bytes(self) -> int:
        """Return how much memory the process has."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="session")
def ranges() -> Iterator[Network]:
    """Loopback ranges that no other test run has: pods at the far end, and where they appear at the near end."""
    with free_network() as network:
        yield network


@pytest.fixture(scope="session")
def fork_link() -> Iterator[Callable[[object], int]]:
    """Start a link from its description, and return its process id."""
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("link_process.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as forker:  # fmt: skip
        assert forker.stdin is not None
        assert forker.stdout is not None
        read, write = forker.stdout, forker.stdin

        def fork(description: object) -> int:
            write.write(f"{json.dumps(description)}\n")
            write.flush()
            return int(read.readline())

        yield fork
        write.close()


@pytest.fixture
def start_link(
    tmp_path: Path, ranges: Network, fork_link: Callable[[object], int]
) -> Iterator[Callable[..., RunningLink]]:
    with links(tmp_path, ranges, fork_link) as start:
        yield start


@pytest.fixture
def link(start_link: Callable[..., RunningLink]) -> RunningLink:
    """A link of 1 Gbit/s without a delay."""
    return start_link()


@pytest.fixture(scope="module")
def shared_link(
    tmp_path_factory: pytest.TempPathFactory, ranges: Network, fork_link: Callable[[object], int]
) -> Iterator[RunningLink]:
    """A link of 1 Gbit/s without a delay, for tests that leave it as it was."""
    with links(tmp_path_factory.mktemp("shared"), ranges, fork_link) as start:
        yield start()


@contextmanager
def links(folder: Path, ranges: Network, fork_link: Callable[[object], int]) -> Iterator[Callable[..., RunningLink]]:
    started: list[RunningLink] = []

    def start(**state: Any) -> RunningLink:
        number = next(_HOSTS)
        far, near = (f"127.{octet}.1.{number}" for octet in (ranges.pods, ranges.services))
        pod = {
            "metadata": {"namespace": "ns", "name": "pod", "uid": "1", "resourceVersion": "1"},
            "spec": {"containers": [{"ports": [{"containerPort": PORT}, {"containerPort": PORT + 1}]}]},
            "status": {"phase": "Running", "podIP": far},
        }
        log = folder / f"link-{number}.log"
        cidrs = ranges.pod_cidr, ranges.service_cidr
        pid = fork_link({"state": state, "pods": [pod], "cidrs": cidrs, "control": (near, 9100), "log": str(log)})
        link = RunningLink(pid, f"http://{near}:9100", near, far)
        started.append(link)

        def ready() -> bool:
            assert Path(f"/proc/{pid}").exists(), log.read_text()
            try:
                return link.http.get("/ready").is_success
            except httpx.TransportError:
                return False

        link.wait(ready, "the link gets ready")
        return link

    try:
        yield start
    finally:
        for link in started:
            os.kill(link.pid, signal.SIGKILL)
            link.sockets.close()
            link.threads.shutdown()
            link.http.close()
    for path in folder.glob("link-*.log"):
        assert "Traceback" not in path.read_text(), path.read_text()
