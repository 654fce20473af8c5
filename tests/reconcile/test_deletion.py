"""Deletion of everything at once, in any order, and of the namespace itself."""

import random

import pytest

from prfaas_local.testing import control_plane

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CHILDREN = ("Deployment", "Service", "ConfigMap", "ServiceAccount", "PodDisruptionBudget")


def children(tenant):
    """Return the names of what the operator left in the members."""
    return [
        f"{kind}/{item['metadata']['name']}"
        for kind in CHILDREN
        for item in tenant.client.list(kind, tenant.namespace, "app.kubernetes.io/managed-by=prfaas")
    ]


def orders(bodies):
    """Return the keys of objects as kubectl takes them, backwards, and in orders of chance."""
    keys = list(bodies)
    return [keys, keys[::-1], *(random.Random(seed).sample(keys, len(keys)) for seed in range(3))]


@pytest.mark.parametrize("number", range(5))
def test_everything_is_deleted_at_once(tenant, number):
    """`kubectl delete` of all manifests in any order converges in seconds and leaves no child."""
    tenant.apply()
    tenant.set_ready("prfaas.dev/route=chat", 1)
    assert children(tenant)
    for key in orders(tenant.bodies)[number]:
        tenant.delete(key)
    for key in tenant.bodies:
        tenant.wait_gone(key)
    assert children(tenant) == []


def test_a_namespace_is_deleted(tenant, client, tmp_path):
    """The members are cleaned up although the Secrets with their kubeconfigs go first."""
    with control_plane(tmp_path / "west", "west") as west:
        tenant.add_kubeconfig("west", west)
        pool = tenant.body("PrefillPool/west-prefill")
        del pool["spec"]["scaling"]
        pool["spec"]["replicas"] = 1
        tenant.apply("MemberCluster/west", "ModelProfile/case-study-h200", pool)
        far = type(tenant).__new__(type(tenant))
        far.client, far.namespace = type(client)(west), tenant.namespace
        far.set_ready("prfaas.dev/pool=west-prefill", 1)
        tenant.wait_reason("PrefillPool/west-prefill", "Ready", "Available")
        tenant.client.cluster.kubectl("delete", "namespace", tenant.namespace, "--timeout=30s")
        assert children(far) == []
