"""Pools in a member cluster, on a real API server."""

import time

import pytest

pytestmark = pytest.mark.cluster

CHILDREN = (
    "Deployment/east-prefill", "Service/east-prefill", "ServiceAccount/east-prefill",
    "PodDisruptionBudget/east-prefill", "ConfigMap/east-prefill-profile",
)  # fmt: skip
BASE = ("MemberCluster/east", "ModelProfile/case-study-h20", "PrefillPool/east-prefill")
POOL = "PrefillPool/east-prefill"
PODS = "prfaas.dev/pool=east-prefill"


@pytest.fixture
def ready(tenant):
    """A tenant with a pool that is Ready."""
    tenant.apply(*BASE)
    tenant.set_ready(PODS, 2)
    tenant.wait_reason(POOL, "Ready", "Available")
    return tenant


def versions(tenant, keys):
    """Return the resourceVersions of objects."""
    return {key: tenant.get(key)["metadata"]["resourceVersion"] for key in keys}


def test_a_pool_becomes_a_workload(ready):
    """A pool gets its children, and is Ready once its workers are."""
    status = ready.get(POOL)["status"]
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (2, 2, 2)
    assert status["selector"] == "prfaas.dev/pool=east-prefill,prfaas.dev/role=prefill"
    assert status["observedGeneration"] == 1
    assert {item["type"]: item["status"] for item in status["conditions"]} == {
        "Ready": "True", "Reconciling": "False", "Stalled": "False", "ScalingActive": "False",
        "ReplicasOwned": "True",
    }  # fmt: skip
    for key in CHILDREN:
        assert ready.get(key)["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "prfaas", key


def test_applying_twice_writes_nothing(ready, operator):
    """The same manifests again change neither the objects nor their children."""
    watched = (*BASE, *CHILDREN)
    before = versions(ready, watched)
    done = operator.metric("prfaas_operator_reconciliations_total")
    ready.apply(*BASE)
    # Another annotation makes the operator look at the pool once more, and find nothing to do.
    ready.merge(POOL, {"metadata": {"annotations": {"example.com/looked": "at"}}})
    deadline = time.monotonic() + 60
    while operator.metric("prfaas_operator_reconciliations_total") <= done:
        assert time.monotonic() < deadline
    ready.merge("MemberCluster/east", {"metadata": {"annotations": {"example.com/looked": "at"}}})
    ready.wait(POOL, lambda _: operator.metric("prfaas_operator_reconciliations_total") >= done + 4, "is looked at")
    after = versions(ready, watched)
    changed = {key for key in watched if after[key] != before[key]}
    assert changed == {POOL, "MemberCluster/east"}
    assert int(after[POOL]) < int(after["MemberCluster/east"]), "only our own annotations were written"


def test_drift_is_corrected(ready):
    """Whoever edits or deletes a child finds it as it was."""
    ready.merge("Deployment/east-prefill", {"spec": {"replicas": 7, "template": {"spec": {"hostNetwork": True}}}})
    ready.wait("Deployment/east-prefill", lambda found: found["spec"]["replicas"] == 2, "has its replicas")
    ready.merge("ConfigMap/east-prefill-profile", {"data": {"profile.json": "{}"}})
    ready.wait("ConfigMap/east-prefill-profile", lambda found: found["data"]["profile.json"] != "{}", "is restored")
    ready.merge("Service/east-prefill", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}})
    ready.wait(
        "Service/east-prefill",
        lambda found: found["metadata"]["labels"].get("app.kubernetes.io/managed-by") == "prfaas", "has its label",
    )  # fmt: skip
    uid = ready.get("Deployment/east-prefill")["metadata"]["uid"]
    ready.delete("Deployment/east-prefill")
    ready.wait("Deployment/east-prefill", lambda found: found["metadata"]["uid"] != uid, "is made again")


def test_foreign_objects_are_not_adopted(tenant):
    """An object of somebody else stays as it is, and the pool says which one is in the way."""
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "east-prefill"},
        "spec": {"ports": [{"port": 1234}], "selector": {"app": "other"}},
    }  # fmt: skip
    tenant.apply(service)
    version = tenant.get("Service/east-prefill")["metadata"]["resourceVersion"]
    tenant.apply(*BASE)
    refused = tenant.wait_reason(POOL, "Ready", "AdoptionRefused")
    assert f"Service {tenant.namespace}/east-prefill exists" in refused["message"]
    assert tenant.get("Service/east-prefill")["metadata"]["resourceVersion"] == version
    assert tenant.get("Deployment/east-prefill") is None
    tenant.delete("Service/east-prefill")
    tenant.wait_reason(POOL, "Ready", "ReplicasUnavailable")


def test_scale_subresource(ready):
    """`kubectl scale` changes the number of workers."""
    ready.client.cluster.kubectl("scale", "pfp/east-prefill", "--replicas=3", f"--namespace={ready.namespace}")
    ready.wait("Deployment/east-prefill", lambda found: found["spec"]["replicas"] == 3, "has three replicas")
    ready.set_ready(PODS, 3)
    ready.wait_reason(POOL, "Ready", "Available")
    assert ready.get(POOL)["status"]["readyReplicas"] == 3
    ready.client.cluster.kubectl("scale", "pfp/east-prefill", "--replicas=0", f"--namespace={ready.namespace}")
    ready.wait_reason(POOL, "Ready", "ScaledToZero")


def test_a_changed_profile_rolls_the_pool(ready):
    """Workers read the profile when they start, so another profile replaces them, one by one."""
    before = ready.get(POOL)["status"]["revision"]
    ready.merge("ModelProfile/case-study-h20", {"spec": {"decode": {"slots": 21}}})
    ready.wait_reason(POOL, "Ready", "RollingOut")
    after = ready.get(POOL)["status"]["revision"]
    assert after != before
    deadline = time.monotonic() + 60
    while ready.condition(POOL, "Ready")["reason"] != "Available":
        assert time.monotonic() < deadline
        ready.report_ready(ready.pods(f"{PODS},prfaas.dev/revision={after}"))
    assert {pod["metadata"]["labels"]["prfaas.dev/revision"] for pod in ready.pods(PODS)} == {after}


def test_deleting_removes_the_children(ready):
    """Nothing is left in the member when the pool is gone."""
    ready.delete(POOL)
    ready.wait_gone(POOL)
    for key in CHILDREN:
        assert ready.get(key) is None, key


def test_what_is_missing_is_named(tenant):
    """References to nothing are reported, and resolved when the object appears."""
    tenant.apply("MemberCluster/east", POOL)
    missing = tenant.wait_reason(POOL, "Ready", "ProfileNotFound")
    assert "case-study-h20" in missing["message"]
    assert tenant.condition(POOL, "Stalled")["status"] == "True"
    tenant.apply("ModelProfile/case-study-h20")
    tenant.wait_reason(POOL, "Ready", "ReplicasUnavailable")
    assert tenant.get("ModelProfile/case-study-h20")["status"]["kvFingerprint"]


def test_a_pod_template_that_the_member_refuses(tenant):
    """The member's own words reach the pool's status."""
    pool = tenant.body(POOL)
    pool["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "much"}}
    tenant.apply("MemberCluster/east", "ModelProfile/case-study-h20", pool)
    refused = tenant.wait_reason(POOL, "Ready", "ApplyInvalid")
    assert "quantities" in refused["message"]


def test_two_pools_of_one_name(ready):
    """A decode pool cannot take over the children of a prefill pool of its name."""
    decode = ready.body("DecodePool/east-decode")
    decode["metadata"]["name"] = "east-prefill"
    ready.apply(decode)
    refused = ready.wait_reason("DecodePool/east-prefill", "Ready", "AdoptionRefused")
    assert "another owner" in refused["message"]
    ready.delete("DecodePool/east-prefill")
    ready.wait_gone("DecodePool/east-prefill")
    assert ready.get("Deployment/east-prefill") is not None


def test_a_cluster_in_use_is_not_released(ready):
    """A MemberCluster goes only after what has to be cleaned up through it, whatever is deleted first."""
    ready.delete("MemberCluster/east")
    waiting = ready.wait_reason("MemberCluster/east", "Ready", "Deleting")
    assert "PrefillPool" in waiting["message"]
    ready.delete(POOL)
    ready.wait_gone("MemberCluster/east")
    assert ready.get("Deployment/east-prefill") is None
