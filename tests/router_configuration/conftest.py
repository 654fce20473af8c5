"""A router process under an operator that a test plays."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from prfaas_protocol import configuration_pb2 as pb
from prfaas_protocol import configuration_pb2_grpc as rpc


class PlayedOperator(rpc.RouterConfigurationServicer):
    """A real gRPC server that sends every router the newest snapshot, and keeps what routers say of demand."""

    def __init__(self) -> None:
        self._versions = itertools.count(1)
        self._news = threading.Condition()
        self._snapshot: pb.Snapshot | None = None
        self._acknowledged = 0
        self._demand: list[tuple[float, dict[str, pb.PoolDemand]]] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        rpc.add_RouterConfigurationServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Stream(self, requests: Iterator[pb.RouterMessage], context: Any) -> Iterator[pb.Snapshot]:  # noqa: N802
        threading.Thread(target=self._listen, args=(requests,), daemon=True).start()
        sent = 0
        while context.is_active():
            snapshot = self._newer(sent)
            if snapshot is not None:
                sent = snapshot.version
                yield snapshot

    def _newer(self, version: int) -> pb.Snapshot | None:
        """Return the newest snapshot; None when there is none above a version for a moment."""
        with self._news:
            self._news.wait_for(lambda: self._snapshot is not None and self._snapshot.version > version, 0.2)
            return self._snapshot if self._snapshot is not None and self._snapshot.version > version else None

    def publish(self, fields: dict[str, object]) -> None:
        """Send a snapshot, and wait until a router serves by it."""
        snapshot = json_format.ParseDict(fields, pb.Snapshot())
        with self._news:
            snapshot.version = next(self._versions)
            self._snapshot = snapshot
            self._news.notify_all()
            assert self._news.wait_for(lambda: self._acknowledged == snapshot.version, 20), "no router acknowledges"

    def wait_demand(self, check: Callable[[dict[str, pb.PoolDemand]], bool], since_s: float = 0.0) -> float:
        """Return the time of the first report after `since_s`, by pool, of which a check is true."""

        def found() -> float | None:
            return next((at_s for at_s, report in self._demand if at_s >= since_s and check(report)), None)

        with self._news:
            assert self._news.wait_for(lambda: found() is not None, 20), self._demand[-1:]
            at_s = found()
        assert at_s is not None
        return at_s

    def stop(self) -> None:
        self._server.stop(grace=0).wait()

    def _listen(self, requests: Iterator[pb.RouterMessage]) -> None:
        try:
            for message in requests:
                with self._news:
                    if message.WhichOneof("message") == "demand":
                        report = {pool.name: pool for pool in message.demand.pools}
                        self._demand.append((time.monotonic(), report))
                    elif message.WhichOneof("message") == "ack":
                        self._acknowledged = message.ack.version
                    self._news.notify_all()
        except grpc.RpcError:
            pass


@pytest.fixture
def played_operator() -> Iterator[PlayedOperator]:
    operator = PlayedOperator()
    yield operator
    operator.stop()


@pytest.fixture
def follow(start_router: Callable[..., Any], played_operator: PlayedOperator, tmp_path: Path) -> Callable[..., Any]:
    """Start a router process that follows the played operator."""

    def start(*arguments: str) -> Any:
        return start_router(
            None, f"--operator-address={played_operator.address}", f"--state-dir={tmp_path / 'state'}", *arguments
        )

    return start
