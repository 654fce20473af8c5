"""A real Prometheus that watches the pods of a real control plane; the pods' servers are the test's."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from prfaas_local import binaries, prometheus
from prfaas_local.cluster import Cluster
from prfaas_local.testing import control_plane

DEADLINE_S = 60.0
PODS = "/api/v1/namespaces/default/pods"
POD_LABELS = {"prfaas_pool": "prfaas.dev/pool", "prfaas_role": "prfaas.dev/role", "prfaas_route": "prfaas.dev/route"}


class MetricsServer:
    """Serves one counter, of how often it was asked, at one path."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self.scrapes = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805  the name is http.server's; self is the server's
                if handler.path != path:
                    handler.send_error(404)
                    return
                self.scrapes += 1
                body = f"# TYPE asked counter\nasked_total {self.scrapes}\n".encode()
                handler.send_response(200)
                handler.send_header("Content-Type", "text/plain; version=0.0.4")
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            def log_message(handler, *_: Any) -> None:  # noqa: N805  as above
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Monitored:
    """A cluster, its Prometheus, and servers on its pods' addresses."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.cleanup = ExitStack()
        self._api = self.cleanup.enter_context(cluster.client())
        self._process: subprocess.Popen[bytes] | None = None
        self._hosts = iter(range(1, 250))
        self.servers: dict[str, MetricsServer] = {}
        self.static_host = f"127.{cluster.network.pods}.8.1"
        self.address = f"127.{cluster.network.pods}.9.1:9090"
        self.http = httpx.Client(base_url=f"http://{self.address}/api/v1", trust_env=False, timeout=DEADLINE_S)
        self.cleanup.callback(self.http.close)
        self.cleanup.callback(self.kill)

    def start(self) -> None:
        """Start Prometheus and wait until it answers."""
        command = [
            str(binaries.find("prometheus")),
            *prometheus.arguments(self.folder / "prometheus.json", self.folder / "samples", self.address),
        ]
        with (self.folder / "prometheus.log").open("ab") as log:
            self._process = process = subprocess.Popen(command, stdout=log, stderr=log)

        def ready() -> bool:
            assert process.poll() is None, self.log()
            return httpx.get(f"http://{self.address}/-/ready", trust_env=False).is_success

        self.wait(ready, "Prometheus is ready")

    def kill(self) -> None:
        """End Prometheus as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return (self.folder / "prometheus.log").read_text()

    def serve(self, host: str, port: int, path: str = "/metrics") -> MetricsServer:
        server = MetricsServer(host, port, path)
        self.cleanup.callback(server.close)
        return server

    def pod(
        self, name: str, ports: dict[str, int], annotations: dict[str, str], labels: dict[str, str] | None = None,
        phase: str = "Running",
    ) -> str:  # fmt: skip
        """Create a pod, give it an address and a phase as a kubelet would, and return the address."""
        address = f"127.{self.cluster.network.pods}.1.{next(self._hosts)}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "annotations": {f"prometheus.io/{key}": value for key, value in annotations.items()},
                "labels": {f"prfaas.dev/{key}": value for key, value in (labels or {}).items()},
            },
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": "none",
                        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
                    }
                ]
            },
        }
        answer = self._api.post(PODS, json=pod)
        assert answer.is_success, answer.text
        self.phase(name, phase, address)
        return address

    def phase(self, name: str, phase: str, address: str) -> None:
        """Say in a pod's status that it is in a phase."""
        status = {"status": {"phase": phase, "podIP": address, "podIPs": [{"ip": address}]}}
        merge = {"Content-Type": "application/merge-patch+json"}
        answer = self._api.patch(f"{PODS}/{name}/status", json=status, headers=merge)
        assert answer.is_success, answer.text

    def query(self, query: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query."""
        answer = self.http.get("/query", params={"query": query})
        assert answer.is_success, answer.text
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def targets(self, **labels: str) -> list[dict[str, Any]]:
        """Return the targets that have these labels."""
        active = self.http.get("/targets", params={"state": "active"}).json()["data"]["activeTargets"]
        return [target for target in active if labels.items() <= target["labels"].items()]

    def wait_up(self, count: int = 1, **labels: str) -> list[dict[str, Any]]:
        """Wait until so many targets have these labels, all of them scraped with success, and return them."""
        self.wait(
            lambda: [target["health"] for target in self.targets(**labels)] == ["up"] * count,
            f"{count} targets are up with {labels}",
        )
        return self.targets(**labels)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline_s, f"{what}\n{self.log()}"
            time.sleep(0.05)


@pytest.fixture(scope="package")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """Prometheus with the rights to read pods and no more."""
    folder = tmp_path_factory.mktemp("prometheus")
    with control_plane(folder / "cluster", "east") as cluster:
        cluster.kubectl("create", "serviceaccount", "prometheus")
        cluster.kubectl("create", "clusterrole", "scrape", "--verb=get,list,watch", "--resource=pods")
        cluster.kubectl(
            "create", "clusterrolebinding", "scrape", "--clusterrole=scrape", "--serviceaccount=default:prometheus"
        )
        kubeconfig = folder / "east.kubeconfig"
        kubeconfig.write_bytes(cluster.token_kubeconfig("default", "prometheus"))
        running = Monitored(cluster, folder)
        (folder / "prometheus.json").write_text(
            prometheus.configuration(
                [prometheus.PodSource("east", kubeconfig)],
                pod_labels=POD_LABELS,
                static=[prometheus.StaticJob("link", [f"{running.static_host}:9100"], {"from": "west"}, path="/stats")],
                interval_s=0.2,
            )
        )
        try:
            running.start()
            yield running
        finally:
            running.cleanup.close()


@pytest.fixture(scope="package")
def addresses(monitored: Monitored) -> dict[str, str]:
    """Return the addresses of pods by name. All are made at once, because Prometheus lets changes gather for seconds."""
    wanted = {"scrape": "true", "port": "8000"}
    labels = {"pool": "prefill-west", "role": "prefill", "route": "chat"}
    plain = ("counting", "deleted", "finished", "known", "survivor")
    addresses = {
        "silent": monitored.pod("silent", {"http": 8000}, {"port": "8000"}),
        "refusing": monitored.pod("refusing", {"http": 8000}, wanted | {"scrape": "false"}),
        "pending": monitored.pod("pending", {"http": 8000}, wanted, phase="Pending"),
        "labelled": monitored.pod("labelled", {"http": 8000, "kv": 5600}, wanted, labels),
        "mute": monitored.pod("mute", {"http": 8000}, wanted, labels),
        "sidecar": monitored.pod("sidecar", {"http": 8000, "metrics": 8080}, wanted),
        "many": monitored.pod("many", {"http": 8000, "kv": 5600}, wanted | {"port": "9000", "path": "/stats"}),
        **{name: monitored.pod(name, {"http": 8000}, wanted) for name in plain},
    }
    for name in ("labelled", "sidecar", *plain):
        monitored.servers[name] = monitored.serve(addresses[name], 8000)
    monitored.serve(addresses["sidecar"], 8080)
    monitored.serve(addresses["many"], 9000, "/stats")
    return addresses
