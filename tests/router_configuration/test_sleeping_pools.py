"""A router process in front of pools that are scaled to zero: requests wait, are answered, and wake the pools."""

from __future__ import annotations

import concurrent.futures
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest

from prfaas_protocol import decision_pb2
from prfaas_protocol import decision_pb2_grpc as decision_rpc

pytestmark = pytest.mark.slow

SHORT, LONG = list(range(500)), list(range(3000))
LIMITS = {"max_waiting_requests": 8, "max_wait_s": 60}


def complete(router: Any, prompt: object = SHORT, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{router.url}/v1/completions",
        json={"model": "prfaas-1t", "prompt": prompt, "max_tokens": 4} | body,
        timeout=60,
        trust_env=False,
    )


def ready(router: Any) -> int:
    return httpx.get(f"{router.url}/ready", trust_env=False).status_code


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture
def serve(snapshot: Callable[..., dict[str, Any]], played_operator: Any) -> Callable[..., None]:
    """Publish a route whose pools may all be scaled to zero."""

    def publish(
        decode: list[Any], local: list[Any] | None = None, remote: list[Any] | None = None, **limits: float
    ) -> None:
        played_operator.publish(snapshot(decode, local, remote, limits=LIMITS | limits, wakes=True))

    return publish


@pytest.fixture
def clients() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        yield pool


def test_requests_wait_for_the_first_worker_and_are_answered(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], clients: Any
) -> None:
    router, worker = follow(), start_worker()
    assert ready(router) == 503
    serve([])
    assert ready(router) == 200, "or nobody would send it the request that wakes the pool"
    waiting = [clients.submit(complete, router, list(range(start, start + 500))) for start in range(5)]
    router.wait_metric("prfaas_router_waiting", 5)
    serve([worker])
    answers = [future.result() for future in waiting]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert all(float(answer.headers["x-prfaas-waited-s"]) > 0 for answer in answers)
    assert "x-prfaas-waited-s" not in complete(router).headers
    lines = router.wait_requests(6)
    assert [line["waited_s"] > 0 for line in lines] == [True] * 5 + [False]
    assert all(line["ttft_s"] >= line["waited_s"] for line in lines)
    assert router.metric("prfaas_router_waiting") == 0
    assert router.metric('prfaas_router_wait_seconds_count{outcome="served"') == 5
    assert router.metric('prfaas_router_wanted_total{pool="decode"') == 6


def test_no_more_wait_than_may_and_no_longer(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], clients: Any
) -> None:
    router, worker = follow(), start_worker()
    serve([], max_waiting_requests=2)
    waiting = [clients.submit(complete, router) for _ in range(2)]
    router.wait_metric("prfaas_router_waiting", 2)
    refused = complete(router)
    assert code(refused) == (503, "waiting_full")
    assert refused.headers["retry-after"] == "5"
    assert httpx.post(f"{router.url}/v1/completions", json={}, trust_env=False).status_code == 400
    serve([worker])
    assert [future.result().status_code for future in waiting] == [200, 200]
    serve([], max_wait_s=0.2)
    refused = complete(router)
    assert code(refused) == (503, "waiting_timeout")
    assert refused.headers["retry-after"] == "5"
    for nobody in ({"max_wait_s": 0}, {"max_waiting_requests": 0}):
        serve([], **nobody)
        assert code(complete(router)) == (503, "no_decode_worker")
    assert router.metric('prfaas_router_wait_refused_total{code="waiting_full"') == 1
    assert router.metric('prfaas_router_wait_refused_total{code="waiting_timeout"') == 1
    assert router.metric("prfaas_router_waiting") == 0


def test_a_client_that_hangs_up_leaves_the_line_at_once(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], clients: Any,
    played_operator: Any,
) -> None:  # fmt: skip
    router, worker = follow(), start_worker()
    serve([], max_waiting_requests=2)
    stays = clients.submit(complete, router)
    router.wait_metric("prfaas_router_waiting", 1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{router.url}/v1/completions", json={"model": "prfaas-1t", "prompt": LONG}, timeout=0.3, trust_env=False
        )
    router.wait_metric('prfaas_router_wait_seconds_count{outcome="gone"', 1)
    assert router.metric("prfaas_router_waiting") == 1
    played_operator.wait_demand(lambda pools: pools["decode"].waiting == 1, time.monotonic())
    serve([worker])
    assert stays.result().status_code == 200
    assert worker.metric("vllm:request_success_total") == 1


def test_workers_that_fail_are_no_reason_to_wait(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None]
) -> None:
    """A fault is told at once; requests wait from when the operator finds that nobody is ready."""
    router, worker = follow(), start_worker()
    serve([worker])
    worker.kill()
    answers = [complete(router) for _ in range(3)]
    assert [code(answer) for answer in answers] == [(503, "no_decode_worker")] * 3
    assert router.metric("prfaas_router_waiting") == 0


def test_a_router_that_ends_lets_those_who_wait_be_answered(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], clients: Any
) -> None:
    router, worker = follow("--drain-s=30", "--drain-delay-s=60"), start_worker()
    serve([])
    waiting = [clients.submit(complete, router) for _ in range(2)]
    router.wait_metric("prfaas_router_waiting", 2)
    router.process.send_signal(signal.SIGTERM)
    deadline_s = time.monotonic() + 60
    while ready(router) == 200:
        assert time.monotonic() < deadline_s
    assert code(complete(router)) == (503, "waiting_drained"), "another router takes it"
    serve([worker])
    assert [future.result().status_code for future in waiting] == [200, 200]


def test_a_router_that_ends_does_not_cut_off_who_waits_in_vain(
    follow: Callable[..., Any], serve: Callable[..., None], clients: Any
) -> None:
    router = follow("--drain-s=2")
    serve([])
    waiting = [clients.submit(complete, router) for _ in range(2)]
    router.wait_metric("prfaas_router_waiting", 2)
    router.process.send_signal(signal.SIGTERM)
    answers = [future.result() for future in waiting]
    assert [code(answer) for answer in answers] == [(503, "waiting_drained")] * 2
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert router.process.wait(timeout=10) == 0


def test_demand_is_reported_without_delay(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], clients: Any,
    played_operator: Any, record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """The pool starts to wake while its first request is hardly there; otherwise demand comes with each report."""
    router, worker = follow(), start_worker()
    serve([])
    played_operator.wait_demand(lambda pools: "decode" in pools and not pools["decode"].HasField("since_last_s"))
    delays_s = []
    for _ in range(5):
        serve([])
        sent_s = time.monotonic()
        waiting = clients.submit(complete, router)
        told_s = played_operator.wait_demand(lambda pools: pools["decode"].waiting == 1, sent_s)
        delays_s.append(told_s - sent_s)
        serve([worker])
        assert waiting.result().status_code == 200
    record_property("demand_reported_median_s", statistics.median(delays_s))
    print(f"request to report: median {statistics.median(delays_s) * 1000:.0f} ms, max {max(delays_s) * 1000:.0f} ms")
    assert statistics.median(delays_s) < 0.5
    served_s = time.monotonic()
    played_operator.wait_demand(lambda pools: pools["decode"].waiting == 0 and pools["decode"].wanted_rps > 0, served_s)


def test_sleeping_prefill_pools_are_wanted_and_waited_for_by_nobody(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], played_operator: Any
) -> None:
    router, decode = follow(), start_worker()
    serve([decode], [], [])
    began_s = time.monotonic()
    for prompt, pool, reason in ((SHORT, "local", "local_prefill_asleep"), (LONG, "remote", "remote_asleep")):
        answer = complete(router, prompt)
        assert answer.status_code == 200
        assert (answer.headers["x-prfaas-decision"], answer.headers["x-prfaas-reason"]) == ("decode", reason)
        played_operator.wait_demand(
            lambda pools, pool=pool: pools[pool].wanted_rps > 0 and pools[pool].waiting == 0,
            began_s,  # type: ignore[misc]
        )
        assert router.metric(f'prfaas_router_wanted_total{{pool="{pool}"') == 1
    remote = start_worker()
    serve([decode], [], [remote])
    answer = complete(router, list(range(10_000, 13_000)))
    assert answer.headers["x-prfaas-reason"] == "uncached_above_threshold"
    assert router.metric('prfaas_router_wanted_total{pool="remote"') == 2


def test_a_request_that_waits_for_decode_wakes_its_prefill_pool_meanwhile(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], clients: Any,
    played_operator: Any,
) -> None:  # fmt: skip
    router, decode, remote = follow(), start_worker(), start_worker()
    serve([], [], [])
    began_s = time.monotonic()
    waiting = clients.submit(complete, router, LONG)
    played_operator.wait_demand(lambda pools: pools["decode"].waiting == 1 and pools["remote"].wanted_rps > 0, began_s)
    serve([decode], [], [remote])
    answer = waiting.result()
    assert (answer.status_code, answer.headers["x-prfaas-decision"]) == (200, "remote_prefill")
    assert not router.metric('prfaas_router_wanted_total{pool="local"')


def test_gateways_wait_for_a_decision(
    follow: Callable[..., Any], start_worker: Callable[..., Any], serve: Callable[..., None], clients: Any
) -> None:
    router, worker = follow(), start_worker()
    serve([])
    request = decision_pb2.DecideRequest(model="prfaas-1t", token_ids=decision_pb2.TokenIds(ids=range(500)))
    with grpc.insecure_channel(f"{router.address}:9090") as channel:
        stub = decision_rpc.RouterStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as caught:
            stub.Decide(request, timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        router.wait_metric("prfaas_router_waiting", 0)
        waiting = clients.submit(stub.Decide, request, timeout=30)
        router.wait_metric("prfaas_router_waiting", 1)
        serve([worker])
        assert waiting.result().decode.name == worker.name


def test_a_restarted_router_lets_requests_wait_without_its_operator(
    follow: Callable[..., Any],
    serve: Callable[..., None],
    clients: Any,
    start_router: Callable[..., Any],
    tmp_path: Any,
) -> None:
    first = follow()
    serve([])
    first.kill()
    again = start_router(None, "--operator-address=127.0.0.1:1", f"--state-dir={tmp_path / 'state'}")
    assert ready(again) == 200
    waiting = clients.submit(complete, again)
    again.wait_metric("prfaas_router_waiting", 1)
    again.kill()
    with pytest.raises(httpx.TransportError):
        waiting.result()
