"""Routers in the decode cluster, and what a route's status says."""

import pytest

pytestmark = pytest.mark.cluster

ROUTE = "InferenceRoute/chat"


def test_a_route_in_front_gets_a_deployment(tenant):
    """With placement Front the routers are a Deployment of their own."""
    tenant.apply()
    tenant.wait_reason(ROUTE, "Ready", "NoReadyDecode")
    deployment = tenant.get("Deployment/chat-router")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["name"] == "router"
    assert f"--route={tenant.namespace}/chat" in container["args"]
    assert "--cluster=east" in container["args"]
    for key in ("Service/chat-router", "ServiceAccount/chat-router", "PodDisruptionBudget/chat-router"):
        assert tenant.get(key) is not None, key
    assert "BEGIN CERTIFICATE" in tenant.get("ConfigMap/chat-router")["data"]["ca.crt"]
    tenant.set_ready("prfaas.dev/pool=east-decode", 2)
    tenant.wait_reason(ROUTE, "Ready", "NoReadyRouter")
    tenant.set_ready("prfaas.dev/route=chat", 1)
    tenant.wait_reason(ROUTE, "Ready", "RoutersPending")
    tenant.delete(ROUTE)
    tenant.wait_gone(ROUTE)
    for key in ("Deployment/chat-router", "Service/chat-router", "ConfigMap/chat-router"):
        assert tenant.get(key) is None, key


def test_a_sidecar_rides_in_decode_pods(tenant):
    """With placement Sidecar the decode pods carry the router, and a change of placement moves it."""
    route = tenant.body(ROUTE)
    route["spec"]["router"]["placement"] = "Sidecar"
    del route["spec"]["router"]["replicas"]
    tenant.apply(*(key for key in tenant.bodies if key != ROUTE), route)
    deployment = tenant.wait(
        "Deployment/east-decode",
        lambda found: len(found["spec"]["template"]["spec"]["containers"]) == 2, "has a sidecar",
    )  # fmt: skip
    sidecar = deployment["spec"]["template"]["spec"]["containers"][1]
    assert "--decode-pod=$(POD_NAME)" in sidecar["args"]
    service = tenant.wait("Service/chat-router", lambda _: True, "exists")
    assert service["spec"]["selector"] == {"prfaas.dev/pool": "east-decode", "prfaas.dev/role": "decode"}
    assert tenant.get("Deployment/chat-router") is None
    second = tenant.body(ROUTE)
    second["metadata"]["name"] = "other"
    second["spec"]["router"]["placement"] = "Sidecar"
    del second["spec"]["router"]["replicas"]
    tenant.apply(second)
    assert (
        "carries the routers of chat" in tenant.wait_reason("InferenceRoute/other", "Ready", "InvalidSpec")["message"]
    )
    tenant.delete("InferenceRoute/other")
    tenant.merge(ROUTE, {"spec": {"router": {"placement": "Front"}}})
    tenant.wait(
        "Deployment/east-decode",
        lambda found: len(found["spec"]["template"]["spec"]["containers"]) == 1, "is without it again",
    )  # fmt: skip
    tenant.wait("Deployment/chat-router", lambda _: True, "exists")


def test_incompatible_pools_are_left_out(tenant):
    """A prefill pool whose KV means something else is not paired, and the condition names the fields."""
    tenant.apply(*(key for key in tenant.bodies if key != "ModelProfile/case-study-h200"))
    other = tenant.body("ModelProfile/case-study-h200")
    other["spec"]["kv"]["dtype"] = "fp8_e4m3"
    tenant.apply(other)
    found = tenant.wait_reason(ROUTE, "Compatible", "FingerprintsDiffer")
    assert "kv.dtype is 'fp8_e4m3' there and 'bfloat16' here" in found["message"]
    assert tenant.condition(ROUTE, "Ready")["reason"] == "FingerprintsDiffer"


@pytest.mark.parametrize(
    ("left_out", "reason"),
    [
        ("KVLink/west-to-east", "LinkNotFound"),
        ("PrefillPool/west-prefill", "PoolNotFound"),
        ("DecodePool/east-decode", "PoolNotFound"),
    ],
)
def test_missing_parts_are_named(tenant, left_out, reason):
    """What a route refers to and cannot find is in its status, and is taken up when it appears."""
    tenant.apply(*(key for key in tenant.bodies if key != left_out))
    tenant.wait_reason(ROUTE, "Ready", reason)
    assert tenant.condition(ROUTE, "Stalled")["status"] == "True"
    tenant.apply(left_out)
    tenant.wait_reason(ROUTE, "Ready", "NoReadyDecode")


def test_thresholds(tenant):
    """A number is taken as it is; Auto is computed and says how."""
    tenant.apply()
    found = tenant.wait(ROUTE, lambda found: found.get("status", {}).get("thresholdTokens"), "has a threshold")
    assert found["status"]["thresholdSource"] == "Computed"
    assert "requests/s" in found["status"]["thresholdWhy"]
    assert 1000 < found["status"]["thresholdTokens"] < 131072
    tenant.merge(ROUTE, {"spec": {"policy": {"threshold": 777}}})
    found = tenant.wait(ROUTE, lambda found: found["status"]["thresholdTokens"] == 777, "follows the spec")
    assert found["status"]["thresholdSource"] == "Fixed"
