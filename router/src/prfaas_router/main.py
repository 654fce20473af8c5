"""`prfaas-router`: start a router."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc.aio
import orjson
import structlog
import uvloop
from google.protobuf import json_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from prfaas_core.errors import CoreError
from prfaas_protocol import configuration_pb2 as pb
from prfaas_protocol import decision_pb2_grpc
from prfaas_router import configuration
from prfaas_router.app import Router
from prfaas_router.decide import DecideService
from prfaas_router.fleet import Fleet
from prfaas_router.http.server import Limits, Server
from prfaas_router.last_known_good import LastKnownGood
from prfaas_router.metrics import Metrics
from prfaas_router.stream import ConfigurationStream, Identity

log = structlog.get_logger()


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser(prog="prfaas-router", description="The PrfaaS router: OpenAI data path and Decide.")
    p.add_argument("--host", default="0.0.0.0", help="address to listen on")
    p.add_argument("--http-port", type=int, default=8080)
    p.add_argument("--grpc-port", type=int, default=9090)
    p.add_argument("--route", required=True, help="the InferenceRoute to serve, NAMESPACE/NAME")
    p.add_argument("--cluster", default="", help="the MemberCluster this router runs in")
    p.add_argument("--router-name", default="", help="of the pod")
    p.add_argument("--operator-address", help="HOST:PORT of the operator's configuration service")
    p.add_argument(
        "--operator-ca", type=Path, help="CA of the operator's certificate; without it the stream has no TLS"
    )
    p.add_argument("--operator-token", type=Path, help="file with a ServiceAccount token")
    p.add_argument(
        "--state-dir", type=Path, default=Path("/var/lib/prfaas"), help="keeps the last known good configuration"
    )
    p.add_argument("--decode-pod", help="as a sidecar: the only decode worker to use")
    p.add_argument("--snapshot", type=Path, help="serve by this snapshot (protobuf JSON) and ask no operator")
    p.add_argument("--drain-delay-s", type=float, default=1.0, help="time between not ready and no longer listening")
    p.add_argument("--drain-s", type=float, default=25.0, help="time for requests in flight after SIGTERM")
    p.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    return p


async def run(arguments: argparse.Namespace) -> None:
    """Serve until a signal, then drain."""
    loop = asyncio.get_running_loop()
    metrics = Metrics(arguments.route)
    fleet = Fleet(loop.time, arguments.decode_pod)
    router = Router(arguments.route, fleet, metrics)
    server = Server(router.handle, Limits(), lambda error: log.error("request failed", exc_info=error))

    def apply(new: configuration.Configuration) -> None:
        router.configure(new)
        server.max_body_bytes = new.max_body_bytes

    stream: asyncio.Task[None] | None = None
    if arguments.snapshot is not None:
        snapshot = json_format.Parse(arguments.snapshot.read_text(encoding="utf-8"), pb.Snapshot())
        apply(configuration.check(snapshot, arguments.route))
    else:
        identity = Identity(
            arguments.route,
            arguments.cluster,
            arguments.router_name,
            arguments.operator_address,
            arguments.operator_ca,
            arguments.operator_token,
        )
        source = ConfigurationStream(
            identity,
            LastKnownGood(arguments.state_dir),
            apply,
            router.traffic,
            metrics,
            fleet.contact,
            router.links,
            router.gate.demand,
        )
        router.gate.on_wanted(source.report_now)
        source.restore()
        stream = loop.create_task(source.run())

    grpc_server = grpc.aio.server()
    service = DecideService(router, metrics)
    decision_pb2_grpc.add_RouterServicer_to_server(service, grpc_server)  # type: ignore[no-untyped-call]
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(servicer, grpc_server)
    grpc_server.add_insecure_port(f"{arguments.host}:{arguments.grpc_port}")
    await grpc_server.start()
    port = await server.start(arguments.host, arguments.http_port)
    log.info("serving", route=arguments.route, address=f"{arguments.host}:{port}")

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waits = [loop.create_task(stop.wait())] + ([stream] if stream is not None else [])
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if stream is not None and stream.done():
        stream.result()

    log.info("draining")
    router.gate.drain(arguments.drain_s)
    server.drain()
    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    # Who routes to us sees the readiness probe fail before connections are refused.
    await asyncio.sleep(arguments.drain_delay_s)
    await server.stop(arguments.drain_s)
    await grpc_server.stop(grace=1.0)
    for task in waits:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    router.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parser().parse_args(argv)
    if (arguments.snapshot is None) == (arguments.operator_address is None):
        sys.exit("prfaas-router: give either --operator-address or --snapshot")
    namespace, slash, name = arguments.route.partition("/")
    if not (namespace and slash and name):
        sys.exit(f"prfaas-router: --route={arguments.route!r} is not NAMESPACE/NAME")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, arguments.log_level.upper())),
        logger_factory=structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    try:
        uvloop.run(run(arguments))
    except (CoreError, OSError, json_format.ParseError) as error:
        sys.exit(f"prfaas-router: {error}")
