"""The router follows the operator's stream, refuses what it cannot serve, and survives without the operator."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio
import pytest
from google.protobuf import json_format

from prfaas_protocol import configuration_pb2 as pb
from prfaas_protocol import configuration_pb2_grpc as rpc
from prfaas_router.configuration import Configuration
from prfaas_router.last_known_good import DamagedError, LastKnownGood
from prfaas_router.metrics import Metrics
from prfaas_router.stream import ConfigurationStream, Identity

ROUTE = "ns/chat"
LINKS = pb.Links(links=[pb.LinkUse(name="west-to-east", moved_bits=8e6, moving_s=0.1, transfers=2)])
DEMAND = pb.Demand(pools=[pb.PoolDemand(name="decode", decode=True, waiting=2, wanted_rps=0.5, since_last_s=0.0)])
TRAFFIC = pb.Traffic(uncached_lengths=[pb.LengthBucket(index=3, count=2.0, tokens=180.0)])


class Operator(rpc.RouterConfigurationServicer):
    """A real gRPC server that sends what a test puts in and keeps what routers say."""

    def __init__(self) -> None:
        self.outgoing: asyncio.Queue[pb.Snapshot] = asyncio.Queue()
        self.incoming: asyncio.Queue[pb.RouterMessage] = asyncio.Queue()
        self.traffic: asyncio.Queue[pb.Traffic] = asyncio.Queue()
        self.links: asyncio.Queue[pb.Links] = asyncio.Queue()
        self.demand: asyncio.Queue[pb.Demand] = asyncio.Queue()
        self.metadata: list[dict[str, str]] = []

    async def Stream(  # noqa: N802 - the name of the method in the .proto
        self, requests: AsyncIterator[pb.RouterMessage], context: Any
    ) -> AsyncIterator[pb.Snapshot]:
        self.metadata.append(dict(context.invocation_metadata()))

        async def listen() -> None:
            async for message in requests:
                if message.WhichOneof("message") == "traffic":
                    await self.traffic.put(message.traffic)
                elif message.WhichOneof("message") == "links":
                    await self.links.put(message.links)
                elif message.WhichOneof("message") == "demand":
                    await self.demand.put(message.demand)
                else:
                    await self.incoming.put(message)

        listener = asyncio.create_task(listen())
        try:
            while True:
                yield await self.outgoing.get()
        finally:
            listener.cancel()


@pytest.fixture
async def operator() -> AsyncIterator[tuple[Operator, str]]:
    server, service = grpc.aio.server(), Operator()
    rpc.add_RouterConfigurationServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield service, f"127.0.0.1:{port}"
    await server.stop(grace=0)


@pytest.fixture
def message(snapshot: Callable[..., dict[str, object]]) -> Callable[..., pb.Snapshot]:
    def build(version: int, threshold_tokens: int = 1000, **changes: object) -> pb.Snapshot:
        fields = (
            snapshot([], None, None, policy={"threshold_tokens": threshold_tokens}) | {"version": version} | changes
        )
        return json_format.ParseDict(fields, pb.Snapshot())

    return build


class Follower:
    """A configuration stream that runs, and what it applied."""

    def __init__(self, address: str, folder: Path, token: Path | None = None) -> None:
        self.applied: asyncio.Queue[Configuration] = asyncio.Queue()
        identity = Identity(ROUTE, "east", "router-1", address, None, token)
        self.metrics = Metrics(ROUTE)
        self.stream = ConfigurationStream(
            identity, LastKnownGood(folder), self.applied.put_nowait, lambda: TRAFFIC, self.metrics, links=lambda: LINKS,
            demand=lambda: DEMAND,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        self.stream.restore()
        self.task = asyncio.create_task(self.stream.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def soon(waited: Any) -> Any:
    return await asyncio.wait_for(waited, 10)


async def test_snapshots_are_applied_and_acknowledged(
    operator: tuple[Operator, str], message: Callable[..., pb.Snapshot], tmp_path: Path
) -> None:
    service, address = operator
    token = tmp_path / "token"
    token.write_text("secret\n")
    async with Follower(address, tmp_path, token) as follower:
        hello = (await soon(service.incoming.get())).hello
        assert (hello.route_namespace, hello.route_name, hello.cluster, hello.router) == (
            "ns",
            "chat",
            "east",
            "router-1",
        )
        assert hello.version == 0
        assert service.metadata[0]["authorization"] == "Bearer secret"
        for version, threshold in ((3, 500), (8, 900)):
            await service.outgoing.put(message(version, threshold))
            assert (await soon(follower.applied.get())).threshold_tokens == threshold
            assert (await soon(service.incoming.get())).ack.version == version


async def test_what_was_seen_is_reported_at_once_and_again(operator: tuple[Operator, str], tmp_path: Path) -> None:
    service, address = operator
    async with Follower(address, tmp_path):
        for _ in range(2):
            assert await soon(service.demand.get()) == DEMAND
            assert await soon(service.traffic.get()) == TRAFFIC
            assert await soon(service.links.get()) == LINKS


async def test_news_are_reported_without_waiting_for_the_next_report(
    operator: tuple[Operator, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prfaas_router.stream.REPORT_S", 3600.0)
    service, address = operator
    async with Follower(address, tmp_path) as follower:
        for _ in range(3):
            await soon(service.demand.get())
            follower.stream.report_now()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"route_name": "other"}, "route: 'ns/other'"),
        ({"policy": {}}, "policy.mode"),
        ({"limits": {}}, "limits.max_body_bytes"),
        ({"model": {}}, "model.name"),
        (
            {"remote_prefill": [{"pool": {"name": "r", "kv_fingerprint": "other", "connector": "NIXL_PULL"}}]},
            "kv_fingerprint",
        ),
    ],
)
async def test_what_cannot_be_served_is_refused_and_the_old_one_kept(
    operator: tuple[Operator, str],
    message: Callable[..., pb.Snapshot],
    tmp_path: Path,
    changes: dict[str, object],
    named: str,
) -> None:
    service, address = operator
    async with Follower(address, tmp_path) as follower:
        await soon(service.incoming.get())
        await service.outgoing.put(message(4))
        await soon(follower.applied.get())
        await soon(service.incoming.get())
        await service.outgoing.put(message(5, **changes))
        nack = (await soon(service.incoming.get())).nack
        assert nack.version == 5
        assert named in nack.reason
        assert follower.applied.empty()
    kept = LastKnownGood(tmp_path).load()
    assert kept is not None
    assert kept.version == 4


async def test_an_older_version_is_refused(
    operator: tuple[Operator, str], message: Callable[..., pb.Snapshot], tmp_path: Path
) -> None:
    service, address = operator
    async with Follower(address, tmp_path):
        await soon(service.incoming.get())
        await service.outgoing.put(message(9))
        assert (await soon(service.incoming.get())).ack.version == 9
        await service.outgoing.put(message(8))
        assert (await soon(service.incoming.get())).nack.version == 8


async def test_a_restarted_router_serves_without_the_operator_and_comes_back(
    operator: tuple[Operator, str], message: Callable[..., pb.Snapshot], tmp_path: Path
) -> None:
    LastKnownGood(tmp_path).save(message(6, 777))
    service, address = operator
    async with Follower(address, tmp_path) as follower:
        assert follower.applied.get_nowait().threshold_tokens == 777
        assert (await soon(service.incoming.get())).hello.version == 6


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"prfaas-snapshot-1\n" + bytes(40)])
async def test_a_damaged_file_is_ignored(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "snapshot.bin").write_bytes(damage)
    with pytest.raises(DamagedError):
        LastKnownGood(tmp_path).load()
    follower = Follower("127.0.0.1:1", tmp_path)
    follower.stream.restore()
    assert follower.applied.empty()
