"""Contact with member clusters."""

import time
from copy import deepcopy

import pytest

from prfaas_local.errors import LocalClusterError
from prfaas_local.testing import control_plane
from prfaas_operator.children.metadata import DRAINING_ANNOTATION

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

EAST = "MemberCluster/east"
POOL = "PrefillPool/west-prefill"
PODS = "prfaas.dev/pool=west-prefill"


def wait_ready(cluster):
    """Wait until an API server that was started again answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            cluster.kubectl("get", "--raw=/readyz")
        except LocalClusterError:
            assert time.monotonic() < deadline
        else:
            return


def test_a_cluster_is_probed(tenant):
    """A cluster that answers is reachable, with its version."""
    tenant.apply(EAST)
    tenant.wait_reason(EAST, "Ready", "Available")
    status = tenant.get(EAST)["status"]
    assert status["reachable"] is True
    assert status["version"].startswith("v1.")
    assert status["lastProbeTime"]


def test_the_hub_can_be_a_member(tenant):
    """`hub: true` needs no Secret."""
    cluster = tenant.body(EAST)
    cluster["spec"] = {"hub": True}
    tenant.apply(cluster, "ModelProfile/case-study-h20", "PrefillPool/east-prefill")
    tenant.wait_reason("PrefillPool/east-prefill", "Ready", "ReplicasUnavailable")


@pytest.mark.parametrize(
    ("kubeconfig", "reason", "text"),
    [
        pytest.param(None, "SecretNotFound", "does not exist", id="none"),
        pytest.param("]", "KubeconfigInvalid", "not YAML", id="not-yaml"),
        pytest.param("exec", "KubeconfigInvalid", "'exec' is not allowed", id="plugin"),
    ],
)
def test_bad_credentials_are_explained(tenant, kubeconfig, reason, text):
    """What is wrong with a Secret is said, and a good one is taken up without a restart."""
    cluster = tenant.body(EAST)
    cluster["spec"]["kubeconfigSecretRef"]["name"] = "new"
    if kubeconfig is not None:
        if kubeconfig == "exec":
            kubeconfig = """
                {current-context: c, contexts: [{name: c, context: {cluster: x, user: y}}],
                 clusters: [{name: x, cluster: {server: "https://127.0.0.1"}}],
                 users: [{name: y, user: {exec: {command: rm}}}]}"""
        secret = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "new"}, "stringData": {"kubeconfig": kubeconfig},
        }  # fmt: skip
        tenant.apply(secret)
    tenant.apply(cluster)
    found = tenant.wait_reason(EAST, "Reachable", reason)
    assert text in found["message"]
    assert found["status"] == "False"
    tenant.add_kubeconfig("new", tenant.client.cluster)
    cluster["spec"]["kubeconfigSecretRef"]["name"] = "new-kubeconfig"
    tenant.apply(cluster)
    tenant.wait_reason(EAST, "Ready", "Available")


def marks(tenant):
    """Return since when each worker of a pool drains."""
    found = {
        pod["metadata"]["name"]: pod["metadata"].get("annotations") or {}
        for pod in tenant.pods("prfaas.dev/pool=shrinking")
    }
    return {
        name: annotations[DRAINING_ANNOTATION]
        for name, annotations in found.items()
        if DRAINING_ANNOTATION in annotations
    }


def test_a_member_dies_and_returns(tenant, operator, client, tmp_path):
    """A dead member changes nothing for the others; what was known stays, deletions end, and nothing is left behind."""
    with control_plane(tmp_path / "west", "west") as west:
        member = type(client)(west)
        tenant.add_kubeconfig("west", west)
        tenant.apply("MemberCluster/west", "MemberCluster/east", "ModelProfile/case-study-h20",
                     "ModelProfile/case-study-h200", "PrefillPool/east-prefill")  # fmt: skip
        pool = tenant.body(POOL)
        del pool["spec"]["scaling"]
        pool["spec"]["replicas"] = 1
        doomed, shrinking = deepcopy(pool), deepcopy(pool)
        doomed["metadata"]["name"] = "doomed"
        shrinking["metadata"]["name"] = "shrinking"
        tenant.apply(pool, doomed, shrinking)
        far = type(tenant).__new__(type(tenant))
        far.client, far.namespace = member, tenant.namespace
        far.set_ready(PODS, 1)
        far.set_ready("prfaas.dev/pool=doomed", 1)
        far.set_ready("prfaas.dev/pool=shrinking", 1)
        tenant.wait_reason(POOL, "Ready", "Available")
        tenant.wait_reason("PrefillPool/shrinking", "Ready", "Available")
        tenant.merge("PrefillPool/shrinking", {"spec": {"replicas": 0}})
        tenant.wait_reason("PrefillPool/shrinking", "Ready", "Draining")
        drains = tenant.wait("PrefillPool/shrinking", lambda _: marks(far), "has a worker that drains") and marks(far)
        tenant.set_ready("prfaas.dev/pool=east-prefill", 2)
        tenant.wait_reason("PrefillPool/east-prefill", "Ready", "Available")

        server = west.children["kube-apiserver"]
        server.kill()
        lost = tenant.wait_reason(POOL, "Ready", "ClusterUnreachable")
        assert lost["status"] == "Unknown"
        assert tenant.get(POOL)["status"]["readyReplicas"] == 1, "the last known state is kept"
        assert tenant.get("MemberCluster/west")["status"]["reachable"] is False
        tenant.merge("PrefillPool/east-prefill", {"spec": {"replicas": 3}})
        tenant.wait("Deployment/east-prefill", lambda found: found["spec"]["replicas"] == 3, "is scaled meanwhile")
        tenant.delete("PrefillPool/doomed")
        why = tenant.wait_reason("PrefillPool/doomed", "Ready", "Deleting")
        assert why["message"].startswith("waits for cluster west, not beyond ")
        tenant.wait_gone("PrefillPool/doomed")
        ledger = client.get("ConfigMap", "prfaas-orphans", "prfaas-system")
        assert any('"name": "doomed"' in entry for entry in ledger["data"].values())
        tenant.merge(POOL, {"spec": {"replicas": 2}})

        server.start()
        wait_ready(west)
        far.wait("Deployment/west-prefill", lambda found: found["spec"]["replicas"] == 2, "catches up")
        far.wait_gone("Deployment/doomed")
        tenant.wait_reason("PrefillPool/shrinking", "Ready", "Draining")
        assert marks(far) == drains, "it drains since when it did"
        tenant.merge("PrefillPool/shrinking", {"spec": {"replicas": 1}})
        tenant.wait_reason("PrefillPool/shrinking", "Ready", "Available")
        assert marks(far) == {}
        tenant.wait("MemberCluster/west", lambda found: found["status"]["reachable"], "is reachable")
        far.set_ready(PODS, 2)
        tenant.wait_reason(POOL, "Ready", "Available")
        tenant.wait(
            "MemberCluster/west",
            lambda _: (
                tenant.namespace not in str(client.get("ConfigMap", "prfaas-orphans", "prfaas-system").get("data"))
            ),
            "has nothing left of what was deleted",
        )
        for key in (POOL, "PrefillPool/shrinking"):
            tenant.delete(key)
            tenant.wait_gone(key)
