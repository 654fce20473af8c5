"""The built-in signals, read from a real Prometheus that scrapes what engines expose."""

import asyncio

import pytest
from prometheus_client import Counter, Gauge, Histogram

from prfaas_core.autoscaling import ScalingReason, SignalName
from prfaas_core.profiles import Curve
from prfaas_operator.api.model_profile import EngineName
from prfaas_operator.scaling.observation import Question
from prfaas_operator.scaling.queries import Workers, built_in, flows

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

WINDOW_S = 2


class Vllm:
    """vLLM's metrics of one pod; all are there from the start, as in vLLM."""

    engine = EngineName.VLLM

    def __init__(self, registry):
        def made(kind, name, labels=(), **named):
            return kind(name, "x", ["model_name", "engine", *labels], registry=registry, **named)

        def alone(kind, name, **named):
            return made(kind, name, **named).labels("m", "0")

        self.running = alone(Gauge, "vllm:num_requests_running")
        self.waiting = alone(Gauge, "vllm:num_requests_waiting")
        by_reason = made(Gauge, "vllm:num_requests_waiting_by_reason", ["reason"])
        self.for_room, self.for_kv = (by_reason.labels("m", "0", reason) for reason in ("capacity", "deferred"))
        self.cache = alone(Gauge, "vllm:kv_cache_usage_perc")
        self.queue_s = alone(Histogram, "vllm:request_queue_time_seconds")
        self.computed = alone(Histogram, "vllm:request_prefill_kv_computed_tokens")
        self.ttft_s = alone(Histogram, "vllm:time_to_first_token_seconds", buckets=(0.5, 1, 2, 4, 1000))
        self.itl_s = alone(Histogram, "vllm:inter_token_latency_seconds", buckets=(0.01, 0.02, 0.04, 1000))
        self.generated = alone(Counter, "vllm:generation_tokens")
        self.prompts = alone(Counter, "vllm:prompt_tokens")
        self.received = alone(Histogram, "vllm:nixl_bytes_transferred")
        self.ended = made(Counter, "vllm:request_success", ["finished_reason"]).labels("m", "0", "stop")

    def prefilled(self, requests, tokens):
        for _ in range(requests):
            self.computed.observe(tokens / requests)

    def generate(self, tokens):
        self.generated.inc(tokens)


class Sglang:
    """SGLang's metrics of one pod, of two tensor-parallel ranks and two of data parallelism; most begin when used."""

    engine = EngineName.SGLANG

    def __init__(self, registry):
        ranks = ["model_name", "engine_type", "tp_rank", "dp_rank"]

        def scheduler(kind, name, labels=(), **named):
            return kind(name, "x", [*ranks, *labels], registry=registry, **named)

        def front(kind, name, labels=(), **named):
            return kind(name, "x", ["model_name", *labels], registry=registry, **named)

        self._gauges = {
            name: scheduler(Gauge, f"sglang:{name}")
            for name in (
                "num_running_reqs", "num_queue_reqs", "token_usage", "num_decode_prealloc_queue_reqs",
                "num_decode_transfer_queue_reqs", "num_prefill_bootstrap_queue_reqs",
            )
        }  # fmt: skip
        for name in self._gauges:
            self.set(name, 0)
        self._realtime = scheduler(Counter, "sglang:realtime_tokens", ["mode"])
        self._queue_s = scheduler(Histogram, "sglang:queue_time_seconds")
        self._requests = front(Counter, "sglang:num_requests")
        self._ttft_s = front(
            Histogram, "sglang:time_to_first_token_seconds", ["is_streaming"], buckets=(0.5, 1, 2, 4, 1000)
        )
        self._itl_s = front(Histogram, "sglang:inter_token_latency_seconds", buckets=(0.01, 0.02, 0.04, 1000))

    def set(self, name, value):
        """Set the whole of a gauge: both ranks of data parallelism have half, and each rank of tensor parallelism sees it."""
        for dp in "01":
            for tp in "01":
                self._gauges[name].labels("m", "unified", tp, dp).set(value if name == "token_usage" else value / 2)

    def waited(self, seconds):
        for tp in "01":
            self._queue_s.labels("m", "unified", tp, "0").observe(seconds)

    def prefilled(self, requests, tokens):
        for tp in "01":
            self._realtime.labels("m", "unified", tp, "1", "prefill_compute").inc(tokens)
            self._realtime.labels("m", "unified", tp, "1", "prefill_cache").inc(5 * tokens)
        self._requests.labels("m").inc(requests)

    def generate(self, tokens):
        for tp in "01":
            self._realtime.labels("m", "unified", tp, "0", "decode").inc(tokens)

    def first_token(self, seconds):
        self._ttft_s.labels("m", "true").observe(seconds)

    def token(self, seconds):
        self._itl_s.labels("m").observe(seconds)


def question(kind, **changes):
    return Question(**{"name": kind, "kind": SignalName(kind), "target": 1.0, "window_s": WINDOW_S, **changes})


def near(value, rel=0.02):
    return lambda *readings: all(item.value == pytest.approx(value, rel=rel) for item in readings)


def has_value(*readings):
    return all(item.value is not None for item in readings)


async def test_gauges_of_vllm(pool):
    """Requests that wait for KV are no load of decode; KV use is a mean over workers; other names of older releases."""
    first, second = Vllm(pool.expose(0)), Vllm(pool.expose(1))
    for pod, requests in ((first, 10), (second, 20)):
        pod.running.set(requests)
        pod.for_room.set(2)
        pod.for_kv.set(100)
        pod.waiting.set(102)
    first.cache.set(0.25)
    second.cache.set(0.75)
    subject = pool.subject(question("DecodeRequests"), question("KVCacheUse"), ready_replicas=2)
    requests, cache = await pool.until(subject, lambda a, b: near(34)(a) and near(0.5)(b))
    assert requests.reading.work
    assert not cache.reading.work
    assert 0 <= requests.reading.age_s < 5
    old = pool.expose(1)
    Gauge("vllm:num_requests_running", "x", registry=old).set(6)
    Gauge("vllm:gpu_cache_usage_perc", "x", registry=old).set(0.35)
    await pool.until(subject, lambda a, b: near(18)(a) and near(0.3)(b))
    for found in (requests, cache):
        assert (await pool.server.ask(found.query)).value is not None, found.query


async def test_gauges_of_sglang(pool):
    """Ranks of tensor parallelism are not counted twice, and what waits for a transfer not at all."""
    pod = Sglang(pool.expose())
    for name, value in (
        ("num_running_reqs", 10), ("num_queue_reqs", 2), ("num_decode_prealloc_queue_reqs", 4),
        ("num_decode_transfer_queue_reqs", 50), ("num_prefill_bootstrap_queue_reqs", 50), ("token_usage", 0.4),
    ):  # fmt: skip
        pod.set(name, value)
    subject = pool.subject(question("DecodeRequests"), question("KVCacheUse"), engine=EngineName.SGLANG)
    found = await pool.until(subject, lambda a, b: near(16)(a) and near(0.4)(b))
    for item in found:
        assert (await pool.server.ask(item.query)).value == pytest.approx(item.reading.value, rel=0.01)


async def number(server, query, check=lambda value: value is not None):
    """Return what a query says once it is as wanted."""
    sample = None
    try:
        async with asyncio.timeout(10):
            while True:
                sample = await server.ask(query)
                if check(sample.value):
                    return sample.value
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{query}: still {sample}") from None


async def test_a_backlog_is_counted_once(pool):
    """What waited a window ago came then, so it is no arrival of now; but a tenth of it is worked off in each window."""
    pod = Vllm(pool.expose())
    pod.waiting.set(40)
    ask = pool.subject(question("PrefillLoad"))
    await pool.until(ask, lambda reading: reading.value is None)
    selector = pool.workers.selector
    await number(
        pool.server, f"min_over_time(vllm:num_requests_waiting{selector}[{WINDOW_S}s] offset {WINDOW_S}s)", near_to(40)
    )
    for _ in range(2):
        pod.prefilled(1, 8000)
        (found,) = await pool.until(ask, lambda reading: reading.value is not None and reading.value < 40 / WINDOW_S)
        assert found.reading.value >= 0.999 * 40 / WINDOW_S / 10


async def test_decode_requests_are_those_of_the_long_run(pool):
    """Requests that come times the seconds that each is held, at most those in hand and at least a tenth of them."""
    registry = pool.expose()
    decode_s = Histogram("vllm:request_decode_time_seconds", "x", registry=registry)
    pod = Vllm(registry)
    pod.running.set(20)
    ask = pool.subject(question("DecodeRequests", window_s=60))
    (found,) = await pool.until(ask, near(20))
    ended = f"sum(rate(vllm:request_decode_time_seconds_count{pool.workers.selector}[60s]))"
    for seconds, check in ((0.001, near_to(2)), (1.999, None), (1000.0, near_to(20))):
        for _ in range(300):
            decode_s.observe(seconds)
        if check is not None:
            await number(pool.server, found.query, check)
        else:
            # The mean is 1 s now, so that the number is that of the requests that come in a second.
            await number(pool.server, f"({found.query}) - {ended}", near_to(20 / 60))


async def test_prefill_load_of_vllm(pool):
    """Work is the requests that come times the profile's time at their mean length: those that ended, and more in hand."""
    pod = Vllm(pool.expose())
    ask = pool.subject(question("PrefillLoad", window_s=60))
    (idle,) = await pool.until(ask, has_value)
    assert idle.reading.value == 0
    assert idle.reading.work
    pod.running.set(1)
    (unknown,) = await pool.until(ask, lambda reading: reading.value is None)
    assert unknown.reading.fault is ScalingReason.SIGNAL_MISSING
    # 8,000 tokens take 1 s, so that the work is the requests a second.
    pod.prefilled(30, 30 * 8000)
    (busy,) = await pool.until(ask, has_value)
    requests = f"sum(rate(vllm:request_prefill_kv_computed_tokens_count{pool.workers.selector}[60s]))"
    assert await number(pool.server, f"({busy.query}) - {requests}") == pytest.approx(1 / 60)
    pod.waiting.set(12)
    await number(pool.server, f"({busy.query}) - {requests}", near_to(13 / 60))
    assert (await number(pool.server, busy.query)) == pytest.approx(
        (await pool.until(ask, has_value))[0].reading.value, rel=0.1
    )


async def test_prefill_load_of_sglang(pool):
    """The same by tokens that the scheduler computed, which each rank counts."""
    pod = Sglang(pool.expose())
    selector = pool.workers.selector
    ask = pool.subject(question("PrefillLoad", window_s=60), engine=EngineName.SGLANG)
    (idle,) = await pool.until(ask, has_value)
    assert idle.reading.value == 0
    pod.set("num_running_reqs", 1)
    await pool.until(ask, lambda reading: reading.fault is ScalingReason.SIGNAL_MISSING)
    pod.prefilled(1, 8000)
    await number(pool.server, f"count_over_time(sglang:num_requests_total{selector}[60s]) > 1")
    pod.prefilled(30, 30 * 8000)
    (busy,) = await pool.until(ask, lambda reading: bool(reading.value))
    requests = f"sum(rate(sglang:num_requests_total{selector}[60s]))"
    assert await number(pool.server, f"({busy.query}) - {requests}") == pytest.approx(1 / 60)
    pod.set("num_queue_reqs", 12)
    await number(pool.server, f"({busy.query}) - {requests}", near_to(13 / 60))


async def test_prefill_load_of_older_sglang(pool):
    """Releases without a counter of computed tokens: prompts less what came from caches, by source or as a total."""
    older = pool.expose()
    prompts = Counter("sglang:prompt_tokens", "x", registry=older)
    cached = Counter("sglang:cached_tokens", "x", ["cache_source"], registry=older)
    requests = Counter("sglang:num_requests", "x", registry=older)
    for name in ("sglang:num_running_reqs", "sglang:num_queue_reqs"):
        Gauge(name, "x", registry=older).set(0)
    sources = [cached.labels(source) for source in ("device", "host", "total")]
    ask = pool.subject(question("PrefillLoad", window_s=60), engine=EngineName.SGLANG)
    await pool.until(ask, has_value)
    prompts.inc(10 * 20000)
    requests.inc(10)
    for source in sources:
        source.inc(10 * 4000)
    (found,) = await pool.until(ask, lambda reading: bool(reading.value))
    per_second = f"sum(rate(sglang:num_requests_total{pool.workers.selector}[60s]))"
    assert await number(pool.server, f"({found.query}) / {per_second}") == pytest.approx(1)


def near_to(value):
    return lambda found: found is not None and found == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize("engine", [Vllm, Sglang])
async def test_latencies(pool, engine):
    """Means and quantiles; nought when nothing is in hand, unknown while something is and nothing was counted."""
    pod = engine(pool.expose())
    kinds = ("PrefillQueueWait", "TimeToFirstToken", "InterTokenLatency")
    subject = pool.subject(*(question(kind, window_s=60, quantile=0.5) for kind in kinds), engine=engine.engine)
    idle = await pool.until(subject, has_value)
    assert [item.reading.value for item in idle] == [0, 0, 0]
    running = (lambda n: pod.running.set(n)) if engine is Vllm else (lambda n: pod.set("num_running_reqs", n))
    running(3)
    unknown = await pool.until(subject, lambda *readings: all(item.value is None for item in readings))
    assert {item.reading.fault for item in unknown} == {ScalingReason.SIGNAL_MISSING}
    if engine is Sglang:
        # A series that begins with its first sample has no rate before the second.
        pod.waited(1.0)
        pod.first_token(1.5)
        pod.token(0.015)
        for series in ("queue_time", "time_to_first_token", "inter_token_latency"):
            sampled = f"count_over_time(sglang:{series}_seconds_count{pool.workers.selector}[60s])"
            await number(pool.server, f"min({sampled}) > 1")
    for waited_s in (0.5, 1.5):
        if engine is Vllm:
            pod.queue_s.observe(waited_s)
            pod.ttft_s.observe(1.5)
            pod.itl_s.observe(0.015)
        else:
            pod.waited(waited_s)
            pod.first_token(1.5)
            pod.token(0.015)
    found = await pool.until(subject, lambda wait, ttft, itl: has_value(wait, ttft, itl) and near(1.0)(wait))
    assert found[1].reading.value == pytest.approx(1.5)
    assert found[2].reading.value == pytest.approx(0.015)
    for item in found:
        assert (await pool.server.ask(item.query)).value == pytest.approx(item.reading.value)


@pytest.mark.parametrize("engine", [Vllm, Sglang])
async def test_generated_tokens_and_the_panic_window(pool, engine):
    """Tokens a second over all workers; the short window hears of a burst first."""
    pod = engine(pool.expose())
    pod.generate(1)
    subject = pool.subject(question("GenerationTokens", window_s=60), engine=engine.engine, panic_window_s=2)
    (idle,) = await pool.until(subject, lambda reading: reading.value == 0 and reading.panic_value == 0)
    pod.generate(1500)
    (found,) = await pool.until(subject, lambda reading: bool(reading.panic_value))
    assert found.reading.panic_value > found.reading.value
    assert idle.query == found.query


async def test_link_meters(make_pool):
    """Bytes that decode receives over all its pods, and what prefill pools hand over."""
    pools = [make_pool() for _ in range(2)]
    decode = next(pool for pool in pools if pool.workers.role == "decode")
    prefill = next(pool for pool in pools if pool.workers.role == "prefill")
    receivers = [Vllm(decode.expose(pod)) for pod in (0, 1)]
    sender = Vllm(prefill.expose())
    server = decode.server

    received = flows.received_bytes([decode.workers])
    await number(server, received, lambda value: value == 0)
    handed = flows.handed_over_bytes([(prefill.workers, 1e6, 1e3)])
    await number(server, handed, lambda value: value == 0)
    await number(
        server, f"count(rate(vllm:prompt_tokens_total{prefill.workers.selector}[60s]))", lambda value: value == 1
    )
    for pod in receivers:
        pod.received.observe(600e6)
    assert await number(server, received, lambda value: bool(value)) > 0
    sender.ended.inc(3)
    sender.prompts.inc(3000)
    requests = f"sum(rate(vllm:request_success_total{prefill.workers.selector}[60s]))"
    assert await number(server, f"({handed}) / ({requests} > 0)", lambda value: value is not None) == pytest.approx(2e6)
    answers = flows.output_tokens(decode.workers)
    assert (await server.ask(answers)).value is None
    nobody = flows.received_bytes([Workers("east", "t", "nobody", "decode")])
    assert (await server.ask(nobody)).value is None


@pytest.mark.parametrize("tokens", [1, 1000, 4000, 8000, 20000, 32000, 100000])
async def test_a_curve_in_promql(server, tokens):
    """Prometheus finds the time that the profile says, between and beyond its anchors."""
    for curve in (
        Curve((1000, 8000, 32000), (0.2, 1.0, 6.0)), Curve((1000, 8000), (0.5, 0.5)), Curve((512, 1024), (0.1, 0.3)),
    ):  # fmt: skip
        query = built_in.seconds(curve, f"vector({tokens})")
        assert (await server.ask(query)).value == pytest.approx(curve(tokens))
