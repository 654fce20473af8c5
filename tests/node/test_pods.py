"""Pods run as processes with the life that a kubelet would give them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

Json = dict[str, Any]
SERVE = """
import http.server, os, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if pathlib.Path(os.environ.get("SICK", "/nowhere")).exists() else 200)
        self.end_headers()
        self.wfile.write(os.environ["HOSTNAME"].encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8000), Handler).serve_forever()
"""
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def test_a_deployment_runs_and_serves_at_addresses_of_its_own(node: Any, make_pod: Callable[..., Json]) -> None:
    template = make_pod(
        "web", SERVE, container={"env": [POD_IP], "readinessProbe": {"httpGet": {"port": 8000}, "periodSeconds": 1}}
    )
    template = {"metadata": {"labels": {"app": "web"}}, "spec": template["spec"]}
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }  # fmt: skip
    node.apply(deployment)
    node.wait(lambda: node.get("deployment", "web")["status"].get("readyReplicas") == 2, "two ready pods")
    pods = json.loads(node.cluster.kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
    addresses = {item["status"]["podIP"] for item in pods}
    assert len(addresses) == 2
    for item in pods:
        answer = httpx.get(f"http://{item['status']['podIP']}:8000/", trust_env=False)
        assert answer.text == item["metadata"]["name"]
    node.delete("deployment", "web")
    node.wait(lambda: not node.cluster.kubectl("get", "pods", "-l", "app=web", "-o", "name"), "the end of its pods")
    for address in addresses:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://{address}:8000/", trust_env=False)


def test_the_node_has_a_heartbeat_and_extended_resources(node: Any) -> None:
    assert node.get("node", "one")["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    lease = node.cluster.kubectl(
        "get", "lease", "one", "-n", "kube-node-lease", "-o", "jsonpath={.spec.holderIdentity}"
    )
    assert lease == "one"


def test_readiness_follows_the_probe_and_liveness_restarts(
    node: Any, make_pod: Callable[..., Json], tmp_path: Any
) -> None:
    sick = tmp_path / "sick"
    probe = {"httpGet": {"port": 8000}, "periodSeconds": 1, "failureThreshold": 1}
    node.apply(
        make_pod(
            "ready", SERVE, container={"env": [POD_IP, {"name": "SICK", "value": str(sick)}], "readinessProbe": probe}
        )
    )
    node.wait(lambda: node.ready("ready"), "readiness")
    sick.touch()
    node.wait(lambda: not node.ready("ready"), "the end of readiness")
    assert node.status("ready")["restartCount"] == 0
    sick.unlink()
    node.wait(lambda: node.ready("ready"), "readiness again")

    # Three failures, so that a slow start is not one.
    probe["failureThreshold"] = 3
    node.apply(
        make_pod(
            "alive", SERVE, container={"env": [POD_IP, {"name": "SICK", "value": str(sick)}], "livenessProbe": probe}
        )
    )
    node.wait(lambda: node.ready("alive"), "the other pod")
    sick.touch()
    node.wait(lambda: node.status("alive").get("restartCount", 0) >= 1, "a restart")
    sick.unlink()
    node.wait(lambda: node.ready("alive"), "recovery")
    node.delete("pod", "ready", "alive", "--force", "--grace-period=0")


@pytest.mark.parametrize(
    ("probe", "script"),
    [
        ({"tcpSocket": {"port": 7000}}, "import os, socket; held = socket.create_server((os.environ['POD_IP'], 7000)); import time; time.sleep(600)"),
        ({"exec": {"command": ["python", "-c", "import os, sys; sys.exit(os.environ['HOSTNAME'] != 'exec')"]}}, "import time; time.sleep(600)"),
        (
            {"grpc": {"port": 7000}},
            ("import os, grpc, concurrent.futures as f\n"
            "from grpc_health.v1 import health, health_pb2, health_pb2_grpc\n"
            "server = grpc.server(f.ThreadPoolExecutor(1)); servicer = health.HealthServicer()\n"
            "servicer.set('', health_pb2.HealthCheckResponse.SERVING)\n"
            "health_pb2_grpc.add_HealthServicer_to_server(servicer, server)\n"
            "server.add_insecure_port(os.environ['POD_IP'] + ':7000'); server.start(); server.wait_for_termination()"),
        ),
    ],
    ids=["tcp", "exec", "grpc"],
)  # fmt: skip
def test_the_other_kinds_of_probes(node: Any, make_pod: Callable[..., Json], probe: Json, script: str) -> None:
    name = next(iter(probe)).lower().removesuffix("socket")
    readiness = {**probe, "periodSeconds": 1, "timeoutSeconds": 5}
    node.apply(make_pod(name, script, container={"env": [POD_IP], "readinessProbe": readiness}))
    node.wait(lambda: node.ready(name), f"readiness by {name}")
    node.delete("pod", name, "--force", "--grace-period=0")


def test_a_crash_is_restarted_with_a_growing_wait(node: Any, make_pod: Callable[..., Json]) -> None:
    node.apply(make_pod("crash", "raise SystemExit(3)"))
    node.wait(lambda: node.status("crash").get("restartCount", 0) >= 3, "three restarts")

    def waits() -> bool:
        return bool(node.status("crash")["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff")

    node.wait(waits, "CrashLoopBackOff")
    assert node.status("crash")["lastState"]["terminated"]["exitCode"] == 3
    node.delete("pod", "crash")
    node.wait(lambda: node.gone("pod", "crash"), "its end")


def test_a_pod_that_is_deleted_gets_its_grace(node: Any, make_pod: Callable[..., Json]) -> None:
    script = (
        "import signal, sys, time\n"
        "def end(*_): time.sleep(0.3); print('bye', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(600)"
    )
    node.apply(make_pod("polite", script))
    node.wait(lambda: "up" in node.log("polite"), "the process")
    uid = node.get("pod", "polite")["metadata"]["uid"]
    node.delete("pod", "polite")
    node.wait(lambda: node.gone("pod", "polite"), "its end")
    log = node.state_dir / "pods" / f"default_polite_{uid}" / "main" / "0.log"
    assert log.read_text() == "up\nbye\n"
    assert not (node.state_dir / "volumes" / uid).exists()


def test_what_ignores_sigterm_is_killed_when_the_grace_is_over(node: Any, make_pod: Callable[..., Json]) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    node.apply(make_pod("stubborn", script, terminationGracePeriodSeconds=1))
    node.wait(lambda: "up" in node.log("stubborn"), "the process")
    node.delete("pod", "stubborn")
    node.wait(lambda: node.gone("pod", "stubborn"), "its end by force")


def test_init_containers_run_first_and_a_sidecar_outlives_the_main_one(
    node: Any, make_pod: Callable[..., Json]
) -> None:
    note = "import pathlib, sys; pathlib.Path('/shared/order').open('a').write({!r})"
    wait = "import signal, sys, time, pathlib; signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('/shared/order').open('a').write({!r}), sys.exit(0))); time.sleep(600)"
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}

    def container(name: str, script: str, **more: Any) -> Json:
        return {"name": name, "image": "none", "command": ["python", "-c", script], **mounts, **more}

    node.apply(
        make_pod(
            "ordered",
            f"{note.format('M')}; {wait.format('m')}",
            container=mounts,
            initContainers=[
                container("first", note.format("1")),
                container("side", f"{note.format('S')}; {wait.format('s')}", restartPolicy="Always"),
                # The sidecar counts as started when its process runs, so its note may come late.
                container("second", "import pathlib, time\nwhile 'S' not in pathlib.Path('/shared/order').read_text(): time.sleep(0.01)\n" + note.format("2")),
            ],
            volumes=[{"name": "shared", "hostPath": {"path": str(node.cluster.folder / "shared"), "type": "DirectoryOrCreate"}}],
        )
    )  # fmt: skip
    order = node.cluster.folder / "shared" / "order"
    node.wait(lambda: order.exists() and order.read_text() == "1S2M", "all containers")
    node.wait(lambda: node.ready("ordered"), "readiness")
    node.delete("pod", "ordered")
    node.wait(lambda: node.gone("pod", "ordered"), "its end")
    assert order.read_text() == "1S2Mms"


def test_a_job_runs_to_completion(node: Any, make_pod: Callable[..., Json]) -> None:
    template = {"spec": make_pod("job", "print('done')", restartPolicy="Never")["spec"]}
    node.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": template}})
    node.wait(lambda: node.get("job", "once")["status"].get("succeeded") == 1, "completion")
    node.delete("job", "once")


def test_a_container_without_a_command_says_so(node: Any, make_pod: Callable[..., Json]) -> None:
    node.apply(make_pod("bare", "", container={"command": None}))
    node.wait(lambda: "waiting" in node.status("bare").get("state", {}), "the waiting state")
    node.wait(lambda: node.status("bare")["state"]["waiting"]["reason"] == "NoCommand", "the reason")
    assert "`command` must be set" in node.status("bare")["state"]["waiting"]["message"]
    node.delete("pod", "bare", "--force", "--grace-period=0")


def test_a_signal_is_told_as_the_exit_code(node: Any, make_pod: Callable[..., Json]) -> None:
    node.apply(make_pod("killed", "import os; os.kill(os.getpid(), 9)", restartPolicy="Never"))
    node.wait(lambda: node.get("pod", "killed")["status"].get("phase") == "Failed", "the phase")
    assert node.status("killed")["state"]["terminated"]["exitCode"] == 128 + signal.SIGKILL
    node.delete("pod", "killed")
    node.wait(lambda: node.gone("pod", "killed"), "its end")
