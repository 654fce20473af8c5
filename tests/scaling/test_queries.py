"""The built-in queries, asked of a real Prometheus that scrapes what engines expose."""

import asyncio
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from prfaas_local import binaries
from prfaas_operator.api.scaling import Signal
from prfaas_operator.scaling import queries
from prfaas_operator.scaling.prometheus import Prometheus
from prfaas_operator.scaling.queries import Workers

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

DECODE = Workers("east", "t", "d", "decode")
PREFILL = Workers("west", "t", "p", "prefill")
LOCAL = Workers("east", "t", "l", "prefill")


class Engine:
    """vLLM's metrics of one pod."""

    def __init__(self, workers):
        self.workers = workers
        self.registry = CollectorRegistry()
        made = {"labelnames": ["model_name"], "registry": self.registry}
        self.queue_s = Histogram("vllm:request_queue_time_seconds", "x", **made).labels("m")
        self.running = Gauge("vllm:num_requests_running", "x", **made).labels("m")
        self.nixl_bytes = Histogram("vllm:nixl_bytes_transferred", "x", **made).labels("m")
        self.success = Counter("vllm:request_success", "x", **made).labels("m")
        self.prompt_tokens = Counter("vllm:prompt_tokens", "x", **made).labels("m")


@pytest.fixture
def engines(tmp_path):
    """Two decode pods, a remote and a local prefill pod, scraped five times a second; yields them and the client."""
    found = [Engine(DECODE), Engine(DECODE), Engine(PREFILL), Engine(LOCAL)]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = generate_latest(found[int(self.path.rsplit("/", 1)[1])].registry)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    exposition = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=exposition.serve_forever, daemon=True).start()
    target = f"127.0.0.1:{exposition.server_address[1]}"
    jobs = [
        {
            "job_name": f"pod-{n}", "scrape_interval": "200ms", "scrape_timeout": "200ms", "metrics_path": f"/{n}",
            "static_configs": [{"targets": [target], "labels": {
                "cluster": engine.workers.cluster, "namespace": engine.workers.namespace,
                "prfaas_pool": engine.workers.pool, "prfaas_role": engine.workers.role, "pod": f"pod-{n}",
            }}],
        }
        for n, engine in enumerate(found)
    ]  # fmt: skip
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump({"scrape_configs": jobs}))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as probe:
        port = probe.server_address[1]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binaries.find("prometheus"), f"--config.file={tmp_path / 'prometheus.yaml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    deadline = time.monotonic() + 30
    while True:
        try:
            if httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200:
                break
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
    client = Prometheus(url, timeout_s=2)
    yield found, client
    client.close()
    process.kill()
    process.wait()
    exposition.shutdown()
    exposition.server_close()


async def until(client, query, check):
    async with asyncio.timeout(20):
        while not check(await client.ask(query)):  # noqa: ASYNC110  Prometheus scrapes at its own pace
            await asyncio.sleep(0.1)
    return await client.ask(query)


async def test_built_in_signals(engines):
    """The mean wait in the queue, nought when nobody asks; the mean number of running requests a worker."""
    (first, second, prefill, _), client = engines
    wait = queries.signal(Signal(name="PrefillQueueWait", target_value=1, window_seconds=60), PREFILL)
    idle = await until(client, wait, lambda found: found.value is not None)
    assert idle.value == 0
    for waited_s in (0.5, 1.5):
        prefill.queue_s.observe(waited_s)
    busy = await until(client, wait, lambda found: found.value)
    assert busy.value == pytest.approx(1.0)
    first.running.set(10)
    second.running.set(20)
    running = queries.signal(Signal(name="DecodeRunning", target_value=1, window_seconds=5), DECODE)
    mean = await until(client, running, lambda found: found.value is not None and found.value > 14.99)
    assert mean.value == pytest.approx(15)
    absent = Workers("east", "t", "nobody", "decode")
    assert (await client.ask(queries.signal(Signal(name="DecodeRunning", target_value=1), absent))).value is None


async def test_link_meters(engines):
    """Bytes that decode receives over all its pods, and the part that came over the link."""
    (first, second, prefill, local), client = engines
    received = queries.received_bytes([DECODE])
    await until(client, received, lambda found: found.value == 0)
    first.nixl_bytes.observe(600e6)
    second.nixl_bytes.observe(600e6)
    found = await until(client, received, lambda sample: sample.value)
    assert found.value > 0
    for engine, requests, tokens in ((prefill, 3, 3000), (local, 1, 1000)):
        engine.success.inc(requests)
        engine.prompt_tokens.inc(tokens)
    behind = queries.handed_over_bytes([(PREFILL, 1e6, 1e3)])
    everything = queries.handed_over_bytes([(PREFILL, 1e6, 1e3), (LOCAL, 1e6, 1e3)])
    # Pods are scraped at different moments, so rates that are extrapolated agree only after some samples.
    three_quarters = pytest.approx(0.75, rel=0.05)
    await until(client, f"({behind}) / ({everything})", lambda s: s.value is not None and s.value == three_quarters)
    nobody = queries.received_bytes([Workers("east", "t", "nobody", "decode")])
    assert (await client.ask(nobody)).value is None
