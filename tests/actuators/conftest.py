"""A real API server with its aggregation layer, the real HorizontalPodAutoscaler controller, and a real operator.

The hub is its own member. No kubelet runs there, so that pods stay pending; a Deployment's `status.replicas` counts them all
the same, and that is what a HorizontalPodAutoscaler divides by.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from prfaas_local import binaries
from prfaas_local.certificates import Authority
from prfaas_local.cluster import Cluster
from prfaas_local.testing import control_plane

REPOSITORY = Path(__file__).resolve().parents[2]
NAMESPACE = "prfaas-system"
SERVICE = "prfaas-operator-actuators"
DEADLINE_S = 20.0
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


def wait(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true value of a condition."""
    end_s = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end_s, f"not within {deadline_s} s: {what}"
        time.sleep(0.05)


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
            spec["replicas"] = 2
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

    def replicas(self, key: str) -> int:
        return int(self.get(key)["spec"]["replicas"])

    def wait_replicas(self, key: str, number: int) -> None:
        wait(lambda: self.replicas(key) == number, f"{key} has {number} replicas")


class OperatorProcess:
    """The operator, as its image runs it, at the ClusterIP of the Service by which the API server reaches it."""

    def __init__(self, folder: Path, cluster: Cluster, host: str, *arguments: str) -> None:
        self.host = host
        self.authority = Authority("prfaas")
        self._log = folder / "operator.log"
        pair = self.authority.server("prfaas-operator", [host, f"{SERVICE}.{NAMESPACE}.svc"])
        for name, pem in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", self.authority.certificate)):
            (folder / name).write_bytes(pem)
        self._command = [
            str(Path(sys.executable).with_name("prfaas-operator")),
            f"--host={host}",
            f"--advertise-address={host}:50051",
            f"--tls-dir={folder}",
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
        wait(self._leading, "the operator works", 40)

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
    """A control plane whose HorizontalPodAutoscalers decide every second, with the CRDs of this tree."""
    with control_plane(tmp_path_factory.mktemp("hub"), "hub", autoscaler_sync_s=1) as found:
        found.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        found.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        found.kubectl("create", "namespace", NAMESPACE)
        yield found


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
