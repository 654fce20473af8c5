"""A link in a process of its own, and a server behind it."""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

OCTETS = (140 + os.getpid() % 50, 190 + os.getpid() % 50)
"""Of the pods at the far end, and of what they are translated to."""
_HOSTS = itertools.count(1)
PORT = 8000
DEADLINE_S = 20.0


class RunningLink:
    """A link to one pod, whose server the test plays."""

    def __init__(self, process: subprocess.Popen[bytes], control: str, near: str, server: socket.socket) -> None:
        self.process = process
        self.near = near
        self.server = server
        self.http = httpx.Client(base_url=control, trust_env=False, timeout=10)

    def put(self, document: object) -> httpx.Response:
        return self.http.put("/state", json=document)

    def connect(self) -> socket.socket:
        """Return a connection to the link's end."""
        client = socket.create_connection((self.near, PORT), timeout=DEADLINE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a connection over the link."""
        client = self.connect()
        server, _ = self.server.accept()
        server.settimeout(DEADLINE_S)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, server

    def metric(self, line: str) -> float:
        """Return the value of a sample, named with its labels."""
        for found in self.http.get("/metrics").text.splitlines():
            if found.startswith(f"{line} "):
                return float(found.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {line}")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline_s, what


@pytest.fixture
def start_link(tmp_path: Path) -> Iterator[Callable[..., RunningLink]]:
    started: list[RunningLink] = []

    def start(**state: Any) -> RunningLink:
        number = next(_HOSTS)
        host = f"{number // 250}.{number % 250 + 1}"
        far, near = (f"127.{octet}.{host}" for octet in OCTETS)
        pod = {
            "metadata": {"namespace": "ns", "name": "pod", "uid": "1", "resourceVersion": "1"},
            "spec": {"containers": [{"ports": [{"containerPort": PORT}, {"containerPort": PORT + 1}]}]},
            "status": {"phase": "Running", "podIP": far},
        }
        # Connections inherit the small buffer, so that back pressure comes after a known number of bytes.
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 512 * 1024)
        server.bind((far, PORT))
        server.listen(64)
        server.settimeout(DEADLINE_S)
        log = tmp_path / f"link-{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    sys.executable, Path(__file__).with_name("link_process.py"), json.dumps(state), json.dumps([pod]),
                    f"127.{OCTETS[0]}.0.0/16", f"127.{OCTETS[1]}.0.0/16", near, "9100",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        link = RunningLink(process, f"http://{near}:9100", near, server)
        started.append(link)

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return link.http.get("/ready").is_success
            except httpx.TransportError:
                return False

        link.wait(ready, "the link gets ready")
        return link

    yield start
    for link in started:
        link.process.kill()
        link.process.wait()
        link.server.close()
        link.http.close()
    for number in range(1, len(started) + 1):
        assert "Traceback" not in "".join(path.read_text() for path in tmp_path.glob("link-*.log")), number
