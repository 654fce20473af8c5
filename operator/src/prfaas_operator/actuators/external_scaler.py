"""The external scaler that KEDA asks: whether a pool has anything to do, and one of its metrics against a target.

KEDA authenticates nobody and shows no identity of its own, so this serves whoever reaches its port: numbers, read only. A
ScaledObject can only ask about pools of its own namespace.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
import structlog

from prfaas_operator.actuators.pool_metrics import METRICS, Metric, PoolMetrics, Total, Unknown
from prfaas_operator.configuration.tls import TlsFiles
from prfaas_operator.objects import POOL_KINDS, Ref
from prfaas_protocol import external_scaler_pb2 as pb
from prfaas_protocol import external_scaler_pb2_grpc as rpc

_log = structlog.get_logger(__name__)

# Between two looks at whether a pool has anything to do; a request that wakes a pool waits for so long at most.
_LOOK_S: Final = 0.5
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_receive_message_length", 65_536),
    ("grpc.so_reuseport", 0),
)

Context = grpc.aio.ServicerContext[Any, Any]


class TriggerError(Exception):
    """The metadata of a trigger is wrong; the message names the field, the value and the way out."""


class NoSuchPoolError(Exception):
    """A trigger is about a pool that does not exist."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """What a ScaledObject's trigger asks about."""

    pool: Ref
    metric: Metric
    target: float | None  # for each worker


def read(reference: pb.ScaledObjectRef, metrics: PoolMetrics) -> Trigger:
    """Return the trigger of a ScaledObject.

    Raises:
        TriggerError: its metadata is wrong.
        NoSuchPoolError: there is no such pool.
    """
    metadata: Mapping[str, str] = reference.scalerMetadata
    namespace = metadata.get("namespace") or reference.namespace
    if namespace != reference.namespace:
        raise TriggerError(
            f"scalerMetadata.namespace: {namespace!r} is not that of the ScaledObject, {reference.namespace!r}; leave it out, "
            "and make the ScaledObject in the namespace of the pool"
        )
    name = metadata.get("pool")
    if not name:
        raise TriggerError("scalerMetadata.pool: is missing; give the name of a PrefillPool or DecodePool")
    metric = METRICS.get(metadata.get("metric", ""))
    if metric is None:
        raise TriggerError(f"scalerMetadata.metric: {metadata.get('metric')!r} is none of {', '.join(METRICS)}")
    kind = metadata.get("kind")
    if kind and kind not in metric.kinds:
        raise TriggerError(f"scalerMetadata.kind: {metric.name} is of {' and '.join(metric.kinds)}, not of {kind!r}")
    found = [pool for pool in metrics.pools(namespace, (kind,) if kind else metric.kinds) if pool.name == name]
    if not found:
        raise NoSuchPoolError(
            f"scalerMetadata.pool: no {kind or ' or '.join(metric.kinds)} {name} in namespace {namespace}"
        )
    if len(found) > 1:
        raise TriggerError(f"scalerMetadata.kind: is missing; both a {' and a '.join(POOL_KINDS)} are called {name}")
    return Trigger(found[0], metric, _target(metadata.get("target")))


def _target(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        target = float(text)
    except ValueError:
        target = math.nan
    if not 0 < target < math.inf:
        raise TriggerError(
            f"scalerMetadata.target: {text!r} is not a number above 0; give what one worker should carry"
        )
    return target


class ExternalScaler(rpc.ExternalScalerServicer):
    """Answers KEDA from what the operator knows of pools."""

    def __init__(self, metrics: PoolMetrics) -> None:
        self._metrics = metrics

    async def IsActive(self, request: pb.ScaledObjectRef, context: Context) -> pb.IsActiveResponse:  # noqa: N802
        """Say whether a pool has anything to do."""
        trigger = await self._trigger(request, context)
        active = await self._metrics.active(trigger.pool, trigger.metric)
        if isinstance(active, Unknown):
            await _unavailable(context, trigger, active)
        return pb.IsActiveResponse(result=active)

    async def StreamIsActive(  # noqa: N802
        self, request: pb.ScaledObjectRef, context: Context
    ) -> AsyncIterator[pb.IsActiveResponse]:
        """Say so as soon as it is known, and whenever it changes; while it is not known, what was said last stays."""
        said: bool | None = None
        while True:
            trigger = await self._trigger(request, context)
            active = await self._metrics.active(trigger.pool, trigger.metric)
            if not isinstance(active, Unknown) and active is not said:
                said = active
                yield pb.IsActiveResponse(result=active)
            await asyncio.sleep(_LOOK_S)

    async def GetMetricSpec(self, request: pb.ScaledObjectRef, context: Context) -> pb.GetMetricSpecResponse:  # noqa: N802
        """Return the metric and its target."""
        trigger = await self._trigger(request, context)
        if trigger.target is None:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"scalerMetadata.target: is missing; give the {trigger.metric.name} that one worker should carry",
            )
        spec = pb.MetricSpec(
            metricName=trigger.metric.name, targetSize=max(1, round(trigger.target)), targetSizeFloat=trigger.target
        )
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Context) -> pb.GetMetricsResponse:  # noqa: N802
        """Return the value of the metric."""
        trigger = await self._trigger(request.scaledObjectRef, context)
        if request.metricName != trigger.metric.name:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"metricName: {request.metricName!r} is not the metric of this trigger, {trigger.metric.name}",
            )
        found = await self._metrics.read(trigger.pool, trigger.metric)
        if not isinstance(found, Total):
            await _unavailable(context, trigger, found)
        value = pb.MetricValue(
            metricName=trigger.metric.name, metricValue=math.ceil(found.value), metricValueFloat=found.value
        )
        return pb.GetMetricsResponse(metricValues=[value])

    async def _trigger(self, reference: pb.ScaledObjectRef, context: Context) -> Trigger:
        try:
            return read(reference, self._metrics)
        except TriggerError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except NoSuchPoolError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        raise AssertionError("abort raises")


async def _unavailable(context: Context, trigger: Trigger, why: Unknown) -> NoReturn:
    await context.abort(grpc.StatusCode.UNAVAILABLE, f"{trigger.metric.name}: {why.reason}: {why.message}")
    raise AssertionError("abort raises")


class ExternalScalerServer:
    """The server that KEDA connects to; without certificates in the clear, as KEDA does by default."""

    def __init__(self, metrics: PoolMetrics, tls: TlsFiles | None, *, host: str, port: int) -> None:
        self._service = ExternalScaler(metrics)
        self._tls = tls
        self._address = f"{host}:{port}"

    async def run(self) -> None:
        """Serve until cancelled; then all streams end, and KEDA comes back to the next operator."""
        server = grpc.aio.server(options=_OPTIONS)
        rpc.add_ExternalScalerServicer_to_server(self._service, server)  # type: ignore[no-untyped-call]
        if self._tls is None:
            server.add_insecure_port(self._address)
        else:
            server.add_secure_port(self._address, self._tls.credentials())
        await server.start()
        _log.info("serving KEDA", address=self._address, tls=self._tls is not None)
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(grace=None)
