"""A real operator process against a real API server, which is hub and members in one.

No kubelet runs there: tests say themselves which pods are ready, through the API, as a kubelet would.
"""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import kubernetes
import pytest
import yaml

from prfaas_local.certificates import Authority
from prfaas_local.cluster import Cluster
from prfaas_local.testing import control_plane, wait
from prfaas_operator import api

REPOSITORY = Path(__file__).resolve().parents[2]
OPERATOR_NAMESPACE = "prfaas-system"
DEADLINE_S = 60.0
_numbers, _hosts = itertools.count(1), itertools.count(1)


class Client:
    """Objects of one API server as dictionaries."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._client = kubernetes.client.ApiClient(
            kubernetes.config.new_client_from_config(str(cluster.admin_kubeconfig)).configuration
        )
        self._dynamic = kubernetes.dynamic.DynamicClient(self._client)

    def _resource(self, kind: str) -> Any:
        if any(kind == model.__name__ for model in api.KINDS):
            return self._dynamic.resources.get(api_version=f"{api.GROUP}/{api.VERSION}", kind=kind)
        versions = {
            "Deployment": "apps/v1", "PodDisruptionBudget": "policy/v1", "Lease": "coordination.k8s.io/v1",
            "HorizontalPodAutoscaler": "autoscaling/v2",
        }  # fmt: skip
        return self._dynamic.resources.get(api_version=versions.get(kind, "v1"), kind=kind)

    def apply(self, body: dict[str, Any], namespace: str) -> dict[str, Any]:
        return self._resource(body["kind"]).server_side_apply(
            body=body, name=body["metadata"]["name"], namespace=namespace, field_manager="test", force_conflicts=True
        ).to_dict()  # fmt: skip

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        try:
            return self._resource(kind).get(name=name, namespace=namespace).to_dict()
        except kubernetes.dynamic.exceptions.NotFoundError:
            return None

    def list(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        return self._resource(kind).get(namespace=namespace, label_selector=selector).to_dict()["items"]

    def merge(self, kind: str, name: str, namespace: str, patch: dict[str, Any]) -> dict[str, Any]:
        return self._resource(kind).patch(
            name=name, namespace=namespace, body=patch, content_type="application/merge-patch+json"
        ).to_dict()  # fmt: skip

    def merge_status(self, kind: str, name: str, namespace: str, patch: dict[str, Any]) -> None:
        self._resource(kind).status.patch(
            name=name, namespace=namespace, body=patch, content_type="application/merge-patch+json"
        )

    def delete(self, kind: str, name: str, namespace: str) -> None:
        with contextlib.suppress(kubernetes.dynamic.exceptions.NotFoundError):
            self._resource(kind).delete(name=name, namespace=namespace, body={})

    def token(self, service_account: str, namespace: str, audience: str = "prfaas.dev/router") -> str:
        return self.cluster.kubectl(
            "create", "token", service_account, f"--namespace={namespace}", f"--audience={audience}"
        ).strip()


class Prometheus(ThreadingHTTPServer):
    """Prometheus' HTTP API, with the answers that a test sets by a part of the query.

    It stands in where a test needs answers that a real server gives only by accident: old, empty, infinite, or none at all.
    To questions about each pod of a pool it answers for the pods that there are, which are idle unless the test says otherwise.
    """

    daemon_threads = True

    def __init__(self, client: "Client") -> None:
        self._client = client
        self.forget()
        super().__init__((f"127.{150 + os.getpid() % 90}.0.9", 0), _Queries)
        self.values: dict[str, str | None] = {}  # a number as Prometheus writes it; None: no series
        self.age_s = 0.0
        self.status = 200
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def forget(self) -> None:
        """Know nothing but that every pod is idle."""
        self.load: dict[str, float] = {}  # by pod; 0 where nothing is said
        self.idle_s: dict[str, float] = {}  # by pod; 600 where nothing is said
        self.knows_pods = True

    def by_pod(self, query: str) -> list[dict[str, Any]]:
        """Answer one of the questions of `prfaas_operator.scaling.idleness`."""
        labels = dict(re.findall(r'(namespace|prfaas_pool)="([^"]*)"', query))
        selector = f"prfaas.dev/pool={labels['prfaas_pool']}"
        pods = self._client.list("Pod", labels["namespace"], selector) if self.knows_pods else []
        found = []
        for name in (pod["metadata"]["name"] for pod in pods):
            if "max_over_time" in query:
                value = self.idle_s.get(name, 600.0)
            else:
                value = 0.0 if "timestamp(" in query else self.load.get(name, 0.0)
            found.append({"metric": {"pod": name}, "value": [time.time(), str(value)]})
        return found

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of operators that were killed while they asked: output belongs to the tests that run then."""

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_address[1]}"


class _Queries(BaseHTTPRequestHandler):
    server: Prometheus

    def do_GET(self) -> None:
        self._answer(urlsplit(self.path).query)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, form: str) -> None:
        asked = parse_qs(form)
        (query,) = asked["query"]
        self.server.asked.append(query)
        value = next((value for part, value in self.server.values.items() if part in query), None)
        result = [] if value is None else [{"metric": {}, "value": [time.time() - self.server.age_s, value]}]
        if query.startswith(("time() - m", "sum by (pod) (")):
            result = self.server.by_pod(query)
        if value is not None and "step" in asked:
            start, end, step = (float(asked[name][0]) for name in ("start", "end", "step"))
            times = (start + step * place for place in range(int((end - start) / step) + 1))
            result = [{"metric": {}, "values": [[at_s, value] for at_s in times]}]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class OperatorProcess:
    """The operator, as its image runs it."""

    def __init__(self, folder: Path, cluster: Cluster, *arguments: str, kubeconfig: Path | None = None) -> None:
        self.folder = folder
        self.host = f"127.{150 + os.getpid() % 90}.{next(_hosts)}.1"
        self.authority = Authority("prfaas")
        self._kubeconfig = kubeconfig or cluster.admin_kubeconfig
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        pair = self.authority.server("prfaas-operator", [self.host])
        for name, pem in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", self.authority.certificate)):
            (folder / name).write_bytes(pem)

    @property
    def address(self) -> str:
        return f"{self.host}:50051"

    @property
    def log(self) -> str:
        return (self.folder / "operator.log").read_text()

    def start(self, *, leading: bool = True) -> None:
        with (self.folder / "operator.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("prfaas-operator"),
                    f"--host={self.host}",
                    f"--advertise-address={self.address}",
                    f"--tls-dir={self.folder}",
                    f"--kubeconfig={self._kubeconfig}",
                    f"--operator-namespace={OPERATOR_NAMESPACE}",
                    *self._arguments,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if leading:
            self.wait_leading()
        else:
            wait(lambda: self.metric("prfaas_operator_leading") is not None, "the operator answers")

    def wait_leading(self, deadline_s: float = DEADLINE_S) -> None:
        wait(lambda: self.metric("prfaas_operator_leading") == 1, "the operator works", deadline_s)

    def wait_end(self, deadline_s: float) -> int:
        assert self._process is not None
        return self._process.wait(deadline_s)

    def metric(self, name: str) -> float | None:
        """Return the sum of the samples with a name; None while the operator does not answer."""
        assert self._process is not None
        assert self._process.poll() is None, self.log[-3000:]
        try:
            text = httpx.get(f"http://{self.host}:8080/metrics", trust_env=False, timeout=5).text
        except httpx.TransportError:
            return None
        lines = [line for line in text.splitlines() if line.startswith(name) and line[len(name)] in "{ "]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def kill(self) -> None:
        """Kill without a warning; nothing is released."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with the CRDs of this tree."""
    with control_plane(tmp_path_factory.mktemp("hub"), "hub") as found:
        found.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        found.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        found.kubectl("create", "namespace", OPERATOR_NAMESPACE)
        yield found


@pytest.fixture(scope="session")
def client(cluster: Cluster) -> Client:
    return Client(cluster)


@pytest.fixture(scope="session")
def _prometheus(client: Client) -> Iterator[Prometheus]:
    server = Prometheus(client)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def prometheus(_prometheus: Prometheus) -> Iterator[Prometheus]:
    """The operator's Prometheus, which knows nothing but what the test says."""
    yield _prometheus
    _prometheus.values.clear()
    _prometheus.forget()
    _prometheus.age_s, _prometheus.status = 0.0, 200


@pytest.fixture(scope="session")
def _operator(
    cluster: Cluster, _prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    operator = OperatorProcess(
        tmp_path_factory.mktemp("operator"), cluster,
        "--no-leader-election", "--deletion-deadline-s=3", "--autoscaling-interval-s=0.3",
        "--link-interval-s=0.3", "--role-interval-s=0.3", f"--prometheus-url={_prometheus.url}",
    )  # fmt: skip
    operator.start()
    yield operator
    assert operator.stop() == 0, operator.log[-3000:]


@pytest.fixture
def operator(_operator: OperatorProcess) -> OperatorProcess:
    """The operator that all tests share; a test that kills it starts it again."""
    return _operator


@pytest.fixture
def another_operator(tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Make operators of the test's own, which end with it: for a cluster of its own, or a namespace that nobody uses."""
    made: list[OperatorProcess] = []

    def make(name: str, cluster: Cluster, *arguments: str, kubeconfig: Path | None = None) -> OperatorProcess:
        found = OperatorProcess(tmp_path / name, cluster, *arguments, kubeconfig=kubeconfig)
        made.append(found)
        return found

    yield make
    for found in made:
        found.kill()


class Tenant:
    """A namespace of the hub with the objects of e2e/manifests, in which a test plays the user and the kubelet."""

    repository = REPOSITORY

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.bodies: dict[str, dict[str, Any]] = {}
        for path in sorted((REPOSITORY / "e2e" / "manifests").glob("*.yaml")):
            for body in yaml.safe_load_all(path.read_text()):
                del body["metadata"]["namespace"]
                self.bodies[f"{body['kind']}/{body['metadata']['name']}"] = body
        # Sizes that tests count on; those of the demonstration are its own business.
        self.bodies["PrefillPool/east-prefill"]["spec"]["replicas"] = 2
        for key, least, query, target in (
            ("PrefillPool/west-prefill", 1, 'wait{cluster="west"}', 0.5),
            ("DecodePool/east-decode", 2, 'running{cluster="east"}', 15),
        ):
            signal = {"name": "Query", "query": query, "targetType": "Value", "targetValue": target, "windowSeconds": 5}
            scaling = self.bodies[key]["spec"]["scaling"]
            # In one step, as far as the signal asks for.
            behavior = {"scaleUp": {"stabilizationWindowSeconds": 0, "policies": []}}
            scaling |= {"minReplicas": least, "maxReplicas": 4, "signals": [signal], "behavior": behavior}
        # Addresses are of one cluster's service network; this one has another.
        del self.bodies["InferenceRoute/chat"]["spec"]["router"]["service"]
        self.bodies["KVLink/west-to-east"]["spec"]["addressTranslation"] = {
            "podCIDR": "10.30.0.0/16", "translatedCIDR": "10.130.0.0/16",
        }  # fmt: skip
        self.add_kubeconfig("east", client.cluster)
        self.add_kubeconfig("west", client.cluster)

    def add_kubeconfig(self, member: str, cluster: Cluster) -> None:
        text = cluster.kubeconfig(f"prfaas-{member}", ["system:masters"]).decode()
        secret = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{member}-kubeconfig"},
            "stringData": {"kubeconfig": text},
        }  # fmt: skip
        self.client.apply(secret, self.namespace)

    def body(self, key: str) -> dict[str, Any]:
        """Return a copy of an object of e2e/manifests, by KIND/NAME."""
        return deepcopy(self.bodies[key])

    def apply(self, *bodies: str | dict[str, Any]) -> None:
        """Apply objects, by KIND/NAME or as given; without any, all of e2e/manifests."""
        for body in bodies or tuple(self.bodies):
            self.client.apply(self.bodies[body] if isinstance(body, str) else body, self.namespace)

    def get(self, key: str) -> dict[str, Any] | None:
        kind, _, name = key.partition("/")
        return self.client.get(kind, name, self.namespace)

    def merge(self, key: str, patch: dict[str, Any]) -> dict[str, Any]:
        kind, _, name = key.partition("/")
        return self.client.merge(kind, name, self.namespace, patch)

    def delete(self, key: str) -> None:
        kind, _, name = key.partition("/")
        self.client.delete(kind, name, self.namespace)

    def condition(self, key: str, type_: str) -> dict[str, Any]:
        found = (self.get(key) or {}).get("status", {}).get("conditions", [])
        return next((item for item in found if item["type"] == type_), {})

    def wait(self, key: str, check: Callable[[dict[str, Any]], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
        """Return an object once a check of it is true."""
        last: list[Any] = [None]

        def look() -> Any:
            last[0] = self.get(key)
            return last[0] if last[0] is not None and check(last[0]) else None

        try:
            return wait(look, f"{key} {what}", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(last[0], indent=1, default=str)[-3000:]}") from None

    def wait_reason(
        self, key: str, type_: str, reason: str, says: str = "", deadline_s: float = DEADLINE_S
    ) -> dict[str, Any]:
        """Return a condition as it was when it first had a reason and a message that says something."""

        def look() -> dict[str, Any] | None:
            found = self.condition(key, type_)
            return found if found.get("reason") == reason and says in found["message"] else None

        try:
            condition: dict[str, Any] = wait(look, f"{key} {type_} {reason} {says}".rstrip(), deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.condition(key, type_)}") from None
        return condition

    def wait_gone(self, key: str, deadline_s: float = DEADLINE_S) -> None:
        wait(lambda: self.get(key) is None, f"{key} is gone", deadline_s)

    def pods(self, selector: str) -> list[dict[str, Any]]:
        return [
            pod
            for pod in self.client.list("Pod", self.namespace, selector)
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def set_ready(self, selector: str, number: int, network: str = "10.20") -> list[dict[str, Any]]:
        """Wait for pods and report them ready, as a kubelet does."""
        self.report_ready(self.wait_pods(selector, number), network)
        return self.pods(selector)

    def wait_pods(self, selector: str, number: int) -> list[dict[str, Any]]:
        """Return the pods of a selector as soon as there are so many."""
        try:
            return wait(
                lambda: found if len(found := self.pods(selector)) == number else None, f"{number} pods of {selector}"
            )
        except AssertionError as error:
            kinds = ("PrefillPool", "DecodePool", "Deployment")
            found = [item for kind in kinds for item in self.client.list(kind, self.namespace)]
            seen = {f"{item['kind']}/{item['metadata']['name']}": item.get("status") for item in found}
            raise AssertionError(f"{error}\n{json.dumps(seen, indent=1, default=str)}") from None

    def report_ready(self, pods: list[dict[str, Any]], network: str = "10.20") -> None:
        """Report pods ready that are not."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for pod in pods:
            address = (pod.get("status") or {}).get(
                "podIP"
            ) or f"{network}.{next(_numbers) // 250}.{next(_numbers) % 250 + 1}"
            condition = {"type": "Ready", "status": "True", "lastTransitionTime": now}
            status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [condition]}
            with contextlib.suppress(kubernetes.dynamic.exceptions.NotFoundError):
                self.client.merge_status("Pod", pod["metadata"]["name"], self.namespace, {"status": status})


@pytest.fixture
def tenant(client: Client, operator: OperatorProcess, request: pytest.FixtureRequest) -> Iterator[Tenant]:
    """A tenant of the test's own."""
    namespace = f"t{next(_numbers)}-{request.node.originalname.replace('_', '-')}"[:40].rstrip("-")
    client.cluster.kubectl("create", "namespace", namespace)
    found = Tenant(client, namespace)
    yield found
    for kind in ("InferenceRoute", "KVLink", "PrefillPool", "DecodePool", "ModelProfile", "MemberCluster"):
        for item in client.list(kind, namespace):
            client.delete(kind, item["metadata"]["name"], namespace)
