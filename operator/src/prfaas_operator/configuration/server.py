"""The gRPC service from which routers read their configuration."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NoReturn

import grpc
import structlog

from prfaas_core.demand import Demand
from prfaas_core.errors import CoreError
from prfaas_core.link_capacity import LinkReport
from prfaas_core.traffic import Bucket
from prfaas_operator import api
from prfaas_operator.clusters.api import ApiError
from prfaas_operator.clusters.fleet import Fleet
from prfaas_operator.configuration import identity
from prfaas_operator.configuration.publisher import MAX_VERSION, Publisher, RouterReport, Subscription
from prfaas_operator.configuration.tls import TlsFiles
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import ObjectStore, Ref
from prfaas_protocol import configuration_pb2 as pb
from prfaas_protocol import configuration_pb2_grpc as rpc

_log = structlog.get_logger(__name__)

HELLO_TIMEOUT_S = 10.0
_MAX_REASON = 1024
_MAX_LINKS = 16
_MAX_POOLS = 16
_OPTIONS = (
    # A router that vanished without a word is noticed by the pings, not by the next thing there is to say.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Tokens are checked when a stream begins, so streams begin anew now and then.
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
    ("grpc.max_receive_message_length", 65_536),
    ("grpc.so_reuseport", 0),
)

# Hears of the links in a namespace that a router has reported on.
OnLinks = Callable[[str, Iterable[str]], None]
Context = grpc.aio.ServicerContext[pb.RouterMessage, pb.Snapshot]


class RouterConfiguration(rpc.RouterConfigurationServicer):
    """Streams snapshots to routers that prove who they are."""

    def __init__(
        self, store: ObjectStore, fleet: Fleet, publisher: Publisher, metrics: Metrics, on_links: OnLinks
    ) -> None:
        self._on_links = on_links
        self._store = store
        self._fleet = fleet
        self._publisher = publisher
        self._metrics = metrics

    async def Stream(  # noqa: N802  the name in the contract
        self, request_iterator: AsyncIterator[pb.RouterMessage], context: Context
    ) -> AsyncIterator[pb.Snapshot]:
        """Serve one router until it leaves; see the contract for the errors."""
        hello = await self._hello(request_iterator, context)
        route = await self._admit(hello, context)
        log = _log.bind(route=str(route), cluster=hello.cluster, router=hello.router)
        log.info("router connected", version=hello.version, software=hello.software_version)
        report = RouterReport(hello.router, hello.cluster, hello.version)
        with self._publisher.subscribe(route, report) as subscription:
            answers = asyncio.create_task(self._listen(request_iterator, route, subscription))
            answers.add_done_callback(lambda _: subscription.wake())
            try:
                sent = -1
                while True:
                    await subscription.changed()
                    if answers.done():
                        break
                    if subscription.closed:
                        await context.abort(grpc.StatusCode.NOT_FOUND, f"{route} was deleted")
                    snapshot = self._publisher.newest(route)
                    # A version that the router would ignore waits until one above it is published.
                    if snapshot is not None and snapshot.version != sent and snapshot.version >= hello.version:
                        sent = snapshot.version
                        yield snapshot
            finally:
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)
                log.info("router disconnected", version=subscription.report.version)

    async def _hello(self, messages: AsyncIterator[pb.RouterMessage], context: Context) -> pb.Hello:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await anext(aiter(messages))
        except (TimeoutError, StopAsyncIteration):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"no Hello within {HELLO_TIMEOUT_S:g} s")
        if first.WhichOneof("message") != "hello":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the first message has to be a Hello")
        hello = first.hello
        for name in ("route_namespace", "route_name", "cluster", "router"):
            value = getattr(hello, name)
            if not value or len(value) > 253:
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"hello.{name}: {value[:64]!r} is not valid; give 1 to 253 characters",
                )
        if hello.version > MAX_VERSION:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"hello.version: {hello.version} is above {MAX_VERSION}"
            )
        return hello

    async def _admit(self, hello: pb.Hello, context: Context) -> Ref:
        """Return the route of a router that may read it; nothing is told about routes to those who may not."""
        namespace = hello.route_namespace
        route = Ref(api.InferenceRoute.__name__, namespace, hello.route_name)
        token = _bearer(context)
        if token is None:
            await self._refuse(
                context, grpc.StatusCode.UNAUTHENTICATED, "send the metadata `authorization: Bearer TOKEN`"
            )
        member = self._fleet.get(namespace, hello.cluster)
        if member is None:
            await self._refuse(
                context, grpc.StatusCode.UNAUTHENTICATED, f"no MemberCluster {namespace}/{hello.cluster} is known"
            )
        if member.api is None:
            await self._refuse(
                context, grpc.StatusCode.UNAVAILABLE, f"cluster {hello.cluster}: {member.health.message}"
            )
        try:
            user = await identity.review(member.api, token)
        except identity.NotAuthenticError as error:
            await self._refuse(context, grpc.StatusCode.UNAUTHENTICATED, f"cluster {hello.cluster}: {error}")
        except ApiError as error:
            code = grpc.StatusCode.UNAVAILABLE if error.unreachable else grpc.StatusCode.UNAUTHENTICATED
            await self._refuse(context, code, f"cluster {hello.cluster} could not check the token: {error}")
        found = self._store.model(api.InferenceRoute, namespace, hello.route_name)
        if found is None:
            await self._refuse(context, grpc.StatusCode.NOT_FOUND, f"no InferenceRoute {namespace}/{hello.route_name}")
        decode = self._store.model(api.DecodePool, namespace, found[1].spec.decode_pool_ref.name)
        if decode is None:
            await self._refuse(
                context,
                grpc.StatusCode.UNAVAILABLE,
                f"the route's decode pool {found[1].spec.decode_pool_ref.name} does not exist",
            )
        wanted = identity.expected(namespace, found[1], decode[1])
        if (hello.cluster, user) != (wanted.cluster, wanted.user):
            await self._refuse(
                context,
                grpc.StatusCode.PERMISSION_DENIED,
                f"the token belongs to {user} in cluster {hello.cluster}; "
                f"routers of {namespace}/{hello.route_name} are {wanted.user} in cluster {wanted.cluster}",
            )
        return route

    async def _refuse(self, context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
        self._metrics.streams_refused.labels(code.name).inc()
        _log.warning("router refused", code=code.name, detail=message, peer=context.peer())
        await context.abort(code, message)
        raise AssertionError("abort raises")

    async def _listen(self, messages: AsyncIterator[pb.RouterMessage], route: Ref, subscription: Subscription) -> None:
        async for message in messages:
            match message.WhichOneof("message"):
                case "ack":
                    self._metrics.acknowledgements.labels("ack").inc()
                    self._publisher.acknowledged(route, subscription, message.ack.version)
                case "nack":
                    self._metrics.acknowledgements.labels("nack").inc()
                    reason = message.nack.reason[:_MAX_REASON]
                    _log.warning(
                        "configuration refused", route=str(route), router=subscription.report.name,
                        version=message.nack.version, reason=reason,
                    )  # fmt: skip
                    self._publisher.refused(route, subscription, message.nack.version, reason)
                case "traffic":
                    lengths = message.traffic.uncached_lengths
                    try:
                        buckets = tuple(Bucket(item.index, item.count, item.tokens) for item in lengths)
                    except CoreError as error:
                        name = subscription.report.name
                        _log.warning("traffic ignored", route=str(route), router=name, error=str(error))
                    else:
                        self._publisher.saw(route, subscription, buckets)
                case "links":
                    try:
                        links = {item.name: _link_report(item) for item in message.links.links[:_MAX_LINKS]}
                    except CoreError as error:
                        name = subscription.report.name
                        _log.warning("links ignored", route=str(route), router=name, error=str(error))
                    else:
                        self._publisher.saw_links(subscription, links)
                        self._on_links(route.namespace, links)
                case "demand":
                    try:
                        demand = dict(_demand(route, item) for item in message.demand.pools[:_MAX_POOLS])
                    except CoreError as error:
                        name = subscription.report.name
                        _log.warning("demand ignored", route=str(route), router=name, error=str(error))
                    else:
                        self._publisher.saw_demand(route, subscription, demand)
                case _:
                    _log.warning("message ignored", route=str(route), router=subscription.report.name)


class ConfigurationServer:
    """The server that the service runs on."""

    def __init__(
        self,
        store: ObjectStore,
        fleet: Fleet,
        publisher: Publisher,
        metrics: Metrics,
        tls: TlsFiles,
        on_links: OnLinks,
        *,
        host: str,
        port: int,
    ) -> None:
        self._service = RouterConfiguration(store, fleet, publisher, metrics, on_links)
        self._tls = tls
        self._address = f"{host}:{port}"
        self._server: grpc.aio.Server | None = None
        self.port = port

    async def start(self) -> None:
        """Listen; the port is that of the settings, or a free one for port 0."""
        self._server = grpc.aio.server(options=_OPTIONS)
        rpc.add_RouterConfigurationServicer_to_server(self._service, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_secure_port(self._address, self._tls.credentials())
        await self._server.start()
        _log.info("serving router configuration", address=self._address, port=self.port)

    async def stop(self) -> None:
        """End all streams; routers keep what they have, and come back to the next operator."""
        if self._server is not None:
            await self._server.stop(grace=None)


def _link_report(item: pb.LinkUse) -> LinkReport:
    return LinkReport(item.moved_bits, item.moving_s, item.busy_s, item.seen_s, item.transfers, item.age_s)


def _demand(route: Ref, item: pb.PoolDemand) -> tuple[Ref, Demand]:
    kind = api.DecodePool if item.decode else api.PrefillPool
    since_s = item.since_last_s if item.HasField("since_last_s") else math.inf
    return Ref(kind.__name__, route.namespace, item.name), Demand(item.waiting, item.wanted_rps, since_s)


def _bearer(context: Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            text = value.decode(errors="replace") if isinstance(value, bytes) else value
            scheme, _, token = text.partition(" ")
            return token.strip() if scheme.lower() == "bearer" and token.strip() else None
    return None
