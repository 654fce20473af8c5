"""What the router adds: against a direct connection and against nginx as a plain reverse proxy, in one run.

The upstream is nginx with a constant answer, so that its own time is small and the same for all. Rounds of the three ways
follow each other in turn, so that a slow moment of the machine meets all of them. The router runs one leg (no prefill
pool): it parses, counts, hashes and decides, and forwards to the decode worker.

    python benchmarks/router/run.py [--write]

Needs nginx (Debian: nginx-light). Everything is on loopback, bounded, and stopped in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

HOST = f"127.{100 + os.getpid() % 40}.7.1"
UPSTREAM, PROXY, ROUTER = 18000, 18001, 18002
WAYS = {"direct": UPSTREAM, "nginx": PROXY, "router": ROUTER}
ROUNDS, REQUESTS, CONNECTIONS = 7, 400, 4
ANSWER = json.dumps(
    {"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": "ok", "finish_reason": "stop"}]}
)

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1; events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 16m; client_body_buffer_size 1m; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server {host}:{upstream}; keepalive 32; }}
  server {{ listen {host}:{port}; keepalive_requests 1000000; location / {{ {location} }} }}
}}
"""


def request_bytes(tokens: int) -> bytes:
    body = json.dumps({"model": "m", "prompt": list(range(tokens)), "max_tokens": 1}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def connection(port: int, raw: bytes, count: int, latencies_s: list[float]) -> None:
    reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 20)
    for _ in range(count):
        started_s = time.perf_counter()
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"unexpected answer: {head[:200]!r}")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        latencies_s.append(time.perf_counter() - started_s)
    writer.close()


async def load(port: int, raw: bytes, requests: int) -> list[float]:
    latencies_s: list[float] = []
    await asyncio.gather(*(connection(port, raw, requests // CONNECTIONS, latencies_s) for _ in range(CONNECTIONS)))
    return latencies_s


def cpu_s(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def wait_open(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 15
    while True:
        try:
            asyncio.run(_connect(port))
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"nothing listens on {HOST}:{port}") from None
            time.sleep(0.05)
        else:
            return


async def _connect(port: int) -> None:
    _, writer = await asyncio.open_connection(HOST, port)
    writer.close()


def measure(pids: dict[str, list[int]], tokens: int) -> dict[str, dict[str, float]]:
    raw = request_bytes(tokens)
    seen: dict[str, dict[str, list[float]]] = {way: {"p50": [], "p99": [], "cpu": []} for way in WAYS}
    for port in WAYS.values():
        uvloop.run(load(port, raw, 100))
    for _ in range(ROUNDS):
        for way, port in WAYS.items():
            before_s = cpu_s(pids[way])
            latencies_ms = sorted(1000 * value for value in uvloop.run(load(port, raw, REQUESTS)))
            seen[way]["cpu"].append(1e6 * (cpu_s(pids[way]) - before_s) / REQUESTS)
            seen[way]["p50"].append(latencies_ms[len(latencies_ms) // 2])
            seen[way]["p99"].append(latencies_ms[int(len(latencies_ms) * 0.99)])
    return {way: {name: statistics.median(values) for name, values in figures.items()} for way, figures in seen.items()}


def table(results: dict[int, dict[str, dict[str, float]]]) -> str:
    lines = [
        "| prompt tokens | way | p50 ms | added p50 | p99 ms | added p99 | CPU us/request | CPU against nginx |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for tokens, ways in results.items():
        direct, nginx = ways["direct"], ways["nginx"]
        for way, figures in ways.items():
            added = [f"{figures[name] - direct[name]:+.2f}" if way != "direct" else "" for name in ("p50", "p99")]
            cpu = "" if way == "direct" else f"{figures['cpu']:.0f}"
            ratio = f"{figures['cpu'] / nginx['cpu']:.1f}x" if way == "router" and nginx["cpu"] else ""
            lines.append(
                f"| {tokens} | {way} | {figures['p50']:.2f} | {added[0]} | {figures['p99']:.2f} | {added[1]} | {cpu} | {ratio} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write REPORT.md beside this file")
    arguments = parser.parse_args()
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if nginx is None:
        raise SystemExit("nginx is not installed; on Debian: apt-get install nginx-light")
    snapshot = {
        "version": 1, "route_namespace": "b", "route_name": "b",
        "model": {"name": "m", "max_model_len_tokens": 131072, "bytes_per_token": 4, "prefix_block_tokens": 512},
        "policy": {"mode": "ENFORCE", "bandwidth": "SCARCE", "threshold_tokens": 1000000},
        "decode": {"namespace": "b", "name": "d", "cluster": "c", "kv_fingerprint": "f", "connector": "NIXL_PULL",
                   "cache_capacity_tokens": 4_000_000,
                   "endpoints": [{"name": "u", "address": HOST, "http_port": UPSTREAM}]},
        "limits": {"max_body_bytes": 16 << 20, "prefill_timeout_s": 60, "connect_timeout_s": 2},
    }  # fmt: skip
    locations = {
        UPSTREAM: f"default_type application/json; return 200 '{ANSWER}';",
        PROXY: 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";',
    }
    children: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name:
        try:
            for port, location in locations.items():
                folder = Path(name) / str(port)
                folder.mkdir()
                (folder / "nginx.conf").write_text(
                    NGINX.format(folder=folder, host=HOST, port=port, upstream=UPSTREAM, location=location)
                )
                children.append(subprocess.Popen([nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]))
                wait_open(port, children[-1])
            path = Path(name) / "snapshot.json"
            path.write_text(json.dumps(snapshot))
            command = [
                str(Path(sys.executable).with_name("prfaas-router")),
                f"--host={HOST}",
                f"--http-port={ROUTER}",
                "--grpc-port=18003",
                "--route=b/b",
                f"--snapshot={path}",
            ]
            with (Path(name) / "router.log").open("wb") as log:
                children.append(subprocess.Popen(command, stdout=log, stderr=log))
            wait_open(ROUTER, children[-1])
            pids = {"direct": family(children[0].pid), "nginx": family(children[1].pid), "router": [children[2].pid]}
            report = table({tokens: measure(pids, tokens) for tokens in (100, 12_000)})
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait(10)
    print(report)
    if arguments.write:
        version = (
            subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr.strip().rsplit("/", 1)[1]
        )
        text = (
            "# The router against a direct connection and against nginx\n\n"
            f"Taken with `python benchmarks/router/run.py --write`: medians of {ROUNDS} rounds of {REQUESTS} requests over {CONNECTIONS} connections, the three ways in turn, "
            f"not streaming, on {os.cpu_count()} shared {platform.machine()} cores that also run the load and the upstream, Python {platform.python_version()}, nginx {version}.\n"
            "The router parses the body, hashes the prompt and decides; nginx only forwards. Absolute times are of that machine; the ratios are what counts. "
            "CPU is read from the processes, in ticks of 10 ms over a round.\n\n"
        )  # fmt: skip
        Path(__file__).with_name("REPORT.md").write_text(text + report + "\n")


if __name__ == "__main__":
    main()
