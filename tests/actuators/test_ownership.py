"""Who sets the number of a pool's workers, as a function of what is known."""

import pytest

from prfaas_operator.actuators import ownership
from prfaas_operator.actuators.autoscalers import Autoscaler, read
from prfaas_operator.actuators.ownership import Claims, Writer
from prfaas_operator.objects import Ref

POOL = Ref("PrefillPool", "t", "p")
HPA = Autoscaler("a", POOL, 1, 8)
OTHER = Autoscaler("b", POOL, 1, 4)
KEDA = Autoscaler("keda-hpa-s", POOL, 1, 8, scaled_object="s")
KUBECTL = Writer("kubectl", by_scale=True)


@pytest.mark.parametrize(
    ("claims", "owned", "reason", "parts"),
    [
        pytest.param(Claims(scaling=False), True, "OwnedBySpec", ["spec.replicas"], id="spec"),
        pytest.param(
            Claims(scaling=False, writers=[KUBECTL]), True, "OwnedBySpec", ["spec.replicas, set by kubectl through the scale subresource"],
            id="kubectl scale",
        ),
        pytest.param(Claims(scaling=True), True, "OwnedByScaling", ["spec.scaling"], id="scaling"),
        pytest.param(
            Claims(scaling=False, autoscalers=[HPA]), True, "OwnedByHPA",
            ["HorizontalPodAutoscaler a sets spec.replicas between 1 and 8"], id="hpa",
        ),
        pytest.param(
            Claims(scaling=False, autoscalers=[KEDA]), True, "OwnedByKEDA",
            ["ScaledObject s of KEDA (HorizontalPodAutoscaler keda-hpa-s)"], id="keda",
        ),
        pytest.param(
            Claims(scaling=False, autoscalers=[HPA, OTHER]), False, "OwnersConflict",
            ["HorizontalPodAutoscaler a and HorizontalPodAutoscaler b", "delete all but one"], id="two hpas",
        ),
        pytest.param(
            Claims(scaling=True, autoscalers=[HPA]), False, "OwnersConflict",
            ["spec.scaling and HorizontalPodAutoscaler a", "refuses", "delete it, or replace spec.scaling"],
            id="hpa and scaling",
        ),
        pytest.param(
            Claims(scaling=False, autoscalers=[HPA], exchanging_route="chat"), False, "OwnersConflict",
            ["InferenceRoute chat", "policy.roles.mode Fixed, or delete HorizontalPodAutoscaler a"], id="hpa and roles",
        ),
        pytest.param(
            Claims(scaling=False, exchanging_route="chat"), True, "OwnedBySpec", ["spec.replicas"], id="roles alone",
        ),
        pytest.param(
            Claims(scaling=False, writers=[KUBECTL], fault="forbidden"), None, "OwnersUnknown", ["kubectl", "forbidden"],
            id="unreadable",
        ),
        pytest.param(
            Claims(scaling=True, fault="forbidden"), True, "OwnedByScaling", ["not known: forbidden"],
            id="unreadable with scaling",
        ),
    ],
)  # fmt: skip
def test_exactly_one_owner_or_a_conflict(claims, owned, reason, parts):
    found = ownership.decide(claims)
    assert (found.owned, found.reason) == (owned, reason)
    for part in parts:
        assert part in found.message


def test_a_target_that_counts_pods_is_of_no_use_for_a_pool_elsewhere():
    """Kubernetes multiplies a Value by the ready pods of its own cluster, where such a pool has none."""
    counting = Autoscaler("a", POOL, 1, 8, counting=("prfaas-prefill-load",))
    here = ownership.decide(Claims(scaling=False, autoscalers=[counting]))
    there = ownership.decide(Claims(scaling=False, autoscalers=[counting], elsewhere=True))
    assert "AverageValue" not in here.message
    assert "prfaas-prefill-load is of type Value" in there.message
    assert there.owned


def body(**changes):
    spec = {
        "scaleTargetRef": {"apiVersion": "prfaas.dev/v1alpha1", "kind": "PrefillPool", "name": "p"}, "maxReplicas": 8,
        "metrics": [
            {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "1"}}},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 1}}},
        ],
    }  # fmt: skip
    metadata = {"name": "a", "namespace": "t", "ownerReferences": changes.pop("owners", [])}
    return {"metadata": metadata, "spec": spec | changes}


def test_autoscalers_of_pools_are_read():
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "s"}
    assert read(body()) == Autoscaler("a", POOL, 1, 8, counting=("m",))
    assert read(body(minReplicas=0, metrics=[])) == Autoscaler("a", POOL, 0, 8)
    assert read(body(owners=[owner], metrics=[])) == Autoscaler("a", POOL, 1, 8, scaled_object="s")
    # Somebody else's kind of that name is not KEDA's.
    assert read(body(owners=[owner | {"apiVersion": "example.com/v1"}])).scaled_object is None


@pytest.mark.parametrize(
    "target",
    [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "p"},
        {"apiVersion": "example.com/v1alpha1", "kind": "PrefillPool", "name": "p"},
        {"kind": "PrefillPool", "name": "p"},
        {"apiVersion": "prfaas.dev/v1alpha1", "kind": "InferenceRoute", "name": "p"},
    ],
)
def test_autoscalers_of_others_are_not_kept(target):
    assert read(body(scaleTargetRef=target)) is None


def test_the_managers_of_replicas_set_it():
    def entry(manager, fields, **more):
        return {"manager": manager, "operation": "Update", "fieldsV1": fields, **more}

    replicas = {"f:spec": {"f:replicas": {}}}
    fields = [
        entry("keda", replicas, subresource="scale"),
        entry("argocd", replicas, time="2026-01-03T00:00:00Z"),
        entry("helm", {"f:spec": {"f:template": {}}}),
        entry("prfaas-operator", {"f:status": {"f:replicas": {}}}, subresource="status"),
        {"manager": "without-fields"},
    ]
    found = ownership.writers_of({"managedFields": fields})
    assert found == (Writer("argocd", by_scale=False), Writer("keda", by_scale=True))
    claims = Claims(scaling=False, autoscalers=[HPA], writers=found)
    assert ownership.decide(claims).message.endswith(
        "between 1 and 8; the present number was set by argocd and keda through the scale subresource"
    )
    assert ownership.writers_of({}) == ()
