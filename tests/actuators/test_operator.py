"""What a real operator tells actuators of a pool without `scaling`, from a real Prometheus that scrapes its workers."""

import ssl

import grpc
import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from prfaas_protocol import external_scaler_pb2 as pb
from prfaas_protocol import external_scaler_pb2_grpc as rpc

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

DECODE = "DecodePool/east-decode"


@pytest.fixture
def namespace():
    """Name the namespace whose workers are scraped."""
    return "measured"


@pytest.fixture
def measured(tenant, scraped):
    """A tenant with two ready decode workers: each runs 12 requests, and their KV caches are full to 40 and 60 per cent."""
    for pod, cache_use in (("a", 0.4), ("b", 0.6)):
        registry = CollectorRegistry()
        for name, value in (("num_requests_running", 12), ("kv_cache_usage_perc", cache_use)):
            Gauge(f"vllm:{name}", "x", ["model_name"], registry=registry).labels("m").set(value)
        scraped[0].texts[f"/{pod}"] = lambda registry=registry: generate_latest(registry)
    tenant.set_ready("east-decode", 2)
    tenant.wait(lambda: tenant.get(DECODE).get("status", {}).get("readyReplicas") == 2, "two workers are ready")
    return tenant


def test_actuators_are_told_totals_or_why_there_are_none(measured, scraped, operator, tmp_path):
    """A sum is a total, a mean is one times the workers; when workers fall silent, both servers say so."""
    (tmp_path / "ca.crt").write_bytes(operator.authority.certificate)
    pki = measured.cluster.folder / "pki"
    as_api_server = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    as_api_server.load_cert_chain(pki / "front-proxy-client.crt", pki / "front-proxy-client.key")
    headers = {"X-Remote-User": "system:serviceaccount:kube-system:horizontal-pod-autoscaler"}
    path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/measured"
    trigger = pb.ScaledObjectRef(
        name="busy", namespace="measured",
        scalerMetadata={"pool": "east-decode", "metric": "prfaas-decode-requests", "target": "10"},
    )  # fmt: skip
    with (
        httpx.Client(
            base_url=f"https://{operator.host}:6443", verify=as_api_server, headers=headers, trust_env=False
        ) as api,
        grpc.insecure_channel(f"{operator.host}:50052") as channel,
    ):
        keda = rpc.ExternalScalerStub(channel)

        def value(metric):
            answer = api.get(f"{path}/{metric}", params={"labelSelector": "pool=east-decode"})
            return answer.json()["items"][0]["value"] if answer.is_success else answer.json()["message"]

        measured.wait(lambda: value("prfaas-decode-requests") == "24", "the requests of both workers")
        assert value("prfaas-kv-cache-use") == "1"
        (found,) = keda.GetMetrics(
            pb.GetMetricsRequest(scaledObjectRef=trigger, metricName="prfaas-decode-requests"), timeout=10
        ).metricValues
        assert found.metricValueFloat == 24
        assert keda.IsActive(trigger, timeout=10).result is True
        # Series of a target that is gone end at once; the pool's workers are still there.
        for text in ("/a", "/b"):
            del scraped[0].texts[text]
        measured.wait(lambda: "SignalMissing" in value("prfaas-decode-requests"), "the silence of the workers")
        with pytest.raises(grpc.RpcError) as caught:
            keda.IsActive(trigger, timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "SignalMissing" in caught.value.details()
        # Asleep, the pool depends on what routers say, and there is no router.
        measured.merge(DECODE, {"spec": {"replicas": 0}})
        measured.wait(lambda: "DemandUnknown" in value("prfaas-decode-requests"), "nobody knows whether it is wanted")
