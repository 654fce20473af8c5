"""The real router under the real operator."""

import concurrent.futures
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROUTE = "InferenceRoute/chat"


class RouterProcess:
    """`prfaas-router` with the arguments that the operator gives it, on an address of its own."""

    def __init__(self, folder, tenant, operator):
        self.host = f"127.{150 + os.getpid() % 90}.250.1"
        (folder / "ca.crt").write_bytes(operator.authority.certificate)
        (folder / "token").write_text(tenant.client.token("chat-router", tenant.namespace))
        self._command = [
            Path(sys.executable).with_name("prfaas-router"), f"--host={self.host}", f"--route={tenant.namespace}/chat",
            "--cluster=east", "--router-name=chat-router-real", f"--operator-address={operator.address}",
            f"--operator-ca={folder / 'ca.crt'}", f"--operator-token={folder / 'token'}", f"--state-dir={folder}",
        ]  # fmt: skip
        self._log = folder / "router.log"
        self._process = None

    def start(self):
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def complete(self, tokens):
        """Ask for an answer, and wait for it."""
        body = {"model": "prfaas-1t", "prompt": list(range(tokens)), "max_tokens": 4}
        return httpx.post(f"http://{self.host}:8080/v1/completions", json=body, timeout=60, trust_env=False)

    @property
    def ready(self):
        return httpx.get(f"http://{self.host}:8080/ready", trust_env=False).status_code == 200

    def metric(self, name):
        try:
            text = httpx.get(f"http://{self.host}:8080/metrics", trust_env=False).text
        except httpx.TransportError:
            return None
        return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name}{{")), None)

    def wait(self, name, value, deadline_s=60):
        """Return the time at which a metric had a value."""
        end_s = time.monotonic() + deadline_s
        while self.metric(name) != value:
            assert time.monotonic() < end_s, (
                f"{name}: {self.metric(name)}, not {value}\n{self._log.read_text()[-2000:]}"
            )
        return time.monotonic()


@pytest.fixture
def router(tmp_path, tenant, operator):
    tenant.apply()
    tenant.set_ready("prfaas.dev/pool=east-decode", 2)
    tenant.set_ready("prfaas.dev/route=chat", 1)
    found = RouterProcess(tmp_path, tenant, operator)
    found.start()
    yield found
    found.kill()


def test_a_threshold_is_in_use_within_a_second(tenant, router, record_property):
    """The router acknowledges, the status says so, and an edit is in use at most a second later in the median."""
    tenant.wait_reason(ROUTE, "Ready", "Available")
    (report,) = tenant.get(ROUTE)["status"]["configuration"]["routers"]
    assert (report["name"], report["acknowledged"]) == ("chat-router-real", True)
    delays_s = []
    for tokens in range(3001, 3012):
        started_s = time.monotonic()
        tenant.merge(ROUTE, {"spec": {"policy": {"threshold": tokens}}})
        delays_s.append(router.wait("prfaas_router_threshold_tokens", tokens) - started_s)
    record_property("threshold_in_use_median_s", statistics.median(delays_s))
    print(
        f"threshold edit to use: median {statistics.median(delays_s) * 1000:.0f} ms, max {max(delays_s) * 1000:.0f} ms"
    )
    assert statistics.median(delays_s) <= 1.0


def test_the_operator_dies_under_a_router(tenant, router, operator):
    """The router serves on by itself, restarts from what it kept, and follows the operator when that is back."""
    tenant.merge(ROUTE, {"spec": {"policy": {"threshold": 4001}}})
    router.wait("prfaas_router_threshold_tokens", 4001)
    version = router.metric("prfaas_router_configuration_version")
    operator.kill()
    try:
        router.wait("prfaas_router_configuration_connected", 0)
        assert router.metric("prfaas_router_threshold_tokens") == 4001
        router.kill()
        router.start()
        router.wait("prfaas_router_threshold_tokens", 4001)
    finally:
        operator.start()
    router.wait("prfaas_router_configuration_connected", 1)
    assert router.metric("prfaas_router_configuration_version") == version
    tenant.merge(ROUTE, {"spec": {"policy": {"threshold": 4002}}})
    router.wait("prfaas_router_threshold_tokens", 4002)
    assert router.metric("prfaas_router_configuration_version") == version + 1


@pytest.fixture
def asleep(tmp_path, tenant, operator, prometheus):
    """A route whose decode and remote prefill pools are scaled to zero, with a router in front."""
    prometheus.values['{cluster="east"}'] = prometheus.values['{cluster="west"}'] = None
    for key in ("DecodePool/east-decode", "PrefillPool/west-prefill"):
        tenant.bodies[key]["spec"]["scaling"]["minReplicas"] = 0
    del tenant.bodies[ROUTE]["spec"]["localPrefillPoolRef"]
    tenant.apply()
    tenant.set_ready("prfaas.dev/route=chat", 1)
    found = RouterProcess(tmp_path, tenant, operator)
    found.start()
    yield found
    found.kill()


def test_the_first_request_after_zero_is_answered(tenant, asleep, start_worker, record_property):
    """It waits in the router, which wakes the pool, and also the remote prefill pool that it is long enough for."""
    worker = start_worker()
    message = tenant.wait_reason(ROUTE, "Ready", "DecodeAsleep")["message"]
    assert "east-decode is scaled to zero" in message
    assert asleep.ready
    threshold = tenant.get(ROUTE)["status"]["thresholdTokens"]
    assert threshold < 100_000, "with the remote pool counted as gone, every prompt would stay"
    with concurrent.futures.ThreadPoolExecutor() as clients:
        sent_s = time.monotonic()
        answer = clients.submit(asleep.complete, threshold + 64)
        for name in ("east-decode", "west-prefill"):
            tenant.wait(f"Deployment/{name}", lambda found: found["spec"]["replicas"] == 1, "is woken")
        woken_s = time.monotonic() - sent_s
        (pod,) = tenant.wait_pods("prfaas.dev/pool=east-decode", 1)
        pod["status"]["podIP"] = worker.address
        tenant.report_ready([pod])
        answer = answer.result()
    record_property("woken_s", woken_s)
    print(f"request to replicas: {woken_s * 1000:.0f} ms")
    assert answer.status_code == 200
    assert float(answer.headers["x-prfaas-waited-s"]) > 0
    assert (answer.headers["x-prfaas-decision"], answer.headers["x-prfaas-reason"]) == ("decode", "remote_asleep")
    tenant.wait_reason(ROUTE, "Ready", "Available")
    decisions = tenant.get("DecodePool/east-decode")["status"]["autoscaling"]["decisions"]
    assert "Activated" in {decision["reason"] for decision in decisions}
