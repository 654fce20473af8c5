"""The stream on which the operator programs this router."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog

from prfaas_core.errors import CoreError
from prfaas_protocol import configuration_pb2 as pb
from prfaas_protocol import configuration_pb2_grpc as rpc
from prfaas_router.configuration import Configuration, check
from prfaas_router.last_known_good import DamagedError, LastKnownGood
from prfaas_router.metrics import Metrics

log = structlog.get_logger()

FIRST_RETRY_S = 0.2
MAX_RETRY_S = 10.0
REPORT_S = 2.0
"""Time between two reports of demand, traffic and links."""
VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this router is, and where its operator is.

    Attributes:
        route: "namespace/name".
        cluster: the name of the MemberCluster that it runs in.
        ca: file with the CA of the operator's certificate; None for a stream without TLS.
        token: file with a ServiceAccount token; read again at each connect, since tokens rotate. None for none.
    """

    route: str
    cluster: str
    router: str
    operator_address: str
    ca: Path | None
    token: Path | None


class ConfigurationStream:
    """Keeps the router configured: last known good at the start, then whatever the operator says."""

    def __init__(
        self,
        identity: Identity,
        store: LastKnownGood,
        apply: Callable[[Configuration], None],
        traffic: Callable[[], pb.Traffic],
        metrics: Metrics,
        contact: Callable[[bool], None] = lambda _connected: None,
        links: Callable[[], pb.Links] = pb.Links,
        demand: Callable[[], pb.Demand] = pb.Demand,
    ) -> None:
        self._identity = identity
        self._store = store
        self._apply = apply
        self._traffic = traffic
        self._metrics = metrics
        self._contact = contact
        self._links = links
        self._demand = demand
        self._news = asyncio.Event()
        self._version = 0

    def restore(self) -> None:
        """Serve by the last known good snapshot, if there is one that this version accepts."""
        try:
            snapshot = self._store.load()
            if snapshot is not None:
                self._apply(check(snapshot, self._identity.route))
                self._version = snapshot.version
                log.info("serving the last known good configuration", version=snapshot.version)
        except (DamagedError, CoreError, OSError) as error:
            log.warning("the last known good configuration is ignored", error=str(error))

    def report_now(self) -> None:
        """Say what was seen without waiting for the next report."""
        self._news.set()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                async for _ in self._connected():
                    retry_s = FIRST_RETRY_S
                log.warning("the operator closed the stream")
            except grpc.aio.AioRpcError as error:
                log.warning("no configuration stream", code=error.code().name, details=error.details())
            except OSError as error:
                log.warning("no configuration stream", error=str(error))
            finally:
                self._metrics.connected.set(0)
                self._contact(False)
            # Jitter keeps a fleet of routers from coming back all at once.
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
            retry_s = min(retry_s * 2, MAX_RETRY_S)

    async def _connected(self) -> AsyncGenerator[int, None]:
        identity = self._identity
        options = [("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000)]
        if identity.ca is None:
            channel = grpc.aio.insecure_channel(identity.operator_address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(identity.ca.read_bytes())
            channel = grpc.aio.secure_channel(identity.operator_address, credentials, options=options)
        metadata = []
        if identity.token is not None:
            metadata.append(("authorization", f"Bearer {identity.token.read_text(encoding='utf-8').strip()}"))
        namespace, _, name = identity.route.partition("/")
        async with channel:
            stub = rpc.RouterConfigurationStub(channel)  # type: ignore[no-untyped-call]
            call = stub.Stream(metadata=tuple(metadata))
            hello = pb.Hello(
                route_namespace=namespace,
                route_name=name,
                cluster=identity.cluster,
                router=identity.router,
                software_version=VERSION,
                version=self._version,
            )
            await call.write(pb.RouterMessage(hello=hello))
            # A call takes one message at a time.
            writing = asyncio.Lock()
            reports = asyncio.create_task(self._report(call, writing))
            try:
                async for snapshot in call:
                    self._metrics.connected.set(1)
                    self._contact(True)
                    answer = self._take(snapshot)
                    async with writing:
                        await call.write(answer)
                    yield snapshot.version
            finally:
                reports.cancel()
                await asyncio.gather(reports, return_exceptions=True)

    async def _report(self, call: Any, writing: asyncio.Lock) -> None:
        """Say what was seen lately until the stream ends, which its reader notices."""
        while True:
            self._news.clear()
            async with writing:
                await call.write(pb.RouterMessage(demand=self._demand()))
                await call.write(pb.RouterMessage(traffic=self._traffic()))
                await call.write(pb.RouterMessage(links=self._links()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_S):
                    await self._news.wait()

    def _take(self, snapshot: pb.Snapshot) -> pb.RouterMessage:
        if snapshot.version < self._version:
            return pb.RouterMessage(
                nack=pb.Nack(version=snapshot.version, reason=f"version: {snapshot.version} is below {self._version}")
            )
        try:
            configuration = check(snapshot, self._identity.route)
        except CoreError as error:
            self._metrics.rejected.inc()
            log.warning("configuration refused", version=snapshot.version, error=str(error))
            return pb.RouterMessage(nack=pb.Nack(version=snapshot.version, reason=str(error)))
        self._apply(configuration)
        self._version = snapshot.version
        try:
            self._store.save(snapshot)
        except OSError as error:
            # Serving matters more than being able to restart without the operator.
            log.warning("the configuration could not be kept on disk", error=str(error))
        log.info("configured", version=snapshot.version, threshold_tokens=configuration.threshold_tokens)
        return pb.RouterMessage(ack=pb.Ack(version=snapshot.version))
