"""A real API server with its aggregation layer, the real HorizontalPodAutoscaler controller, and a real operator.

The hub is its own member. No kubelet runs there, so that pods stay pending; a Deployment's `status.replicas` counts them all
the same, and that is what a HorizontalPodAutoscaler divides by.
"""

import asyncio
import base64
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kubernetes.aio.client import ApiClient

from prfaas_core.autoscaling import SignalName
from prfaas_local import binaries
from prfaas_local.certificates import Authority
from prfaas_local.cluster import Cluster
from prfaas_local.scraping import Pages, scraping
from prfaas_local.testing import control_plane, wait
from prfaas_operator.actuators.metrics_server import MetricsServer
from prfaas_operator.actuators.pool_metrics import PoolMetrics, Total, Unknown
from prfaas_operator.clusters.api import ClusterApi
from prfaas_operator.clusters.credentials import hub_configuration
from prfaas_operator.objects import ObjectStore, Ref

REPOSITORY = Path(__file__).resolve().parents[2]
NAMESPACE = "prfaas-system"
SERVICE = "prfaas-operator-actuators"
DEADLINE_S = 60.0
# Of HorizontalPodAutoscalers. Their periods are whole seconds, of which this has no multiple below 7.
SYNC_S = 0.7
_PATHS = {
    "MemberCluster": "apis/prfaas.dev/v1alpha1",
    "ModelProfile": "apis/prfaas.dev/v1alpha1",
    "PrefillPool": "apis/prfaas.dev/v1alpha1",
    "DecodePool": "apis/prfaas.dev/v1alpha1",
    "InferenceRoute": "apis/prfaas.dev/v1alpha1",
    "HorizontalPodAutoscaler": "apis/autoscaling/v2",
    "Event": "api/v1",
}
_numbers = itertools.count(1)


async def disconnected() -> None:
    """Return when the loop has no connection left: those with TLS take their leave before they are gone."""
    async with asyncio.timeout(DEADLINE_S):
        # One entry is the loop's own.
        while len(asyncio.get_running_loop()._selector.get_map()) > 1:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Tenant:
    """A namespace with two pools of fixed replicas in the hub itself."""

    wait = staticmethod(wait)

    def __init__(self, cluster: Cluster, client: httpx.Client, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._client = client
        self.bodies: dict[str, dict[str, Any]] = {}
        for path in sorted((REPOSITORY / "e2e" / "manifests").glob("*.yaml")):
            for body in yaml.safe_load_all(path.read_text()):
                del body["metadata"]["namespace"]
                self.bodies[f"{body['kind']}/{body['metadata']['name']}"] = body
        for key in ("PrefillPool/east-prefill", "DecodePool/east-decode"):
            spec = self.bodies[key]["spec"]
            spec.pop("scaling", None)
            # No worker runs here, so none would say that it is done.
            spec |= {"replicas": 2, "drain": {"timeoutSeconds": 0}}
        self.bodies["MemberCluster/east"]["spec"] = {"hub": True}

    def _path(self, kind: str, name: str = "") -> str:
        plural = "horizontalpodautoscalers" if kind == "HorizontalPodAutoscaler" else f"{kind.lower()}s"
        return f"/{_PATHS[kind]}/namespaces/{self.namespace}/{plural}/{name}"

    def apply(self, *bodies: str | dict[str, Any], manager: str = "gitops") -> None:
        """Apply objects, by KIND/NAME of e2e/manifests or as given."""
        for given in bodies:
            body = self.bodies[given] if isinstance(given, str) else given
            version = _PATHS[body["kind"]].removeprefix("apis/").removeprefix("api/")
            answer = self._client.patch(
                self._path(body["kind"], body["metadata"]["name"]),
                params={"fieldManager": manager, "force": "true"},
                headers={"Content-Type": "application/apply-patch+yaml"},
                content=json.dumps(body | {"apiVersion": version}),
            )
            assert answer.is_success, answer.text

    def get(self, key: str) -> dict[str, Any]:
        """Return an object; an empty one when there is none."""
        answer = self._client.get(self._path(*key.split("/")))
        return answer.json() if answer.is_success else {}

    def merge(self, key: str, patch: dict[str, Any]) -> None:
        answer = self._client.patch(
            self._path(*key.split("/")), json=patch, headers={"Content-Type": "application/merge-patch+json"}
        )
        assert answer.is_success, answer.text

    def list(self, kind: str) -> list[dict[str, Any]]:
        return self._client.get(self._path(kind)).json()["items"]

    def delete(self, key: str) -> None:
        self._client.delete(self._path(*key.split("/")))

    def raw(self, path: str) -> httpx.Response:
        """Ask the API server for a path, as kubectl get --raw does."""
        return self._client.get(path)

    def condition(self, key: str, type_: str) -> dict[str, Any]:
        found = self.get(key).get("status", {}).get("conditions", [])
        return next((item for item in found if item["type"] == type_), {})

    def wait_reason(self, key: str, type_: str, reason: str, part: str = "") -> str:
        """Return the message of a condition once it has a reason and a part of its message."""

        def there() -> bool:
            found = self.condition(key, type_)
            return found.get("reason") == reason and part in found.get("message", "")

        try:
            wait(there, f"{key} {type_} {reason} {part}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.condition(key, type_)}") from None
        return str(self.condition(key, type_)["message"])

    def set_ready(self, pool: str, number: int) -> None:
        """Wait for the pods of a pool and report them ready, as a kubelet does."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"

        def pods() -> list[dict[str, Any]]:
            found = self._client.get(path, params={"labelSelector": f"prfaas.dev/pool={pool}"}).json()["items"]
            return found if len(found) == number else []

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for index, pod in enumerate(wait(pods, f"{number} pods of {pool}")):
            address = f"10.20.0.{index + 1}"
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": now}
            status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}
            answer = self._client.patch(
                f"{path}/{pod['metadata']['name']}/status",
                json={"status": status},
                headers={"Content-Type": "application/merge-patch+json"},
            )
            assert answer.is_success, answer.text

    def replicas(self, key: str) -> int:
        return int(self.get(key)["spec"]["replicas"])

    def wait_replicas(self, key: str, number: int) -> None:
        wait(lambda: self.replicas(key) == number, f"{key} has {number} replicas")


class OperatorProcess:
    """The operator, as its image runs it."""

    def __init__(self, folder: Path, cluster: Cluster, *arguments: str) -> None:
        self.host = host = f"127.{150 + os.getpid() % 90}.{next(_numbers)}.2"
        self.authority = Authority("prfaas")
        self._log = folder / "operator.log"
        pair = self.authority.server("prfaas-operator", [host])
        for name, pem in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", self.authority.certificate)):
            (folder / name).write_bytes(pem)
        self._command = [
            str(Path(sys.executable).with_name("prfaas-operator")),
            f"--host={host}",
            f"--advertise-address={host}:50051",
            f"--tls-dir={folder}",
            f"--kubeconfig={cluster.admin_kubeconfig}",
            f"--operator-namespace={NAMESPACE}",
            "--no-leader-election",
            *arguments,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        wait(self._leading, "the operator works")

    def _leading(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log[-3000:]
        try:
            text = httpx.get(f"http://{self.host}:8080/metrics", trust_env=False, timeout=5).text
        except httpx.TransportError:
            return False
        return "prfaas_operator_leading 1.0" in text

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(20)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane whose HorizontalPodAutoscalers decide quickly, with the CRDs of this tree."""
    with control_plane(tmp_path_factory.mktemp("hub"), "hub", autoscaler_sync_s=SYNC_S) as found:
        found.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        found.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        found.kubectl("create", "namespace", NAMESPACE)
        # It looks for new kinds with a scale subresource twice a minute, and when it starts.
        manager = found.children["kube-controller-manager"]
        manager.stop(grace_s=0)
        manager.start()
        yield found


@pytest.fixture
async def connections() -> AsyncIterator[None]:
    """End a test's loop when its connections are closed."""
    yield
    await disconnected()


@pytest.fixture(scope="session")
def client(cluster: Cluster) -> Iterator[httpx.Client]:
    with cluster.client() as found:
        yield found


def render(*values: str) -> list[dict[str, Any]]:
    """Return the objects of the chart."""
    text = subprocess.run(
        [binaries.find("helm"), "template", "prfaas", REPOSITORY / "charts" / "prfaas", f"--namespace={NAMESPACE}",
         "--kube-version=1.36", *(f"--set={value}" for value in values)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [found for found in yaml.safe_load_all(text) if found]


class Values:
    """The totals that the metrics API is given by a test, in the place of what Prometheus would say of workers that run."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, SignalName], Total | Unknown] = {}
        self.on_read: Callable[[Ref, Total | Unknown], None] | None = None

    def set(self, namespace: str, signal: SignalName, value: float | Unknown) -> None:
        self._found[namespace, signal] = value if isinstance(value, Unknown) else Total(value, window_s=60)

    async def total(self, pool: Ref, signal: SignalName) -> Total | Unknown:
        found = self._found.get((pool.namespace, signal), Unknown("SignalMissing", "the query returns no sample"))
        if self.on_read is not None:
            await asyncio.to_thread(self.on_read, pool, found)
        return found


class MetricsApi:
    """The real server of the metrics API in a thread, where the APIService of the chart leads the API server."""

    def __init__(self, cluster: Cluster, folder: Path, host: str, authority: Authority) -> None:
        self.url = f"https://{host}:6443"
        self.values = Values()
        self.store = ObjectStore()
        pair = authority.server("prfaas-operator", [host, f"{SERVICE}.{NAMESPACE}.svc"])
        (folder / "tls.crt").write_bytes(pair.certificate)
        (folder / "tls.key").write_bytes(pair.key)
        self.authority = folder / "ca.crt"
        self.authority.write_bytes(authority.certificate)
        self._cluster, self._folder, self._host = cluster, folder, host
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    async def _run(self) -> None:
        client = ApiClient(await hub_configuration(self._cluster.admin_kubeconfig))
        metrics = PoolMetrics(self.store, self.values, lambda _: None)
        server = MetricsServer(ClusterApi(client, timeout_s=10), metrics, self._folder, host=self._host, port=6443)
        self._task = asyncio.create_task(server.run())
        await asyncio.gather(self._task, return_exceptions=True)
        await client.close()
        await disconnected()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def metrics_api(
    cluster: Cluster, client: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MetricsApi]:
    """The metrics API, as the chart makes the API server find it."""
    authority = Authority("prfaas")
    bundle = base64.b64encode(authority.certificate).decode()
    objects = render("externalMetrics.enabled=true", f"externalMetrics.caBundle={bundle}")
    service = next(found for found in objects if found["metadata"]["name"] == SERVICE)
    registration = next(found for found in objects if found["kind"] == "APIService")
    # Endpoint controllers are off in local control planes. The API server looks only whether there is an endpoint.
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": SERVICE}},
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}],
        "ports": [{"name": port["name"], "port": port["port"]} for port in service["spec"]["ports"]],
    }  # fmt: skip
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([service, endpoints, registration]))
    address = client.get(f"/api/v1/namespaces/{NAMESPACE}/services/{SERVICE}").json()["spec"]["clusterIP"]
    found = MetricsApi(cluster, tmp_path_factory.mktemp("metrics"), address, authority)
    found.start()
    cluster.kubectl("wait", "--for=condition=Available", "apiservice/v1beta1.external.metrics.k8s.io", "--timeout=30s")
    yield found
    found.stop()


@pytest.fixture(scope="session")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pages, str]]:
    """A real Prometheus that scrapes two decode workers of the namespace `measured`, and its URL."""
    labels = {
        "cluster": "east", "namespace": "measured", "prfaas_pool": "east-decode", "prfaas_role": "decode",
    }  # fmt: skip
    targets = {f"/{pod}": {**labels, "pod": f"east-decode-{pod}"} for pod in ("a", "b")}
    with scraping(tmp_path_factory.mktemp("prometheus"), targets) as found:
        yield found


@pytest.fixture(scope="session")
def operator(
    cluster: Cluster, scraped: tuple[Pages, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """The operator that all tests share."""
    found = OperatorProcess(
        tmp_path_factory.mktemp("operator"), cluster, "--role-interval-s=0.3", f"--prometheus-url={scraped[1]}",
        "--external-metrics-port=6443", "--external-scaler-port=50052",
    )  # fmt: skip
    found.start()
    yield found
    assert found.stop() == 0, found.log[-3000:]


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """Name the tenant's namespace after the test."""
    return f"t{next(_numbers)}-{request.node.originalname.replace('_', '-')}"[:40].rstrip("-")


@pytest.fixture
def tenant(cluster: Cluster, client: httpx.Client, operator: OperatorProcess, namespace: str) -> Iterator[Tenant]:
    """A namespace of the test's own, with a prefill and a decode pool of two workers each."""
    cluster.kubectl("create", "namespace", namespace)
    found = Tenant(cluster, client, namespace)
    found.apply(
        "MemberCluster/east", "ModelProfile/case-study-h20", "PrefillPool/east-prefill", "DecodePool/east-decode"
    )
    yield found
    for kind in ("HorizontalPodAutoscaler", "InferenceRoute", "PrefillPool", "DecodePool"):
        for item in found.list(kind):
            found.delete(f"{kind}/{item['metadata']['name']}")
