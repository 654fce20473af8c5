"""A Service is reached at its ClusterIP and leads to its ready pods."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

Json = dict[str, Any]
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
READY = {"exec": {"command": ["python", "-c", "import os, sys; sys.exit(not os.path.exists(os.environ['READY']))"]},
         "periodSeconds": 1, "timeoutSeconds": 5}  # fmt: skip
# Speaks first: its name and a newline. Then it sends back what it gets, and closes after the client has.
ECHO = """
import os, socket, threading
def serve(connection):
    with connection:
        connection.sendall(os.environ["HOSTNAME"].encode() + b"\\n")
        while data := connection.recv(65536):
            connection.sendall(data)
server = socket.create_server((os.environ["POD_IP"], 7000), backlog=1024)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


def service(name: str, **spec: Any) -> Json:
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "echo"}], **spec},
    }  # fmt: skip


def talk(address: str, payload: bytes = b"", port: int = 80) -> tuple[str, bytes]:
    """Send everything at once, end the sending side, and read to the end: the pod's name, and the echo."""
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.sendall(payload)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(1 << 20):
            received += data
    name, _, echo = received.partition(b"\n")
    return name.decode(), echo


@pytest.fixture
def echoes(node: Any, make_pod: Callable[..., Json], tmp_path: Any, request: pytest.FixtureRequest) -> Any:
    """Two pods behind a Service; a file for each makes it ready."""
    app = request.node.name.replace("_", "-")[5:45].rstrip("-")
    files = {f"{app}-{number}": tmp_path / str(number) for number in (1, 2)}
    for name, path in files.items():
        path.touch()
        container = {
            "env": [POD_IP, {"name": "READY", "value": str(path)}], "readinessProbe": READY,
            "ports": [{"name": "echo", "containerPort": 7000}],
        }  # fmt: skip
        node.apply(make_pod(name, ECHO, labels={"app": app}, container=container))
    node.apply(service(app))
    for name in files:
        node.wait(lambda name=name: node.ready(name), f"{name} to be ready")
    address = node.get("service", app)["spec"]["clusterIP"]
    node.wait(lambda: bool(name_of(address)), "the Service")
    yield address, files
    node.delete("pod", *files, "--force", "--grace-period=0")
    node.delete("service", app)


def name_of(address: str) -> str | None:
    try:
        return talk(address)[0]
    except OSError:
        return None


def test_connections_are_spread_and_bytes_are_kept(echoes: Any) -> None:
    address, files = echoes
    payload = bytes(range(256)) * 4096
    answers: list[tuple[str, bytes]] = []
    threads = [threading.Thread(target=lambda: answers.append(talk(address, payload))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert {name for name, _ in answers} == set(files)
    assert all(echo == payload for _, echo in answers)


def test_a_pod_that_is_not_ready_gets_no_connections(node: Any, echoes: Any) -> None:
    address, files = echoes
    first, second = files
    files[first].unlink()
    node.wait(lambda: not node.ready(first), "the end of its readiness")
    node.wait(lambda: {name_of(address) for _ in range(6)} == {second}, "only the other one")
    files[second].unlink()
    node.wait(lambda: not node.ready(second), "the end of the other's readiness")
    node.wait(lambda: name_of(address) is None, "a refusal")
    files[first].touch()
    node.wait(lambda: name_of(address) == first, "the first one again")


def test_session_affinity_keeps_a_client_with_its_pod(node: Any, echoes: Any) -> None:
    address, files = echoes
    app = next(iter(files)).rsplit("-", 1)[0]
    node.apply(service(app, sessionAffinity="ClientIP"))
    node.wait(lambda: len({name_of(address) for _ in range(8)}) == 1, "one pod for this client")


def test_a_service_that_is_deleted_is_not_listened_on(node: Any, echoes: Any) -> None:
    address, files = echoes
    node.delete("service", next(iter(files)).rsplit("-", 1)[0])
    node.wait(lambda: name_of(address) is None, "the end of the Service")
