"""`prfaas-link` explains itself, names what is wrong with its arguments, and follows the pods of a real cluster."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from prfaas_local.network import Network
from prfaas_local.testing import control_plane

PROGRAM = Path(sys.executable).with_name("prfaas-link")
GOOD = {
    "--pod-cidr": "127.30.0.0/16",
    "--translated-cidr": "127.130.0.0/16",
    "--control-address": "127.0.0.1:1",
    "--capacity-bps": "1e9",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "current-context": "c",
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_help_names_every_option() -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in ("--kubeconfig", "--delay-s", *GOOD):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--kubeconfig": "/nowhere"}, "/nowhere: cannot read the kubeconfig: No such file or directory"),
        ({"--kubeconfig": "/dev/null"}, "/dev/null: not a kubeconfig"),
        ({"--pod-cidr": "127.30.0.0/33"}, "pod CIDR is '127.30.0.0/33'"),
        ({"--translated-cidr": "127.30.0.0/16"}, "overlaps the pod CIDR"),
        ({"--control-address": "here"}, "control address is 'here'; write it like 127.0.0.1:9100"),
        ({"--control-address": "127.0.0.1:x"}, "control address is '127.0.0.1:x'"),
        ({"--capacity-bps": "fast"}, "argument --capacity-bps: invalid float value: 'fast'"),
        ({"--capacity-bps": "1"}, "capacityBps is 1; it must be from 8000 to 1e+12 bits/s"),
        ({"--capacity-bps": "nan"}, "capacityBps is nan"),
        ({"--delay-s": "-1"}, "delaySeconds is -1; it must be from 0 to 60 seconds one way"),
        ({"--log-level": "loud"}, "argument --log-level: invalid choice: 'loud'"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(kubeconfig: Path, changes: dict[str, str], message: str) -> None:
    options = {"--kubeconfig": str(kubeconfig)} | GOOD | changes
    done = run(*(f"{name}={value}" for name, value in options.items()))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_arguments_are_named() -> None:
    done = run()
    assert done.returncode == 2
    assert "the following arguments are required: --kubeconfig, --pod-cidr" in done.stderr


def test_a_control_address_that_is_taken_is_named(kubeconfig: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = {"--kubeconfig": str(kubeconfig)} | GOOD | {"--control-address": address}
        done = run(*(f"{name}={value}" for name, value in options.items()))
    assert done.returncode == 1
    assert f"prfaas-link: control address {address}: " in done.stderr
    assert "Traceback" not in done.stderr


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            if condition():
                return
        except (OSError, httpx.TransportError):
            pass
        assert time.monotonic() < deadline_s, what


@pytest.mark.slow
@pytest.mark.cluster
def test_it_carries_to_the_pods_of_a_real_cluster(tmp_path: Path, ranges: Network) -> None:
    """With no more rights than to read pods; when the API server is away too."""
    pod_ip, near = f"127.{ranges.pods}.9.1", f"127.{ranges.services}.9.1"
    with ExitStack() as sockets, control_plane(tmp_path) as cluster:
        pod = sockets.enter_context(socket.create_server((pod_ip, 8000)))
        pod.settimeout(30)
        cluster.kubectl("create", "serviceaccount", "link")
        cluster.kubectl("create", "clusterrole", "link", "--verb=list,watch", "--resource=pods")
        cluster.kubectl("create", "clusterrolebinding", "link", "--clusterrole=link", "--serviceaccount=default:link")
        kubeconfig = tmp_path / "link.kubeconfig"
        kubeconfig.write_bytes(cluster.token_kubeconfig("default", "link"))
        cluster.kubectl("run", "far", "--image=none", "--port=8000")
        status = {"status": {"phase": "Running", "podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}}
        cluster.kubectl("patch", "pod", "far", "--subresource=status", f"--patch={json.dumps(status)}")
        with (tmp_path / "link.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    PROGRAM, f"--kubeconfig={kubeconfig}", f"--pod-cidr={ranges.pod_cidr}", "--capacity-bps=1e9",
                    f"--translated-cidr={ranges.service_cidr}", f"--control-address={near}:9100",
                ],
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            wait_for(lambda: httpx.get(f"http://{near}:9100/ready", trust_env=False).is_success, "ready")
            cluster.apiserver.kill()
            client = sockets.enter_context(socket.create_connection((near, 8000), timeout=30))
            client.sendall(b"over the link")
            server = sockets.enter_context(pod.accept()[0])
            assert server.recv(13, socket.MSG_WAITALL) == b"over the link"
            cluster.apiserver.start()
            cluster.wait_ready()
            cluster.kubectl("delete", "pod", "far", "--now")

            def refused() -> bool:
                with socket.socket() as probe:
                    return probe.connect_ex((near, 8000)) != 0

            wait_for(refused, "the pod's address is gone")
            client.sendall(b"connections outlive the address")
            assert server.recv(31, socket.MSG_WAITALL) == b"connections outlive the address"
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert process.wait(30) == 0
            assert "Traceback" not in (tmp_path / "link.log").read_text()
        finally:
            process.kill()
            process.wait()
