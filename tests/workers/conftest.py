"""Real worker processes on loopback addresses of their own."""

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

REPOSITORY = Path(__file__).resolve().parents[2]
_ADDRESSES = (f"127.{140 + os.getpid() % 100}.{n // 250}.{n % 250 + 1}" for n in itertools.count())


class WorkerProcess:
    """One `prfaas-sim` process."""

    def __init__(self, folder: Path, profile: dict[str, object], arguments: tuple[str, ...]) -> None:
        self.address = next(_ADDRESSES)
        self.name = f"worker-{self.address}"
        self.url = f"http://{self.address}:8000"
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(profile))
        self.log = folder / f"{self.name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("prfaas-sim"), "--profile", str(path), *arguments],
                env=os.environ
                | {"POD_IP": self.address, "POD_NAME": self.name, "VLLM_NIXL_SIDE_CHANNEL_HOST": self.address},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/health", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                continue
        raise AssertionError(f"not ready: {self.log.read_text()}")

    def metric(self, name: str) -> float:
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines():
            if line.startswith(name) and line[len(name)] in "{ ":
                total += float(line.rsplit(" ", 1)[1])
        return total

    def wait_metric(self, name: str, value: float) -> None:
        deadline = time.monotonic() + 20
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}, not {value}"

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def profile() -> dict[str, object]:
    documents = yaml.safe_load_all((REPOSITORY / "e2e/manifests/10-profiles.yaml").read_text())
    spec: dict[str, object] = next(iter(documents))["spec"]
    return spec


@pytest.fixture
def start_worker(tmp_path: Path, profile: dict[str, object]) -> Iterator[Callable[..., WorkerProcess]]:
    started: list[WorkerProcess] = []

    def start(*arguments: str, spec: dict[str, object] | None = None) -> WorkerProcess:
        worker = WorkerProcess(tmp_path, spec or profile, ("--time-scale=200", "--bytes-scale=0.001", *arguments))
        started.append(worker)
        worker.wait_ready()
        return worker

    yield start
    for worker in started:
        worker.kill()
