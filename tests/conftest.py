"""Real workers and routers as processes, on loopback addresses of their own."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

REPOSITORY = Path(__file__).resolve().parents[1]
_ADDRESSES = (f"127.{140 + os.getpid() % 100}.{n // 250}.{n % 250 + 1}" for n in itertools.count())


class FolderScheduling(LoadScopeScheduling):
    """Runs the tests of a folder in one process, since they share clusters, and those of different folders beside each other."""

    def _split_scope(self, nodeid: str) -> str:
        return str(Path(nodeid.partition("::")[0]).parent)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FolderScheduling:
    return FolderScheduling(config, log)


class Process:
    """A process that serves HTTP."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str

    def wait_ready(self, path: str = "/health") -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(self.url + path, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                continue
        raise AssertionError(f"not ready: {self.log.read_text()}")

    def metric(self, name: str) -> float:
        """Return the sum of the samples whose name and labels start so; labels in the order of the exposition."""
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines():
            if line.startswith(name) and line[len(name)] in "{, ":
                total += float(line.rsplit(" ", 1)[1])
        return total

    def wait_metric(self, name: str, value: float) -> None:
        deadline = time.monotonic() + 60
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}, not {value}"

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


class WorkerProcess(Process):
    """One process of a program that is a worker by its profile: `prfaas-sim` or `prfaas-tiny`."""

    def __init__(self, folder: Path, program: str, profile: dict[str, object], arguments: tuple[str, ...]) -> None:
        self.address = next(_ADDRESSES)
        self.name = f"worker-{self.address}"
        self.url = f"http://{self.address}:8000"
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(profile))
        self.log = folder / f"{self.name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name(program), "--profile", str(path), *arguments],
                env=os.environ
                | {"POD_IP": self.address, "POD_NAME": self.name, "VLLM_NIXL_SIDE_CHANNEL_HOST": self.address},
                stdout=log,
                stderr=subprocess.STDOUT,
            )


class RouterProcess(Process):
    """One `prfaas-router` process that serves by a snapshot file, or by what its arguments name."""

    def __init__(self, folder: Path, snapshot: dict[str, object] | None, arguments: tuple[str, ...]) -> None:
        self.address = next(_ADDRESSES)
        self.url = f"http://{self.address}:8080"
        if snapshot is not None:
            path = folder / f"router-{self.address}.json"
            path.write_text(json.dumps(snapshot))
            arguments = (f"--snapshot={path}", *arguments)
        self.log = folder / f"router-{self.address}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("prfaas-router"), f"--host={self.address}", "--route=ns/chat",
                    "--drain-delay-s=0", *arguments,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def requests(self) -> list[dict[str, object]]:
        """Return the log lines of requests."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "request"]

    def wait_requests(self, count: int) -> list[dict[str, object]]:
        """Return the log lines of so many requests; one is written when its client has the answer already."""
        deadline = time.monotonic() + 60
        while len(found := self.requests()) != count:
            assert time.monotonic() < deadline, f"{len(found)} requests, not {count}"
        return found


@pytest.fixture
def profile() -> dict[str, object]:
    documents = yaml.safe_load_all((REPOSITORY / "e2e/manifests/10-profiles.yaml").read_text())
    spec: dict[str, object] = next(iter(documents))["spec"]
    return spec


@pytest.fixture
def free_address() -> str:
    return next(_ADDRESSES)


@pytest.fixture
def launch_worker(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start a worker by the name of its program and the spec of its profile, and do not wait until it is ready."""
    launched: list[WorkerProcess] = []

    def launch(program: str, spec: dict[str, object], *arguments: str) -> WorkerProcess:
        worker = WorkerProcess(tmp_path, program, spec, arguments)
        launched.append(worker)
        return worker

    yield launch
    for worker in launched:
        worker.kill()


@pytest.fixture
def start_worker(
    launch_worker: Callable[..., WorkerProcess], profile: dict[str, object]
) -> Callable[..., WorkerProcess]:
    def start(*arguments: str, spec: dict[str, object] | None = None) -> WorkerProcess:
        worker = launch_worker("prfaas-sim", spec or profile, "--time-scale=25", *arguments)
        worker.wait_ready()
        return worker

    return start


def pool_message(name: str, cluster: str, workers: list[WorkerProcess], **changes: object) -> dict[str, object]:
    endpoints = [
        {"name": worker.name, "address": worker.address, "http_port": 8000, "kv_address_own": worker.address,
         "kv_port": 5600, "engine_id": worker.name}
        for worker in workers
    ]  # fmt: skip
    base = {
        "namespace": "ns", "name": name, "cluster": cluster, "endpoints": endpoints, "kv_fingerprint": "f",
        "cache_capacity_tokens": 1_000_000, "connector": "NIXL_PULL",
    }  # fmt: skip
    return base | changes


@pytest.fixture
def snapshot() -> Callable[..., dict[str, object]]:
    """Build a snapshot of given workers: threshold 1,000 tokens, blocks of 64."""

    def build(
        decode: list[WorkerProcess],
        local: list[WorkerProcess] | None,
        remote: list[WorkerProcess] | None,
        policy: dict[str, object] | None = None,
        limits: dict[str, object] | None = None,
        **pool: object,
    ) -> dict[str, object]:
        message: dict[str, object] = {
            "version": 7, "route_namespace": "ns", "route_name": "chat",
            "model": {"name": "prfaas-1t", "max_model_len_tokens": 131072, "bytes_per_token": 4, "prefix_block_tokens": 64},
            "policy": {"mode": "ENFORCE", "bandwidth": "SCARCE", "threshold_tokens": 1000} | (policy or {}),
            "decode": pool_message("decode", "east", decode, **pool),
            "limits": {"max_body_bytes": 1 << 20, "prefill_timeout_s": 20, "connect_timeout_s": 2} | (limits or {}),
        }  # fmt: skip
        if local is not None:
            message["local_prefill"] = pool_message("local", "east", local, **pool)
        if remote is not None:
            message["remote_prefill"] = [{"pool": pool_message("remote", "west", remote, **pool)}]
        return message

    return build


@pytest.fixture
def start_router(tmp_path: Path) -> Iterator[Callable[..., RouterProcess]]:
    started: list[RouterProcess] = []

    def start(snapshot: dict[str, object] | None, *arguments: str) -> RouterProcess:
        router = RouterProcess(tmp_path, snapshot, arguments)
        started.append(router)
        router.wait_ready()
        return router

    yield start
    for router in started:
        router.kill()
