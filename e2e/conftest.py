"""The environment that `prfaas up` makes, for scenarios on real clusters."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from prfaas_cli import providers
from prfaas_cli.environments import LocalCluster
from prfaas_cli.installation import ROUTER_PORT, Installation
from prfaas_cli.manifests import Manifests
from prfaas_cli.replay import Outcome, replay
from prfaas_cli.trace import TraceRequest, load
from prfaas_local import processes
from prfaas_local.errors import LocalClusterError

Json = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[1]
MANIFESTS = REPOSITORY / "e2e" / "manifests"
TRACE = REPOSITORY / "e2e" / "traces" / "mooncake_conversation_600.jsonl"
NAMESPACE = "prfaas-demo"
ANSWER_S = 60.0
READY_KINDS = ("MemberCluster", "PrefillPool", "DecodePool", "InferenceRoute")
PROVIDER = os.environ.get("PRFAAS_E2E_PROVIDER", providers.PROCESSES)
UP_S = {providers.PROCESSES: 240, providers.KIND: 3600}
"""How long `prfaas up` may take; on kind it builds images and pulls others."""
NOT_ON_KIND = {
    "test_faults.py": "it kills processes of this machine or changes the link, and kind has neither",
    "test_faults.py::test_bad_requests_get_errors_of_the_openai_kind": None,
    "test_interruption.py": "it looks for processes of this machine, and kind has containers",
    "test_link_drop.py": "it changes the link, which is not shaped on kind",
    "test_placement.py::test_a_gateway_gets_the_decision_that_the_data_path_would_take":
        "it calls the router's gRPC port by address, and asks for translated addresses",
    "test_placement.py::test_the_router_moves_to_the_decode_pods_and_back_and_no_request_is_lost":
        "a forward ends with the router's pod that it goes to, and takes requests along",
    "test_simulation.py": "it compares with a simulated link, and the link is not shaped on kind",
    "test_up.py::test_the_trace_is_served_from_both_sides_and_the_numbers_add_up": "nothing measures the link on kind",
    "test_up.py::test_a_second_environment_is_refused": "it is about loopback addresses",
}  # fmt: skip
"""Scenarios, as `FILE` or `FILE::TEST`, that kind has not the means for, and None for those of a FILE that run."""
if PROVIDER not in UP_S:
    raise pytest.UsageError(f"PRFAAS_E2E_PROVIDER is {PROVIDER!r}; it may be {' or '.join(UP_S)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # First what needs the machine's loopback addresses for environments of its own.
    items.sort(key=lambda item: item.path.name != "test_interruption.py")
    if PROVIDER != providers.KIND:
        return
    for item in items:
        if item.path.parent != Path(__file__).parent:
            continue
        # The first one waits for `prfaas up`.
        item.add_marker(pytest.mark.timeout(2 * UP_S[PROVIDER]), append=False)
        file, test = item.path.name, getattr(item, "originalname", item.name)
        if reason := NOT_ON_KIND.get(f"{file}::{test}", NOT_ON_KIND.get(file)):
            item.add_marker(pytest.mark.skip(reason=reason))


class Replay:
    """Requests that are being served in the background, with prompts that no cache has seen."""

    def __init__(self, url: str, model: str, requests: Sequence[TraceRequest], speed: float) -> None:
        shift = time.monotonic_ns() % 2**40
        fresh = [
            replace(request, block_ids=tuple(block + shift for block in request.block_ids)) for request in requests
        ]
        self._arguments = (fresh, url, model, speed, ANSWER_S, self._seen)
        self._outcomes: list[Outcome] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answered = 0
        self._thread.start()

    def wait_answered(self, count: int, deadline_s: float = 60.0) -> None:
        end_s = time.monotonic() + deadline_s
        while self.answered < count:
            assert time.monotonic() < end_s, f"{self.answered} answers, {count} were expected"
            time.sleep(0.01)

    def outcomes(self, deadline_s: float = 150.0) -> list[Outcome]:
        """Wait for the end of all requests: none may hang."""
        self._thread.join(deadline_s)
        assert not self._thread.is_alive(), "a request hangs"
        return self._outcomes

    def _run(self) -> None:
        self._outcomes = asyncio.run(replay(*self._arguments))

    def _seen(self, _: Outcome) -> None:
        self.answered += 1


class Installed:
    """PrfaaS in its local environment, as a test works on it."""

    def __init__(self, state_dir: Path, output: str) -> None:
        self.state_dir = state_dir
        self.output = output
        # Of everything that an environment of processes has; scenarios that need more than a LocalEnvironment do not run on kind.
        self.environment: Any
        self.environment, self.manifests = providers.prepared(PROVIDER, state_dir, Manifests.load(MANIFESTS))
        self.installation = Installation(self.environment, REPOSITORY / "charts", self.manifests)
        self._url = self.installation.wait_ready()
        self._specs = {key: item["spec"] for key, item in self._objects().items()}

    @property
    def url(self) -> str:
        """Base URL of the router. A forward ends with the router's pod, so the next one may be elsewhere."""
        if PROVIDER == providers.KIND:
            return str(self.environment.service_url(*self.installation.router_service, ROUTER_PORT))
        return self._url

    @property
    def hub(self) -> LocalCluster:
        return self.environment.hub

    def cluster(self, name: str) -> LocalCluster:
        return self.environment.clusters[name]

    def kubectl(self, *arguments: str, cluster: str = "hub") -> str:
        return self.cluster(cluster).kubectl("-n", NAMESPACE, *arguments)

    def get(self, kind: str, name: str, cluster: str = "hub") -> Json:
        found: Json = json.loads(self.kubectl("get", kind, name, "-o", "json", cluster=cluster))
        return found

    def patch(self, kind: str, name: str, patch: Json | list[Json]) -> None:
        how = "json" if isinstance(patch, list) else "merge"
        self.kubectl("patch", kind, name, f"--type={how}", "-p", json.dumps(patch))

    def condition(self, kind: str, name: str, type_: str = "Ready") -> tuple[str, str]:
        status = self.get(kind, name).get("status") or {}
        for item in status.get("conditions") or []:
            if item["type"] == type_:
                return item["status"], item["reason"]
        return "Unknown", "Pending"

    def pods(self, cluster: str, **labels: str) -> list[Json]:
        selector = ",".join(f"prfaas.dev/{key}={value}" for key, value in labels.items())
        found: list[Json] = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json", cluster=cluster))[
            "items"
        ]
        return found

    def wait(self, condition: Callable[[], object], what: str, deadline_s: float = 60.0) -> None:
        end_s = time.monotonic() + deadline_s
        last: object = None
        while True:
            try:
                if condition():
                    return
            except (LocalClusterError, httpx.TransportError) as error:
                last = error
            assert time.monotonic() < end_s, f"{what} ({last}):\n{self._state()}"
            time.sleep(0.1)

    def converged(self) -> bool:
        """Whether everything is as its spec says."""
        found = self._objects()
        return found.keys() == self._specs.keys() and all(
            _is_ready(item) for item in found.values() if item["kind"] in READY_KINDS
        )

    def restore(self) -> None:
        """Bring the environment back to its manifests."""
        if PROVIDER != providers.KIND:
            self.link(fault="none", capacityBps=self.manifests.link_capacity_bps)
        if self._objects().keys() != self._specs.keys():
            self.kubectl("apply", "-f", str(self.manifests.folder))
        # Applying leaves what others have set; here the whole spec goes back at once.
        for key, item in self._objects().items():
            if item["spec"] != self._specs[key]:
                self.patch(*key, [{"op": "replace", "path": "/spec", "value": self._specs[key]}])
        self.wait(self.converged, "the objects to be ready", 90)

    def replay(self, requests: int, speed: float) -> Replay:
        """Serve the beginning of the trace."""
        return self.serve(load(TRACE, requests), speed)

    def serve(self, requests: Sequence[TraceRequest], speed: float = 1.0) -> Replay:
        """Serve requests at their times."""
        return Replay(self.url, self.installation.model, requests, speed)

    def complete(self, tokens: int = 2000, output_tokens: int = 5, **more: Any) -> httpx.Response:
        """Send one request. Its prompt has not been sent before."""
        start = time.monotonic_ns() % 40_000
        body = {
            "model": self.installation.model,
            "prompt": [(start + n * n) % 50_000 for n in range(tokens)],
            "max_tokens": output_tokens,
        }
        return httpx.post(f"{self.url}/v1/completions", json=body | more, timeout=ANSWER_S, trust_env=False)

    def metrics(self, pod_prefix: str, cluster: str = "east") -> str:
        """Return what a running pod says of itself."""
        pods = json.loads(self.kubectl("get", "pods", "-o", "json", cluster=cluster))["items"]
        pod = next(item for item in pods if item["metadata"]["name"].startswith(pod_prefix))
        port = pod["metadata"]["annotations"]["prometheus.io/port"]
        if PROVIDER == providers.KIND:
            path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}:{port}/proxy/metrics"
            return self.kubectl("get", "--raw", path, cluster=cluster)
        return httpx.get(f"http://{pod['status']['podIP']}:{port}/metrics", timeout=5, trust_env=False).text

    def operator(self) -> str:
        """Return the name of the operator's pod."""
        return self.hub.kubectl("get", "pods", "-n", "prfaas-system", "-o", "jsonpath={.items[0].metadata.name}")

    def log(self, cluster: str, pod: str) -> str:
        """Return the logs of a pod's containers, of all their runs."""
        folders = (self.state_dir / cluster / "node" / "pods").glob(f"*_{pod}_*")
        return "".join(path.read_text() for folder in folders for path in sorted(folder.glob("*/*.log")))

    def reasons(self, outcomes: Sequence[Outcome]) -> Mapping[str, int]:
        """Return how many requests have each reason."""
        return Counter(outcome.reason for outcome in outcomes if outcome.reason)

    def link(self, **state: object) -> None:
        httpx.put(f"{self.environment.link_url}/state", json=state, timeout=5, trust_env=False).raise_for_status()

    def kill(self, pod: str) -> None:
        """Kill the processes of a pod as a crash would."""
        pids = [pid for pid in processes.marked(self.environment.supervisor.mark) if _hostname(pid) == pod]
        assert pids, f"pod {pod} has no process"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def _objects(self) -> dict[tuple[str, str], Json]:
        """Return the objects of the manifests that are there, by kind and name."""
        text = self.kubectl("get", "-f", str(self.manifests.folder), "--ignore-not-found", "-o", "json")
        found: Json = json.loads(text) if text else {"items": []}
        return {(item["kind"], item["metadata"]["name"]): item for item in found.get("items", [found])}

    def _state(self) -> str:
        try:
            return self.kubectl("get", "prfaas")
        except LocalClusterError as error:
            return str(error)


def _is_ready(item: Json) -> bool:
    """Return whether an object says of its newest generation that it is ready."""
    return any(
        (found["type"], found["status"], found["observedGeneration"])
        == ("Ready", "True", item["metadata"]["generation"])
        for found in (item.get("status") or {}).get("conditions") or ()
    )


def _hostname(pid: int) -> str | None:
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    return next((part[9:].decode() for part in content.split(b"\0") if part.startswith(b"HOSTNAME=")), None)


@pytest.fixture(scope="session")
def prfaas() -> Callable[..., subprocess.Popen[str]]:
    """Start the command `prfaas` in the repository, as a newcomer would."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [Path(sys.executable).with_name("prfaas"), *arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"COLUMNS": "160"},
        )

    return start


@pytest.fixture(scope="session")
def installed(
    prfaas: Callable[..., subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """What `prfaas up` leaves running after it has served the beginning of the trace."""
    state_dir = tmp_path_factory.mktemp("local")
    up = prfaas("up", f"--provider={PROVIDER}", f"--state-dir={state_dir}", "--requests=120", "--speed=4")
    try:
        output, _ = up.communicate(timeout=UP_S[PROVIDER])
        assert up.returncode == 0, output
        system = Installed(state_dir, output)
        with closing(system.environment):
            yield system
    finally:
        up.kill()
        up.wait()
        prfaas("down", f"--state-dir={state_dir}").communicate(timeout=120)
        assert processes.marked(processes.mark_of(state_dir)) == []


@pytest.fixture
def system(installed: Installed) -> Installed:
    """The environment as its manifests say; a test may do to it what it wants, since the next one restores it."""
    installed.restore()
    return installed
