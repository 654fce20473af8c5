"""gRPC `Decide` answers what the HTTP data path would do."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from prfaas_protocol import decision_pb2 as pb
from prfaas_protocol import decision_pb2_grpc as rpc

pytestmark = pytest.mark.slow


@pytest.fixture
def router(start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]) -> Any:
    workers = [start_worker() for _ in range(3)]
    running = start_router(snapshot([workers[0]], [workers[1]], [workers[2]]))
    running.workers = workers
    return running


@pytest.fixture
def channel(router: Any) -> Any:
    with grpc.insecure_channel(f"{router.address}:9090") as opened:
        yield opened


def request(tokens: int, **changes: Any) -> pb.DecideRequest:
    return pb.DecideRequest(model="prfaas-1t", token_ids=pb.TokenIds(ids=range(tokens)), **changes)


def test_it_decides_as_the_data_path_does(router: Any, channel: grpc.Channel) -> None:
    stub = rpc.RouterStub(channel)
    short, long = stub.Decide(request(1000)), stub.Decide(request(1001))
    assert (short.destination, short.reason) == (pb.DecideResponse.LOCAL_PREFILL, "uncached_within_threshold")
    assert (long.destination, long.reason) == (pb.DecideResponse.REMOTE_PREFILL, "uncached_above_threshold")
    assert long.prefill.address == f"{router.workers[2].address}:8000"
    assert long.prefill.cluster == "west"
    assert long.decode.address == f"{router.workers[0].address}:8000"
    assert (long.prompt_tokens, long.prompt_tokens_estimated) == (1001, False)
    assert (long.threshold_tokens, long.configuration_version) == (1000, 7)
    assert stub.Decide(request(5000, echo=True)).reason == "echo"
    assert stub.Decide(pb.DecideRequest(model="prfaas-1t", text="x" * 400)).prompt_tokens == 100


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (pb.DecideRequest(model="other", text="x"), grpc.StatusCode.NOT_FOUND),
        (pb.DecideRequest(model="prfaas-1t"), grpc.StatusCode.INVALID_ARGUMENT),
        (request(10, max_output_tokens=131_072), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_bad_requests_have_their_code(channel: grpc.Channel, bad: pb.DecideRequest, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.RouterStub(channel).Decide(bad)
    assert caught.value.code() is code


def test_it_reports_its_health(channel: grpc.Channel) -> None:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
