"""HorizontalPodAutoscalers on pools: the real controller, by the metrics that the operator serves."""

import ssl

import httpx
import pytest

from prfaas_core.autoscaling import SignalName
from prfaas_operator.actuators.pool_metrics import Unknown

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

DECODE, PREFILL = "DecodePool/east-decode", "PrefillPool/east-prefill"
METRIC = "prfaas-decode-requests"
API = "/apis/external.metrics.k8s.io/v1beta1"
REQUESTS = SignalName.DECODE_REQUESTS


def autoscaler(name="decode", pool=DECODE, target="10", **metadata):
    """Return a HorizontalPodAutoscaler that keeps so many requests a worker, and acts at once."""
    kind, pool_name = pool.split("/")
    quick = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 100, "periodSeconds": 1}]}
    metric = {"name": METRIC, "selector": {"matchLabels": {"pool": pool_name}}}
    return {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, **metadata},
        "spec": {
            "scaleTargetRef": {"apiVersion": "prfaas.dev/v1alpha1", "kind": kind, "name": pool_name},
            "minReplicas": 1, "maxReplicas": 9, "behavior": {"scaleUp": quick, "scaleDown": quick},
            "metrics": [
                {"type": "External", "external": {"metric": metric, "target": {"type": "AverageValue", "averageValue": target}}}
            ],
        },
    }  # fmt: skip


@pytest.fixture
def served(tenant, metrics_api):
    """A tenant whose pools the metrics API knows; 20 requests keep two decode workers at a target of 10."""
    for key in (DECODE, PREFILL):
        tenant.wait(lambda key=key: tenant.get(key).get("status", {}).get("replicas") == 2, f"{key} has two workers")
        metrics_api.store.observe(tenant.get(key))
    metrics_api.values.set(tenant.namespace, REQUESTS, 20)
    tenant.metrics = metrics_api.values
    return tenant


def test_an_autoscaler_follows_a_metric_and_owns_the_number(served):
    """The scale subresource takes what the controller wants, the workload follows, and a condition names who did it."""
    served.apply(autoscaler())
    served.wait_reason(
        DECODE, "ReplicasOwned", "OwnedByHPA", "HorizontalPodAutoscaler decode sets spec.replicas between 1 and 9"
    )
    served.wait_reason("HorizontalPodAutoscaler/decode", "ScalingActive", "ValidMetricFound")
    assert served.replicas(DECODE) == 2
    served.metrics.set(served.namespace, REQUESTS, 47)
    served.wait_replicas(DECODE, 5)
    served.wait_reason(
        DECODE, "ReplicasOwned", "OwnedByHPA", "set by kube-controller-manager through the scale subresource"
    )
    served.wait(lambda: served.get(DECODE)["status"]["desiredReplicas"] == 5, "the workload follows")
    served.metrics.set(served.namespace, REQUESTS, 30)
    served.wait_replicas(DECODE, 3)
    served.delete("HorizontalPodAutoscaler/decode")
    served.wait_reason(DECODE, "ReplicasOwned", "OwnedBySpec")
    assert served.replicas(DECODE) == 3


def test_an_autoscaler_holds_without_a_metric(served):
    """What is not known is an error with our reason, which the controller shows, and never zero."""
    served.apply(autoscaler())
    served.metrics.set(served.namespace, REQUESTS, 50)
    served.wait_replicas(DECODE, 5)
    served.metrics.set(served.namespace, REQUESTS, Unknown("SignalStale", "the newest sample is 80 s old"))
    served.wait_reason(
        "HorizontalPodAutoscaler/decode", "ScalingActive", "FailedGetExternalMetric",
        "prfaas-decode-requests of DecodePool east-decode: SignalStale: the newest sample is 80 s old",
    )  # fmt: skip
    assert served.replicas(DECODE) == 5
    served.metrics.set(served.namespace, REQUESTS, 20)
    served.wait_reason("HorizontalPodAutoscaler/decode", "ScalingActive", "ValidMetricFound")
    served.wait_replicas(DECODE, 2)


def test_two_owners_are_reported(served):
    """Each of two autoscalers undoes what the other does; the condition names both and an event tells of it."""
    served.apply(autoscaler("one"), autoscaler("two", target="5"))
    message = served.wait_reason(DECODE, "ReplicasOwned", "OwnersConflict")
    assert message.startswith("HorizontalPodAutoscaler one and HorizontalPodAutoscaler two all set spec.replicas")
    assert served.condition(DECODE, "ReplicasOwned")["status"] == "False"
    served.wait(lambda: any(event["reason"] == "OwnersConflict" for event in served.list("Event")), "an event")
    served.delete("HorizontalPodAutoscaler/one")
    served.wait_reason(DECODE, "ReplicasOwned", "OwnedByHPA", "HorizontalPodAutoscaler two")


def test_an_autoscaler_does_not_size_a_pool_with_scaling(served):
    """The API server refuses the number, and the condition says who is in the way of whom."""
    scaled = served.bodies[PREFILL]
    del scaled["spec"]["replicas"]
    scaled["spec"]["scaling"] = {"maxReplicas": 4, "signals": [{"name": "PrefillLoad", "targetValue": 0.7}]}
    served.apply(scaled)
    served.wait_reason(PREFILL, "ReplicasOwned", "OwnedByScaling")
    served.apply(autoscaler("prefill", PREFILL))
    served.wait_reason(PREFILL, "ReplicasOwned", "OwnersConflict", "spec.scaling and HorizontalPodAutoscaler prefill")
    assert "replicas" not in served.get(PREFILL)["spec"]


def test_roles_do_not_change_what_an_autoscaler_sets(served):
    """A route does not exchange instances of a pool that somebody else sizes."""
    route = served.bodies["InferenceRoute/chat"]
    route["spec"] |= {"remotePrefillPoolRefs": []}
    route["spec"]["router"].pop("service", None)
    route["spec"]["policy"]["roles"] = {"mode": "Auto"}
    served.apply(route)
    served.apply(autoscaler())
    served.wait_reason(DECODE, "ReplicasOwned", "OwnersConflict", "the roles of InferenceRoute chat")
    served.wait_reason(
        "InferenceRoute/chat", "RolesActive", "RolesRefused", "east-decode is sized by HorizontalPodAutoscaler decode"
    )
    served.delete("HorizontalPodAutoscaler/decode")
    served.wait_reason(DECODE, "ReplicasOwned", "OwnedBySpec")


def test_people_and_keda_are_told_apart(served):
    """kubectl scale is people's; an autoscaler that a ScaledObject owns is KEDA's."""
    served.cluster.kubectl("scale", "dcp/east-decode", "--replicas=3", f"--namespace={served.namespace}")
    served.wait_reason(DECODE, "ReplicasOwned", "OwnedBySpec", "set by kubectl through the scale subresource")
    owner = {
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "busy", "uid": "0f7a4f0e-0000-4000-8000-000000000000"
    }  # fmt: skip
    served.metrics.set(served.namespace, REQUESTS, 30)
    served.apply(autoscaler("keda-hpa-busy", ownerReferences=[owner]))
    served.wait_reason(
        DECODE, "ReplicasOwned", "OwnedByKEDA", "ScaledObject busy of KEDA (HorizontalPodAutoscaler keda-hpa-busy)"
    )


def test_the_metrics_api_is_one_of_kubernetes(served, metrics_api):
    """Discovery, values with their labels, and errors as Status objects, through the API server."""
    names = {found["name"] for found in served.raw(API).json()["resources"]}
    assert {"prfaas-prefill-load", "prfaas-kv-cache-use", "prfaas-desired-replicas", METRIC} <= names
    metrics_api.values.set(served.namespace, REQUESTS, 7.25)
    path = f"{API}/namespaces/{served.namespace}"
    found = served.raw(f"{path}/{METRIC}?labelSelector=pool+in+(east-decode,other)").json()
    assert found["kind"] == "ExternalMetricValueList"
    (item,) = found["items"]
    assert (item["metricName"], item["value"], item["window"]) == (METRIC, "7250m", 60)
    assert item["metricLabels"] == {"pool": "east-decode", "kind": "DecodePool", "cluster": "east"}
    for query, code, part in (
        (f"{METRIC}?labelSelector=pool%3Dother", 404, "no DecodePool in namespace"),
        (f"{METRIC}?labelSelector=a+b", 400, "labelSelector: 'a b' is not"),
        ("prfaas-nothing", 404, "no metric prfaas-nothing; there are prfaas-prefill-load"),
        ("prfaas-kv-cache-use", 503, "SignalMissing: the query returns no sample"),
        ("prfaas-desired-replicas?labelSelector=kind%3DDecodePool", 503, "has no spec.scaling"),
    ):
        answer = served.raw(f"{path}/{query}")
        status = answer.json()
        assert (answer.status_code, status["kind"], status["status"], status["code"]) == (
            code,
            "Status",
            "Failure",
            code,
        )
        assert part in status["message"], status


def test_nobody_but_the_api_server_is_answered(served, metrics_api):
    """Whoever comes without the API server's certificate could claim to be anybody."""
    headers = {"X-Remote-User": "system:admin"}
    with httpx.Client(
        base_url=metrics_api.url, verify=ssl.create_default_context(cafile=metrics_api.authority), trust_env=False
    ) as direct:
        answer = direct.get(API, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")
    assert "no client certificate" in answer.json()["message"]
