"""The data path without Kubernetes: a router and simulated workers as processes, each on a loopback address of its own.

The instances are the case study's: 4 for remote prefill on H200, 3 for local prefill and 5 for decode on H20. Profiles run
`speed` times faster than they say and move a thousandth of their KV bytes. The threshold is the planner's, for the lengths
that the trace holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from prfaas_cli.trace import TraceRequest
from prfaas_core import compatibility, planner
from prfaas_core.lengths import Lengths
from prfaas_core.model import Deployment
from prfaas_core.profiles import Profile

BYTES_SCALE = 0.001
LINK_BPS = 100e9
READY_S = 30.0
_POLL_S = 0.05


class DemonstrationError(Exception):
    """A process did not come up; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What runs."""

    url: str
    model: str
    remote: int
    local: int
    decode: int
    threshold_tokens: int
    why: str


@contextmanager
def running(
    profiles: Path, requests: Sequence[TraceRequest], speed: float, remote: int = 4, local: int = 3, decode: int = 5
) -> Iterator[Demonstration]:
    """Start everything, yield where the router is, and stop everything."""
    documents = list(yaml.safe_load_all(profiles.read_text(encoding="utf-8")))
    specs = {document["metadata"]["name"]: document["spec"] for document in documents}
    fast, slow = specs["case-study-h200"], specs["case-study-h20"]
    output_tokens = sum(request.output_tokens for request in requests) / len(requests)
    plan = planner.best_threshold(
        Deployment(Profile.from_spec(slow), local, decode, output_tokens, Profile.from_spec(fast), remote, LINK_BPS),
        Lengths.of(request.input_tokens for request in requests),
    )
    octet = 60 + os.getpid() % 60
    children: list[tuple[str, subprocess.Popen[bytes], Path, str]] = []
    with tempfile.TemporaryDirectory(prefix="prfaas-demo-") as name:
        folder = Path(name)
        try:
            pools = {}
            for side, (pool, count, spec) in enumerate(
                (("decode", decode, slow), ("local", local, slow), ("remote", remote, fast))
            ):
                endpoints = []
                for number in range(1, count + 1):
                    address, worker = f"127.{octet}.{side}.{number}", f"{pool}-{number}"
                    children.append(_worker(folder, worker, address, spec, speed))
                    endpoints.append(_endpoint(worker, address))
                pools[pool] = _pool(pool, "west" if pool == "remote" else "east", endpoints, spec)
            for worker, process, log, url in children:
                _wait(worker, process, log, f"{url}/health")
            snapshot = folder / "snapshot.json"
            snapshot.write_text(json.dumps(_snapshot(slow, pools, plan.threshold_tokens)), encoding="utf-8")
            router = f"127.{octet}.9.1"
            command = [
                "prfaas-router",
                f"--host={router}",
                "--route=demo/chat",
                f"--snapshot={snapshot}",
                "--drain-delay-s=0",
            ]
            children.append(_start("router", command, folder, f"http://{router}:8080", {}))
            _wait(*children[-1][:3], f"http://{router}:8080/ready")
            yield Demonstration(
                f"http://{router}:8080",
                slow["model"]["name"],
                remote,
                local,
                decode,
                plan.threshold_tokens,
                f"Lambda_max {plan.throughput.rate:.2f} req/s, bound by {plan.throughput.bound}",
            )
        finally:
            for _, process, _, _ in children:
                process.terminate()
            for _, process, _, _ in children:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _worker(
    folder: Path, name: str, address: str, spec: dict[str, Any], speed: float
) -> tuple[str, subprocess.Popen[bytes], Path, str]:
    profile = folder / f"{name}.json"
    profile.write_text(json.dumps(spec), encoding="utf-8")
    command = ["prfaas-sim", f"--profile={profile}", f"--time-scale={speed}", f"--bytes-scale={BYTES_SCALE}"]
    environment = {"POD_IP": address, "POD_NAME": name, "VLLM_NIXL_SIDE_CHANNEL_HOST": address}
    return _start(name, command, folder, f"http://{address}:8000", environment)


def _start(
    name: str, command: list[str], folder: Path, url: str, environment: dict[str, str]
) -> tuple[str, subprocess.Popen[bytes], Path, str]:
    log = folder / f"{name}.log"
    # The scripts of this installation, wherever PATH leads.
    program = str(Path(sys.executable).with_name(command[0]))
    with log.open("wb") as file:
        process = subprocess.Popen([program, *command[1:]], stdout=file, stderr=file, env=os.environ | environment)
    return name, process, log, url


def _wait(name: str, process: subprocess.Popen[bytes], log: Path, url: str) -> None:
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            if httpx.get(url, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise DemonstrationError(f"{name} did not get ready:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(_POLL_S)


def _endpoint(name: str, address: str) -> dict[str, object]:
    return {
        "name": name,
        "address": address,
        "http_port": 8000,
        "kv_address_own": address,
        "kv_port": 5600,
        "engine_id": name,
    }


def _pool(name: str, cluster: str, endpoints: list[dict[str, object]], spec: dict[str, Any]) -> dict[str, object]:
    return {
        "namespace": "demo",
        "name": name,
        "cluster": cluster,
        "endpoints": endpoints,
        "kv_fingerprint": compatibility.kv_fingerprint(spec),
        "cache_capacity_tokens": spec["prefixCache"]["capacityTokens"],
        "connector": "NIXL_PUSH" if spec["kv"]["connector"]["name"] == "NixlPushConnector" else "NIXL_PULL",
    }


def _snapshot(spec: dict[str, Any], pools: dict[str, dict[str, object]], threshold_tokens: int) -> dict[str, object]:
    return {
        "version": 1,
        "route_namespace": "demo",
        "route_name": "chat",
        "model": {
            "name": spec["model"]["name"],
            "max_model_len_tokens": spec["model"]["maxModelLenTokens"],
            "bytes_per_token": spec["model"]["bytesPerToken"],
            "prefix_block_tokens": spec["prefixCache"]["blockTokens"],
        },
        "policy": {"mode": "ENFORCE", "bandwidth": "SCARCE", "threshold_tokens": threshold_tokens},
        "decode": pools["decode"],
        "local_prefill": pools["local"],
        "remote_prefill": [{"pool": pools["remote"]}],
        "limits": {"max_body_bytes": 8 << 20, "prefill_timeout_s": 60, "connect_timeout_s": 2},
    }
