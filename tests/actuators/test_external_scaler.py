"""The external scaler for KEDA: a real client and server, and what a test says of a pool."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from prfaas_local.certificates import Authority
from prfaas_operator.actuators import external_scaler
from prfaas_operator.actuators.external_scaler import ExternalScalerServer
from prfaas_operator.actuators.pool_metrics import PoolMetrics, Total, Unknown
from prfaas_operator.configuration.tls import TlsFiles
from prfaas_operator.objects import ObjectStore, Ref
from prfaas_protocol import external_scaler_pb2 as pb
from prfaas_protocol import external_scaler_pb2_grpc as rpc

# The client may be there before the server listens.
SOON = [("grpc.initial_reconnect_backoff_ms", 20)]
DECODE, PREFILL = Ref("DecodePool", "t", "chat"), Ref("PrefillPool", "t", "long")


class Pools:
    """Pools with workers, totals and demand as a test sets them."""

    def __init__(self):
        self.store = ObjectStore()
        self.totals: dict[Ref, Total | Unknown] = {DECODE: Total(24.5), PREFILL: Total(1.5)}
        self.demand: dict[Ref, float | None] = {}
        self._version = 0
        for ref in (DECODE, PREFILL):
            self.size(ref, 2)

    def size(self, ref, replicas):
        self._version += 1
        spec = {
            "clusterRef": {"name": "c"}, "profileRef": {"name": "p"}, "replicas": 2,
            "template": {"spec": {"containers": [{"name": "w", "image": "i"}]}},
        }  # fmt: skip
        metadata = {
            "name": ref.name,
            "namespace": ref.namespace,
            "uid": str(ref),
            "resourceVersion": str(self._version),
        }
        self.store.observe(
            {"apiVersion": "prfaas.dev/v1alpha1", "kind": ref.kind, "metadata": metadata, "spec": spec,
             "status": {"replicas": replicas}}
        )  # fmt: skip

    async def total(self, pool, signal):
        return self.totals[pool]


@pytest.fixture
async def scaler(unused_tcp_port_factory):
    """A server in the clear, as KEDA expects by default, with its client and the pools behind it."""
    pools, port = Pools(), unused_tcp_port_factory()
    metrics = PoolMetrics(pools.store, pools, pools.demand.get)
    serving = asyncio.create_task(ExternalScalerServer(metrics, None, host="127.0.0.1", port=port).run())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=SOON) as channel:
        await channel.channel_ready()
        yield SimpleNamespace(pools=pools, metrics=metrics, port=port, stub=rpc.ExternalScalerStub(channel))
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def reference(**metadata):
    """Return a ScaledObject's trigger; KEDA adds what belongs to itself."""
    given = {"scalerAddress": "x:1", "pool": "chat", "metric": "prfaas-decode-requests", "target": "12.5"} | metadata
    return pb.ScaledObjectRef(
        name="busy", namespace="t", scalerMetadata={name: text for name, text in given.items() if text}
    )


async def refused(call, code):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code
    return caught.value.details()


async def test_a_metric_and_its_target(scaler):
    (spec,) = (await scaler.stub.GetMetricSpec(reference())).metricSpecs
    assert (spec.metricName, spec.targetSizeFloat, spec.targetSize) == ("prfaas-decode-requests", 12.5, 12)
    request = pb.GetMetricsRequest(scaledObjectRef=reference(), metricName=spec.metricName)
    (value,) = (await scaler.stub.GetMetrics(request)).metricValues
    assert (value.metricName, value.metricValueFloat, value.metricValue) == (spec.metricName, 24.5, 25)


@pytest.mark.parametrize(
    ("metadata", "code", "part"),
    [
        ({"pool": ""}, "INVALID_ARGUMENT", "scalerMetadata.pool: is missing"),
        ({"pool": "other"}, "NOT_FOUND", "no DecodePool other in namespace t"),
        ({"metric": "load"}, "INVALID_ARGUMENT", "scalerMetadata.metric: 'load' is none of prfaas-prefill-load"),
        ({"metric": ""}, "INVALID_ARGUMENT", "scalerMetadata.metric: None is none of"),
        ({"namespace": "u"}, "INVALID_ARGUMENT", "scalerMetadata.namespace: 'u' is not that of the ScaledObject, 't'"),
        ({"kind": "PrefillPool"}, "INVALID_ARGUMENT", "prfaas-decode-requests is of DecodePool, not of 'PrefillPool'"),
        ({"target": "0"}, "INVALID_ARGUMENT", "scalerMetadata.target: '0' is not a number above 0"),
        ({"target": "many"}, "INVALID_ARGUMENT", "scalerMetadata.target: 'many' is not a number above 0"),
        ({"target": ""}, "INVALID_ARGUMENT", "scalerMetadata.target: is missing"),
    ],
)
async def test_wrong_metadata_is_refused(scaler, metadata, code, part):
    assert part in await refused(scaler.stub.GetMetricSpec(reference(**metadata)), grpc.StatusCode[code])


async def test_pools_of_one_name_are_told_apart_by_kind(scaler):
    scaler.pools.size(Ref("PrefillPool", "t", "chat"), 1)
    both = {"metric": "prfaas-desired-replicas"}
    details = await refused(scaler.stub.GetMetricSpec(reference(**both)), grpc.StatusCode.INVALID_ARGUMENT)
    assert "scalerMetadata.kind: is missing" in details
    assert (await scaler.stub.GetMetricSpec(reference(**both, kind="DecodePool"))).metricSpecs


async def test_another_metric_than_that_of_the_trigger_is_refused(scaler):
    request = pb.GetMetricsRequest(scaledObjectRef=reference(), metricName="prfaas-kv-cache-use")
    details = await refused(scaler.stub.GetMetrics(request), grpc.StatusCode.INVALID_ARGUMENT)
    assert "'prfaas-kv-cache-use' is not the metric of this trigger" in details


async def test_what_is_not_known_is_an_error_and_not_zero(scaler):
    scaler.pools.totals[DECODE] = Unknown("SignalMissing", "none of 2 ready workers reports it")
    request = pb.GetMetricsRequest(scaledObjectRef=reference(), metricName="prfaas-decode-requests")
    for call in (scaler.stub.GetMetrics(request), scaler.stub.IsActive(reference())):
        details = await refused(call, grpc.StatusCode.UNAVAILABLE)
        assert details == "prfaas-decode-requests: SignalMissing: none of 2 ready workers reports it"


@pytest.mark.parametrize(
    ("replicas", "total", "demand", "active"),
    [
        pytest.param(2, Total(0.0), 0.0, False, id="nothing runs and nobody asks"),
        pytest.param(2, Total(0.0), None, False, id="nothing runs, and no router says anything"),
        pytest.param(2, Total(0.5), 0.0, True, id="something runs"),
        pytest.param(2, Unknown("SignalMissing", ""), 1.0, True, id="somebody asks, and nothing is measured"),
        pytest.param(0, Unknown("SignalMissing", ""), 3.0, True, id="somebody asks for a sleeping pool"),
        pytest.param(0, Unknown("SignalMissing", ""), 0.0, False, id="nobody asks for a sleeping pool"),
        pytest.param(0, Total(5.0), None, None, id="nobody knows whether somebody asks for a sleeping pool"),
    ],
)
async def test_a_pool_is_active_when_it_has_anything_to_do(scaler, replicas, total, demand, active):
    scaler.pools.size(DECODE, replicas)
    scaler.pools.totals[DECODE], scaler.pools.demand[DECODE] = total, demand
    if active is None:
        details = await refused(scaler.stub.IsActive(reference()), grpc.StatusCode.UNAVAILABLE)
        assert "no router reports" in details
    else:
        assert (await scaler.stub.IsActive(reference())).result is active


async def test_a_sleeping_pool_asks_for_one_worker(scaler):
    """KEDA reads the metric before it asks for activity, so a pool without workers has one: enough for a worker, or none."""
    scaler.pools.size(DECODE, 0)
    request = pb.GetMetricsRequest(scaledObjectRef=reference(), metricName="prfaas-decode-requests")
    for demand, value in ((7.0, 0.001), (0.0, 0.0)):
        scaler.pools.demand[DECODE] = demand
        (found,) = (await scaler.stub.GetMetrics(request)).metricValues
        assert found.metricValueFloat == value


async def test_activity_is_pushed_when_it_changes(scaler, monkeypatch):
    """KEDA's push trigger hears at once, again at a change, and nothing while nothing is known."""
    monkeypatch.setattr(external_scaler, "_LOOK_S", 0.02)
    scaler.pools.totals[DECODE] = Total(0.0)
    scaler.pools.demand[DECODE] = 0.0
    stream = scaler.stub.StreamIsActive(reference())
    async with asyncio.timeout(10):
        assert (await stream.read()).result is False
        scaler.pools.demand[DECODE] = 2.0
        assert (await stream.read()).result is True
        scaler.pools.totals[DECODE] = Unknown("PrometheusUnreachable", "no answer")
        scaler.pools.demand[DECODE] = None
        silent = asyncio.create_task(stream.read())
        # Several looks later nothing was said.
        done, _ = await asyncio.wait({silent}, timeout=0.3)
        assert not done
        scaler.pools.totals[DECODE] = Total(0.0)
        assert (await silent).result is False
        # The pool goes away, and the stream with it.
        scaler.pools.store.remove(scaler.pools.store.get(DECODE).body)
        assert "no DecodePool chat" in await refused(stream.read(), grpc.StatusCode.NOT_FOUND)


async def test_with_tls_clients_check_the_operators_certificate(scaler, tmp_path, unused_tcp_port_factory):
    authority, port = Authority("prfaas"), unused_tcp_port_factory()
    pair = authority.server("prfaas-operator", ["127.0.0.1"])
    for name, pem in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", authority.certificate)):
        (tmp_path / name).write_bytes(pem)
    tls = TlsFiles(tmp_path, on_change=lambda: None)
    serving = asyncio.create_task(ExternalScalerServer(scaler.metrics, tls, host="127.0.0.1", port=port).run())
    trusted = grpc.ssl_channel_credentials(authority.certificate)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", trusted, SOON) as channel:
        answer = await rpc.ExternalScalerStub(channel).GetMetricSpec(reference(), wait_for_ready=True, timeout=10)
        assert answer.metricSpecs
    stranger = grpc.ssl_channel_credentials(Authority("stranger").certificate)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", stranger) as channel:
        await refused(rpc.ExternalScalerStub(channel).GetMetricSpec(reference()), grpc.StatusCode.UNAVAILABLE)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
