"""Which workers have nothing to do, read from a real Prometheus that scrapes what engines expose."""

import asyncio
import time

import pytest
from prometheus_client import Counter, Gauge

from prfaas_operator.objects import Ref
from prfaas_operator.scaling import idleness
from prfaas_operator.scaling.idleness import HISTORY_S, IdlenessMeter

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def gauges(registry, *names):
    return [Gauge(name, "x", ["model_name", "engine"], registry=registry).labels("m", "0") for name in names]


def vllm(registry):
    """Return vLLM's gauges of requests that run and wait, and of the KV cache, and its count of answers."""
    made = gauges(registry, "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    ended = Counter("vllm:request_success", "x", ["finished_reason"], registry=registry).labels("stop")
    return *made, ended


async def until(pool, check):
    """Return what is read of a pool's pods, by number, once it is as wanted."""
    meter = IdlenessMeter(lambda _, query: pool.server.select(query), on_change=lambda _: None, interval_s=1)
    found = {}
    try:
        async with asyncio.timeout(15):
            while True:
                reading = await meter.read(pool.workers)
                found = {int(name.rpartition("-")[2]): work for name, work in reading.work.items()}
                if check(found):
                    return found
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"still {found}") from None


async def test_a_worker_has_something_to_do_while_requests_run_or_wait_and_while_it_holds_kv(pool):
    running, waiting, cache, ended = vllm(pool.expose(0))
    vllm(pool.expose(1))
    running.set(2)
    waiting.set(1)
    cache.set(0.25)
    found = await until(pool, lambda pods: len(pods) == 2 and pods[0].load == 3.25)
    assert found[1].load == 0
    assert abs(time.time() - found[0].measured_s) < 5
    running.set(0)
    waiting.set(0)
    ended.inc(3)
    # The requests are done here, and their KV is still to be fetched.
    await until(pool, lambda pods: pods[0].load == 0.25)
    cache.set(0)
    emptied_s = time.time()
    found = await until(pool, lambda pods: pods[0].load == 0)
    assert found[0].measured_s >= emptied_s - 1, "measured after the moment from which on it is true"


async def test_work_that_is_shorter_than_a_step_counts_by_the_requests_that_ended(pool):
    *_, ended = vllm(pool.expose(0))
    vllm(pool.expose(1))
    await until(pool, lambda pods: len(pods) == 2)
    ended.inc()
    async with asyncio.timeout(15):
        while True:
            answer = await pool.server.select(idleness.idle_time(pool.workers, step_s=1))
            idle_s = {int(name[-1]): value for name, value in answer.by_label("pod").items()}
            if idle_s.get(0, HISTORY_S) < 30:
                break
            await asyncio.sleep(0.05)
    assert idle_s[1] > HISTORY_S


async def test_sglang_counts_what_others_have_still_to_fetch(pool):
    names = ("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:num_prefill_inflight_queue_reqs")
    _, _, inflight = gauges(pool.expose(0), *names)
    inflight.set(4)
    await until(pool, lambda pods: pods.get(0) is not None and pods[0].load == 4)
    inflight.set(0)
    found = await until(pool, lambda pods: pods[0].load == 0)
    assert set(found) == {0}, "nothing is said of a worker that nobody scrapes"


async def test_a_pool_that_is_watched_is_read_at_once_and_again_and_again(steady):
    """Whoever asked hears of every reading, until the pool is forgotten."""
    ref, heard = Ref("PrefillPool", "t", "p"), asyncio.Queue()
    meter = IdlenessMeter(lambda _, query: steady.server.select(query), on_change=heard.put_nowait, interval_s=0.2)
    task = asyncio.create_task(meter.run())
    try:
        async with asyncio.timeout(10):
            assert meter.watch(ref, steady.workers) is None
            assert [await heard.get() for _ in range(2)] == [ref, ref]
            assert meter.watch(ref, steady.workers) is not None
            meter.forget(ref)
            assert meter.watch(ref, steady.workers) is None
    finally:
        task.cancel()


async def test_what_cannot_be_read_is_not_known():
    """And the reason is there for people to see."""

    async def fail(*_):
        raise ConnectionResetError("reset")

    ref, heard = Ref("PrefillPool", "t", "p"), asyncio.Event()
    meter = IdlenessMeter(fail, on_change=lambda _: heard.set(), interval_s=60)
    task = asyncio.create_task(meter.run())
    try:
        meter.watch(ref, idleness.Workers("east", "t", "p", "prefill"))
        async with asyncio.timeout(10):
            await heard.wait()
        reading = meter.watch(ref, idleness.Workers("east", "t", "p", "prefill"))
        assert reading is not None
        assert (reading.work, reading.fault) == ({}, "ConnectionResetError: reset")
    finally:
        task.cancel()
