"""Forecasts from a real Prometheus that holds days of history, by the fit that the operator runs."""

from __future__ import annotations

import math
import random
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from prfaas_local import binaries
from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.scaling import Forecast, ForecastMode
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import Ref
from prfaas_operator.scaling.forecast import ForecastedPool, Forecaster, smoothed
from prfaas_operator.scaling.prometheus import Fault, Prometheus, Series
from prfaas_operator.scaling.prometheus.access import PrometheusFiles
from prfaas_operator.scaling.queries import Workers

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

DAY_S, HORIZON_S, PODS = 86_400, 7_200, 3


def load(at_s: float) -> float:
    """Return the load of all pods at a time: a day with a long rise and a steep fall."""
    part = at_s % DAY_S / DAY_S
    return 30 + 20 * math.sin(2 * math.pi * part) + 8 * math.sin(4 * math.pi * part)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Prometheus, and give it three and a half days of the load of three pods, with noise, in minutes."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yaml").write_text("storage: {tsdb: {out_of_order_time_window: 30d}}\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as probe:
        address = f"127.0.0.1:{probe.server_address[1]}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binaries.find("prometheus"), f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}", "--web.enable-otlp-receiver",
            ],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait_ready(f"http://{address}", folder / "log")
        _write(f"http://{address}")
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def _wait_ready(url: str, log: Path) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.05)


def _write(url: str) -> None:
    """Send the history as OpenTelemetry has it, which takes times of the past."""
    chance, now_s = random.Random(11), time.time()
    points = [
        {
            "timeUnixNano": str(int(at_s * 1e9)),
            "asDouble": max(0.0, load(at_s) / PODS * chance.gauss(1, 0.1)),
            "attributes": [{"key": "pod", "value": {"stringValue": f"pod-{pod}"}}],
        }
        for minute in range(int(3.5 * DAY_S / 60), -1, -1)
        for at_s in [now_s - 60 * minute]
        for pod in range(PODS)
    ]
    metrics = [{"name": "work", "gauge": {"dataPoints": points}}]
    name = {"key": "service.name", "value": {"stringValue": "engine"}}
    body = {"resourceMetrics": [{"resource": {"attributes": [name]}, "scopeMetrics": [{"metrics": metrics}]}]}
    answer = httpx.post(f"{url}/api/v1/otlp/v1/metrics", json=body, trust_env=False, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.fixture
def prometheus(url: str) -> Iterator[Prometheus]:
    server = Prometheus(PrometheusFiles(url, timeout_s=30))
    yield server
    server.close()


async def test_a_day_is_predicted_better_than_by_the_load_of_now(prometheus: Prometheus) -> None:
    """Every two hours of the last half day the load in two hours is predicted, and compared when it has come."""
    pool = ForecastedPool(
        Ref("DecodePool", "t", "d"), Workers("east", "t", "d", "decode"),
        Forecast(mode=ForecastMode.FLOOR, horizon_seconds=HORIZON_S, season_seconds=DAY_S), "sum(work)", 2.0, 100,
    )  # fmt: skip
    end_s, clock = time.time(), [0.0]

    async def ask(_: Workers, query: str, start_s: float, end_s: float, step_s: float) -> Series | Fault:
        return await prometheus.history(query, start_s, end_s, step_s)

    forecaster = Forecaster(ask, pools=lambda: [pool], smooth=smoothed, metrics=Metrics(), clock=lambda: clock[0])
    origins = [end_s - HORIZON_S * ago for ago in (5, 4, 3, 2, 1)]
    for clock[0] in origins:
        await forecaster.look()
        view, floor = forecaster.view(pool.ref), forecaster.floor(pool.ref)
        assert view is not None
        assert floor is not None
        exact = load(clock[0] + HORIZON_S) / 2
        assert math.ceil(0.85 * exact) <= floor.replicas <= math.ceil(1.15 * exact)
        assert floor.replicas == view.predicted_replicas
    assert view is not None
    assert view.error is not None
    # Of the last prediction nothing has come yet.
    pairs = [(load(at_s), load(at_s + HORIZON_S)) for at_s in origins[:-1]]
    naive = sum(abs(now - then) for now, then in pairs) / sum(then for _, then in pairs)
    assert view.error < 0.5 * naive
    assert view.error < 0.1


async def test_ranges_have_reasons_where_they_have_no_series(prometheus: Prometheus) -> None:
    now_s = time.time()
    found = await prometheus.history("sum(work)", now_s - 3600, now_s, 60)
    assert isinstance(found, Series)
    assert len(found.samples) == 61
    for query, reason in (
        ("nothing", Reason.SIGNAL_MISSING), ("work", Reason.SIGNAL_INVALID), ("sum(", Reason.SIGNAL_INVALID)
    ):  # fmt: skip
        answer = await prometheus.history(query, now_s - 3600, now_s, 60)
        assert isinstance(answer, Fault)
        assert answer.reason is reason
    holes = await prometheus.history("sum(work) / 0", now_s - 3600, now_s, 60)
    assert holes == Series(())
