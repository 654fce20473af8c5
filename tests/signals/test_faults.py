"""The ways in which Prometheus can be wrong: no value, a reason, replicas that hold, and recovery by itself.

Faults of the protocol happen on the wire, before a real Prometheus; faults of the data in what it scrapes.
"""

import asyncio
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from prfaas_core import autoscaling
from prfaas_core.autoscaling import History, Observed, ScalingReason, SignalName, TargetType
from prfaas_local.certificates import Authority
from prfaas_operator.scaling.observation import Question, observe
from prfaas_operator.scaling.prometheus import Prometheus
from prfaas_operator.scaling.prometheus.access import PrometheusFiles
from prfaas_operator.scaling.prometheus.session import MAX_ANSWER_BYTES

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

RUNNING, REPLICAS = 10.0, 3
LOAD = Question("DecodeRequests", SignalName.DECODE_REQUESTS, target=1.0, window_s=1)


def respond(handler, body, status=200, **headers):
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def holds(readings):
    """Check that the core leaves the pool as it is for want of these readings."""
    settings = autoscaling.Settings(min_replicas=1, max_replicas=100)
    history, ready = History(), 2
    for now_s in (0.0, 1000.0, 2000.0):
        decision = autoscaling.decide(Observed(REPLICAS, ready, readings), settings, history, now_s)
        assert decision.replicas == REPLICAS
        assert decision.reason is readings[0].fault
        history = decision.history


@dataclass
class Serving:
    """Two pods that run ten requests between them."""

    gauges: list[Gauge]

    def set(self, pod, value):
        self.gauges[pod].set(value)


def serve(pool):
    gauges = []
    for pod in (0, 1):
        gauges.append(Gauge("vllm:num_requests_running", "x", registry=pool.expose(pod)))
        gauges[-1].set(RUNNING / 2)
    return Serving(gauges)


@pytest.fixture
def served(steady):
    """A pool whose pods are fine."""
    if steady.path(0) not in steady.pages.texts:
        serve(steady)
    return steady


def healthy(reading):
    return reading.value is not None and reading.value == pytest.approx(RUNNING, rel=0.01)


# Faults on the wire. Each gets the wire, and returns how the server answers.


def slow(wire):
    return lambda handler, form: wire.mended.wait(20)


def trickled_header(wire):
    def answer(handler, form):
        while not wire.mended.wait(0.05):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Wait: more\r\n"[: 1 + wire.asked % 2])

    return answer


def trickled_body(wire):
    def answer(handler, form):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not wire.mended.wait(0.05):
            handler.wfile.write(b" ")

    return answer


def hangs_up(wire):
    return lambda handler, form: None


def status(code, body=b"", **headers):
    return lambda wire: lambda handler, form: respond(handler, body, code, **headers)


def empty(wire):
    return lambda handler, form: respond(handler, b"")


def cut(wire):
    def answer(handler, form):
        body, _ = wire.forward(handler.path, form)
        respond(handler, body[: len(body) // 2], Content_Length=str(len(body)))

    return answer


def cut_chunks(wire):
    return lambda handler, form: handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{")


def huge(wire):
    def answer(handler, form):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        sent = 0
        while not wire.mended.is_set():
            handler.wfile.write(b" " * 65536)
            sent += 65536
            assert sent < 100 * MAX_ANSWER_BYTES, "nobody stops to read"

    return answer


def changed(change):
    """Return the fault that every element of the real answer is changed."""

    def fault(wire):
        def answer(handler, form):
            document = json.loads(wire.forward(handler.path, form)[0])
            for element in document["data"]["result"]:
                element["value"] = change(*element["value"])
            respond(handler, json.dumps(document).encode())

        return answer

    return fault


ERROR = json.dumps({"status": "error", "errorType": "internal", "error": "out of memory"}).encode()
WIRE = {
    "down": (None, "PrometheusUnreachable", "refused"),
    "hangs up": (hangs_up, "PrometheusUnreachable", "closed connection"),
    "slow": (slow, "PrometheusTimeout", "no answer within"),
    "slow, header by header": (trickled_header, "PrometheusTimeout", "no answer within"),
    "slow, byte by byte": (trickled_body, "PrometheusTimeout", "no answer within"),
    "500": (status(500), "PrometheusFailed", "HTTP 500"),
    "503 with a reason": (status(503, ERROR), "PrometheusFailed", "out of memory"),
    "401": (status(401), "PrometheusUnauthorized", "HTTP 401"),
    "403": (status(403), "PrometheusUnauthorized", "HTTP 403"),
    "429": (status(429), "PrometheusThrottled", "HTTP 429"),
    "redirect": (status(302, Location="https://login.example/"), "PrometheusRedirected", "final URL"),
    "wrong path": (status(404), "PrometheusFailed", "HTTP 404"),
    "refused query": (status(400, ERROR), "SignalInvalid", "the query is refused"),
    "empty": (empty, "PrometheusAnswerInvalid", "not the JSON"),
    "a page": (status(200, b"<html>Sign in</html>"), "PrometheusAnswerInvalid", "not the JSON"),
    "another API": (status(200, b'{"status": "ok"}'), "PrometheusAnswerInvalid", "base URL"),
    "nested without end": (status(200, b"[" * 100_000), "PrometheusAnswerInvalid", "not the JSON"),
    "a list": (status(200, b"[]"), "PrometheusAnswerInvalid", "base URL"),
    "cut": (cut, "PrometheusAnswerInvalid", "cut off"),
    "cut between chunks": (cut_chunks, "PrometheusAnswerInvalid", "cut off"),
    "huge": (huge, "PrometheusAnswerTooLarge", "more than 4 MiB"),
    "clock behind": (changed(lambda at_s, text: [at_s - 120, text]), "PrometheusClockSkewed", "behind"),
    "clock ahead": (changed(lambda at_s, text: [at_s + 120, text]), "PrometheusClockSkewed", "ahead of"),
    "string": (changed(lambda at_s, text: [at_s, "many"]), "SignalInvalid", "'many', which is no number"),
}  # fmt: skip


@pytest.mark.parametrize("name", WIRE)
async def test_on_the_wire(served, make_wire, name):
    """What the server does wrong has a reason of its own, and is over when it is over."""
    fault, reason, words = WIRE[name]
    wire = make_wire()
    # Only who is waited for in vain is waited for briefly.
    timeout_s = 0.5 if reason == "PrometheusTimeout" else 10
    served.server = server = Prometheus(PrometheusFiles(url=wire.url, timeout_s=timeout_s))
    subject = served.subject(LOAD, ready_replicas=2)
    try:
        await served.until(subject, healthy)
        if fault is None:
            wire.stop()
        else:
            wire.break_(fault(wire))
        # More than there are threads: if one of them stayed behind, too few would be left for what follows.
        started_s = time.monotonic()
        looks = await asyncio.gather(*(observe(server, subject) for _ in range(20)))
        assert time.monotonic() - started_s < 5
        for (found,) in looks:
            assert found.reading.value is None
            assert found.reading.fault is ScalingReason(reason)
            assert words in found.reading.message
            assert wire.url in found.reading.message
        holds((looks[0][0].reading,))
        wire.mend()
        await served.until(subject, healthy)
    finally:
        server.close()


async def test_throttled_for_a_while(served, make_wire):
    """Who is asked to wait does, and asks again afterwards."""
    wire = make_wire()
    served.server = server = Prometheus(PrometheusFiles(url=wire.url))
    wire.break_(status(429, Retry_After="1")(wire))
    subject = served.subject(LOAD, ready_replicas=2)
    started_s = time.monotonic()
    for _ in range(5):
        (found,) = await observe(server, subject)
        assert found.reading.fault is ScalingReason.PROMETHEUS_THROTTLED
    assert wire.asked == 1
    wire.mend()
    await served.until(subject, healthy)
    assert time.monotonic() - started_s >= 1
    server.close()


async def test_one_that_hangs(served, make_wire):
    """Of many questions a few find out whether it answers again; the others fail at once, and do not pile up."""
    wire = make_wire()
    served.server = server = Prometheus(PrometheusFiles(url=wire.url, timeout_s=0.5))
    subject = served.subject(LOAD, ready_replicas=2)
    wire.break_(slow(wire))
    await asyncio.gather(*(observe(server, subject) for _ in range(40)))
    before = wire.asked
    looks = await asyncio.gather(*(observe(server, subject) for _ in range(40)))
    assert {found.reading.fault for (found,) in looks} == {ScalingReason.PROMETHEUS_TIMEOUT}
    assert 1 <= wire.asked - before <= 8
    wire.mend()
    await served.until(subject, healthy)
    server.close()


@pytest.mark.parametrize("wrong", ["authority", "host"])
async def test_a_bad_certificate(served, make_wire, tmp_path, wrong):
    """A certificate of somebody else, or for another host, is not trusted; a good one is again."""
    good, other = Authority("good"), Authority("other")
    (tmp_path / "ca.crt").write_bytes(good.certificate)
    for name, authority, host in (
        ("good", good, "127.0.0.1"), ("bad", other if wrong == "authority" else good, "127.0.0.1" if wrong == "authority" else "x"),
    ):  # fmt: skip
        pair = authority.server("prometheus", [host])
        (tmp_path / name).write_bytes(pair.certificate + pair.key)
    wire = make_wire(tmp_path / "good")
    served.server = server = Prometheus(PrometheusFiles(url=wire.url, ca_file=tmp_path / "ca.crt"))
    subject = served.subject(LOAD, ready_replicas=2)
    await served.until(subject, healthy)
    wire.show(tmp_path / "bad")
    (found,) = await observe(server, subject)
    assert found.reading.fault is ScalingReason.PROMETHEUS_CERTIFICATE_INVALID
    holds((found.reading,))
    wire.show(tmp_path / "good")
    await served.until(subject, healthy)
    server.close()


async def test_an_expired_token(served, make_wire, tmp_path):
    """A token that is refused is read again soon, so that a renewed one is used."""
    wire, valid = make_wire(), "new"

    def guarded(handler, form):
        if handler.headers["Authorization"] == f"Bearer {valid}":
            respond(handler, *wire.forward(handler.path, form))
        else:
            respond(handler, b"", 401)

    wire.break_(guarded)
    token = tmp_path / "token"
    token.write_text("old\n")
    served.server = server = Prometheus(PrometheusFiles(url=wire.url, bearer_token_file=token))
    subject = served.subject(LOAD, ready_replicas=2)
    (found,) = await observe(server, subject)
    assert found.reading.fault is ScalingReason.PROMETHEUS_UNAUTHORIZED
    holds((found.reading,))
    token.write_text("new\n")
    await served.until(subject, healthy)
    server.close()


# Faults of the data. Each gets the pool and what its pods expose, and returns how to mend it.


def no_pod(pool, serving):
    kept = {pod: pool.pages.texts.pop(pool.path(pod)) for pod in (0, 1)}
    return lambda: pool.pages.texts.update({pool.path(pod): text for pod, text in kept.items()})


def half_the_pods(pool, serving):
    kept = pool.pages.texts.pop(pool.path(1))
    return lambda: pool.pages.texts.update({pool.path(1): kept})


def no_exposition(pool, serving):
    kept = {pod: pool.pages.texts[pool.path(pod)] for pod in (0, 1)}
    for pod in (0, 1):
        pool.pages.texts[pool.path(pod)] = lambda: b"vllm:num_requests_running many\n"
    return lambda: pool.pages.texts.update({pool.path(pod): text for pod, text in kept.items()})


def one_pod_is(value):
    def fault(pool, serving):
        serving.set(1, value)
        return lambda: serving.set(1, RUNNING / 2)

    return fault


DATA: dict[str, tuple[Callable, str, str]] = {
    "empty": (no_pod, "SignalMissing", "none of 2 ready workers"),
    "half the pods missing": (half_the_pods, "SignalIncomplete", "1 of 2 workers"),
    "text in the exposition": (no_exposition, "SignalMissing", "none of 2 ready workers"),
    "NaN": (one_pod_is(math.nan), "SignalInvalid", "the value is nan"),
    "infinite": (one_pod_is(math.inf), "SignalInvalid", "the value is"),
    "negative": (one_pod_is(-3), "SignalInvalid", "cannot be negative"),
    "wrong unit scale": (one_pod_is(5e6), "SignalImplausible", "requests that a worker runs"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
async def test_in_the_data(pool, name):
    """What is scraped wrong has a reason of its own, and is over when it is over."""
    fault, reason, words = DATA[name]
    serving = serve(pool)
    subject = pool.subject(LOAD, ready_replicas=2, stale_after_s=1.5)
    await pool.until(subject, healthy)
    mend = fault(pool, serving)
    (found,) = await pool.until(subject, lambda reading: reading.fault is ScalingReason(reason))
    assert found.reading.value is None
    assert words in found.reading.message
    holds((found.reading,))
    mend()
    await pool.until(subject, healthy)


async def test_stale_samples(pool):
    """Samples with times of their own, as of a remote write, that stand still."""
    at_s = None
    for pod in (0, 1):
        pool.pages.texts[pool.path(pod)] = lambda: (
            b"vllm:num_requests_running 5 %d\n" % (1000 * (at_s if at_s is not None else time.time()))
        )
    subject = pool.subject(LOAD, ready_replicas=2, stale_after_s=1.5)
    await pool.until(subject, healthy)
    at_s = time.time()
    (found,) = await pool.until(subject, lambda reading: reading.fault is ScalingReason.SIGNAL_STALE)
    assert found.reading.value is None
    assert "s old" in found.reading.message
    holds((found.reading,))
    at_s = None
    await pool.until(subject, healthy)


async def test_duplicate_series(twice):
    """A pod that two jobs scrape would count twice; it counts not at all until one of them stops."""
    serve(twice)
    subject = twice.subject(LOAD, ready_replicas=2)
    await twice.until(subject, healthy)
    twice.pages.texts[twice.path(0, again=True)] = twice.pages.texts[twice.path(0)]
    (found,) = await twice.until(subject, lambda reading: reading.fault is ScalingReason.SIGNAL_INVALID)
    assert "more than once" in found.reading.message
    holds((found.reading,))
    del twice.pages.texts[twice.path(0, again=True)]
    await twice.until(subject, healthy)


async def test_a_counter_reset(pool):
    """A worker that starts anew counts from nought again; the rate neither jumps nor falls below nought."""
    counter = Counter("vllm:generation_tokens", "x", registry=pool.expose())
    counter.inc(1e6)
    subject = pool.subject(Question("t", SignalName.GENERATION_TOKENS, target=1.0, window_s=60))
    await pool.until(subject, lambda reading: reading.value == 0)
    counter.inc(600)
    (before,) = await pool.until(subject, lambda reading: bool(reading.value))
    Counter("vllm:generation_tokens", "x", registry=pool.expose()).inc(30)
    resets = f"resets(vllm:generation_tokens_total{pool.workers.selector}[60s])"
    async with asyncio.timeout(10):
        while (await pool.server.ask(resets)).value != 1:  # noqa: ASYNC110  Prometheus scrapes at its own pace
            await asyncio.sleep(0.05)
    (after,) = await observe(pool.server, subject)
    assert after.reading.value is not None
    assert 0 < after.reading.value < 1.5 * before.reading.value


UNITS = {
    "KVCacheUse": ("vllm:kv_cache_usage_perc", 45.0),
    "GenerationTokens": ("vllm:generation_tokens", 1e9),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNITS)
async def test_a_wrong_unit_scale(pool, kind):
    """Percent for a fraction, thousands for ones: beyond what any worker can do."""
    name, value = UNITS[kind]
    registry: CollectorRegistry = pool.expose()
    metric = Gauge(name, "x", registry=registry) if kind == "KVCacheUse" else Counter(name, "x", registry=registry)
    subject = pool.subject(Question(kind, SignalName(kind), target=1.0, window_s=60))
    await pool.until(subject, lambda reading: reading.value == 0)
    (metric.set if kind == "KVCacheUse" else metric.inc)(value)
    (found,) = await pool.until(subject, lambda reading: reading.fault is ScalingReason.SIGNAL_IMPLAUSIBLE)
    assert "is its unit another" in found.reading.message
    holds((found.reading,))


OWN = {
    "two series": ("vllm:num_requests_running%s", "SignalInvalid", "2 series"),
    "a text": ('"many"', "SignalInvalid", "no instant vector"),
    "a scalar": ("1 + 1", "SignalInvalid", "vector()"),
    "a range": ("vllm:num_requests_running%s[10s]", "SignalInvalid", "aggregation over the range"),
    "no PromQL": ("sum(", "SignalInvalid", "the query is refused"),
    "nothing": ("sum(nobody%s)", "SignalMissing", "no sample"),
    "negative": ("-sum(vllm:num_requests_running%s)", "SignalInvalid", "cannot be negative"),
    "no number": ("0 / 0 * sum(vllm:num_requests_running%s)", "SignalInvalid", "nan"),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
async def test_a_query_of_ones_own(served, name):
    """A query that is wrong takes nothing with it, and has the server's words."""
    query, reason, words = OWN[name]
    own = Question(
        "Query", SignalName.QUERY, target=1.0, window_s=60, query=query.replace("%s", served.workers.selector)
    )
    good = Question(
        "good", SignalName.QUERY, target=1.0, window_s=60, target_type=TargetType.AVERAGE_VALUE,
        query=f"sum(vllm:num_requests_running{served.workers.selector}) # all",
    )  # fmt: skip
    subject = served.subject(own, LOAD, good, ready_replicas=2)
    wrong, built_in, right = await served.until(subject, lambda _, load, query: healthy(load) and healthy(query))
    assert wrong.reading.value is None
    assert wrong.reading.fault is ScalingReason(reason)
    assert words in wrong.reading.message
    assert right.query == good.query
    assert (right.reading.target_type, right.reading.work) == (TargetType.AVERAGE_VALUE, True)
    assert built_in.reading.fault is None


async def test_a_query_of_ones_own_that_is_old(pool):
    """A query whose samples still have their times shows its age."""
    pool.pages.texts[pool.path(0)] = lambda: b"recorded 4 %d\n" % int((time.time() - 20) * 1000)
    own = Question("Query", SignalName.QUERY, target=1.0, window_s=60, query=f"recorded{pool.workers.selector}")
    await pool.until(pool.subject(own), lambda reading: reading.value == 4 and 15 < reading.age_s < 25)
    (found,) = await observe(pool.server, pool.subject(own, stale_after_s=10))
    assert found.reading.fault is ScalingReason.SIGNAL_STALE


async def test_a_worker_that_has_just_become_ready(pool):
    """It need not report yet; those that serve for a while have to."""
    gauge = Gauge("vllm:num_requests_running", "x", registry=pool.expose())
    gauge.set(RUNNING)
    both = pool.subject(LOAD, ready_replicas=2)
    await pool.until(both, lambda reading: reading.fault is ScalingReason.SIGNAL_INCOMPLETE)
    await pool.until(pool.subject(LOAD, ready_replicas=2, expected_replicas=1), healthy)


async def test_without_workers(steady):
    """A pool without a ready worker is asked nothing about."""
    (found,) = await observe(steady.server, steady.subject(LOAD, ready_replicas=0))
    assert found.reading.fault is ScalingReason.SIGNAL_MISSING
    assert "no worker is ready" in found.reading.message
