"""Statuses as functions of what was observed."""

from datetime import UTC, datetime, timedelta

import pytest

from prfaas_core.link_capacity import Belief, LinkState
from prfaas_operator.actuators.ownership import Ownership
from prfaas_operator.api.conditions import ConditionType, Reason
from prfaas_operator.api.kv_link import Bandwidth
from prfaas_operator.clusters.member import Health
from prfaas_operator.objects import read
from prfaas_operator.reconcile.clusters import cluster_status
from prfaas_operator.reconcile.links import link_status
from prfaas_operator.reconcile.pools import Fault, Observation, pool_status
from prfaas_operator.scaling.links import Reading
from prfaas_operator.status import status_patch


def body(kind, spec, status=None, generation=3):
    return {
        "apiVersion": "prfaas.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "x", "namespace": "t", "uid": "u", "resourceVersion": "5", "generation": generation},
        "spec": spec, "status": status or {},
    }  # fmt: skip


def pool(status=None):
    spec = {
        "clusterRef": {"name": "c"}, "profileRef": {"name": "p"}, "replicas": 2,
        "template": {"spec": {"containers": [{"name": "w", "image": "i"}]}},
    }  # fmt: skip
    return read(body("PrefillPool", spec, status))


def deployment(*, replicas=2, ready=2, updated=2, generation=1, observed=1, progressing="True"):
    return {
        "metadata": {"generation": generation},
        "status": {
            "replicas": replicas, "readyReplicas": ready, "updatedReplicas": updated, "observedGeneration": observed,
            "conditions": [{"type": "Progressing", "status": progressing}],
        },
    }  # fmt: skip


OWNED = Ownership(True, Reason.OWNED_BY_SPEC, "spec.replicas")


def seen(deployment=None, fault=None, desired=2):
    return Observation(desired, "rev", deployment, None, fault, None, OWNED)


AWAY = Fault(Reason.CLUSTER_UNREACHABLE, "no answer", stalled=False)


@pytest.mark.parametrize(
    ("observation", "ready", "reason", "reconciling", "stalled"),
    [
        (seen(deployment()), "True", "Available", "False", "False"),
        (seen(deployment(replicas=0, ready=0, updated=0), desired=0), "True", "ScaledToZero", "False", "False"),
        (seen(None), "False", "Progressing", "True", "False"),
        (seen(deployment(ready=1)), "False", "ReplicasUnavailable", "True", "False"),
        (seen(deployment(updated=1)), "False", "RollingOut", "True", "False"),
        (seen(deployment(replicas=3)), "False", "RollingOut", "True", "False"),
        (seen(deployment(generation=2)), "False", "RollingOut", "True", "False"),
        (seen(deployment(ready=1, progressing="False")), "False", "RolloutStalled", "False", "True"),
        (seen(deployment(), fault=AWAY), "Unknown", "ClusterUnreachable", "True", "False"),
        (seen(None, fault=Fault(Reason.PROFILE_NOT_FOUND, "m", stalled=True)), "False", "ProfileNotFound", "False", "True"),
    ],
)  # fmt: skip
def test_conditions_of_a_pool(observation, ready, reason, reconciling, stalled):
    """Ready, Reconciling and Stalled for everything that can be seen of a pool."""
    stored = pool()
    status = pool_status(stored, stored.model, observation)
    found = {condition.type: condition for condition in status.conditions}
    assert (found["Ready"].status, found["Ready"].reason) == (ready, reason)
    assert (found["Reconciling"].status, found["Stalled"].status) == (reconciling, stalled)
    assert status.observed_generation == 3
    assert {condition.observed_generation for condition in status.conditions} == {3}


def test_numbers_that_cannot_be_seen_stay():
    """A cluster that does not answer is no reason to report zero workers."""
    stored = pool({"replicas": 4, "readyReplicas": 3, "updatedReplicas": 4, "revision": "old", "desiredReplicas": 4})
    status = pool_status(stored, stored.model, Observation(None, None, None, None, AWAY, None, OWNED))
    assert (status.replicas, status.ready_replicas, status.updated_replicas) == (4, 3, 4)
    assert (status.revision, status.desired_replicas) == ("old", 4)


def test_the_same_observation_writes_nothing():
    """A status is written when it says something new; the time of a condition is that of its last change."""
    stored = pool()
    first = pool_status(stored, stored.model, seen(deployment())).as_object(exclude_unset=False)
    again = pool(first)
    assert status_patch(first, pool_status(again, again.model, seen(deployment()))) is None
    changed = status_patch(first, pool_status(again, again.model, seen(deployment(ready=1))))
    assert changed["readyReplicas"] == 1


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        ({}, {"replicas": 1}, {"replicas": 1, "conditions": []}),
        ({"replicas": 1, "conditions": []}, {"replicas": 1}, None),
        ({"replicas": 1, "ghost": 2, "conditions": []}, {"replicas": 1}, {"ghost": None}),
        ({"replicas": 1, "conditions": []}, {}, {"replicas": None}),
        (
            {
                "conditions": [],
                "autoscaling": {"signals": [], "decisions": [], "periodSeconds": 3.0, "desiredReplicas": 2},
            },
            {"autoscaling": {"periodSeconds": 5.0}},
            {"autoscaling": {"periodSeconds": 5.0, "desiredReplicas": None}},
        ),
    ],
)
def test_status_patches(before, after, patch):
    """The patch turns what is there into what should be, and removes what should not."""
    from prfaas_operator.api import PoolStatus

    assert status_patch(before, PoolStatus.read(after)) == patch


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def cluster(status=None):
    return read(body("MemberCluster", {"hub": True}, status))


@pytest.mark.parametrize(
    ("health", "reachable", "reason", "stalled"),
    [
        (Health(None, Reason.PENDING, "m"), "Unknown", "Pending", "False"),
        (Health(True, Reason.PROBE_SUCCEEDED, "m", "v1.36.0", NOW, NOW), "True", "ProbeSucceeded", "False"),
        (Health(False, Reason.PROBE_FAILED, "m", "", NOW), "False", "ProbeFailed", "False"),
        (Health(False, Reason.KUBECONFIG_INVALID, "m", "", NOW), "False", "KubeconfigInvalid", "True"),
        (Health(False, Reason.CREDENTIALS_REFUSED, "m", "", NOW), "False", "CredentialsRefused", "True"),
    ],
)
def test_conditions_of_a_cluster(health, reachable, reason, stalled):
    """A cluster that is away comes back by itself; one whose credentials are refused needs somebody."""
    stored = cluster()
    status = cluster_status(stored, stored.model, health, 60)
    found = {condition.type: condition for condition in status.conditions}
    assert (found["Reachable"].status, found["Reachable"].reason) == (reachable, reason)
    assert found["Stalled"].status == stalled


def test_probe_time_is_written_now_and_then():
    """A probe every few seconds does not write the object every few seconds."""

    def at(seconds, before, reachable=True):
        stored = cluster(before)
        health = Health(reachable, Reason.PROBE_SUCCEEDED, "m", "v1", NOW + timedelta(seconds=seconds))
        return cluster_status(stored, stored.model, health, 60)

    first = at(0, {}).as_object(exclude_unset=False)
    assert status_patch(first, at(59, first)) is None
    assert at(61, first).last_probe_time == NOW + timedelta(seconds=61)
    assert at(5, first, reachable=False).last_probe_time == NOW + timedelta(seconds=5)


TRUSTED = Belief(LinkState.UNMEASURED, 5e9, None, 0)


def link(status=None):
    spec = {
        "fromClusterRef": {"name": "a"}, "toClusterRef": {"name": "b"}, "capacityGbps": 10, "share": 0.5, "costPerGB": 2,
    }  # fmt: skip
    return read(body("KVLink", spec, status))


@pytest.mark.parametrize(
    ("before", "used_gbps", "bandwidth"),
    [
        (None, 1.0, Bandwidth.ABUNDANT), (None, 4.0, Bandwidth.SCARCE),
        ("Abundant", 3.9, Bandwidth.ABUNDANT), ("Abundant", 4.0, Bandwidth.SCARCE),
        ("Scarce", 3.1, Bandwidth.SCARCE), ("Scarce", 2.9, Bandwidth.ABUNDANT),
        ("Scarce", None, Bandwidth.SCARCE), ("Abundant", None, Bandwidth.ABUNDANT),
    ],
)  # fmt: skip
def test_scarcity_has_two_thresholds(before, used_gbps, bandwidth):
    """Scarce from 80 per cent of the share, abundant below 60, and as before in between or when nothing is known."""
    stored = link({"bandwidth": before} if before else {})
    reading = (
        Reading(None, 0, Reason.SIGNAL_MISSING, "m")
        if used_gbps is None
        else Reading(used_gbps * 1e9, 10**10, None, "")
    )
    status = link_status(stored, stored.model, [], reading, TRUSTED)
    assert status.bandwidth is bandwidth
    if used_gbps is not None:
        assert status.utilisation == pytest.approx(used_gbps / 5)
        assert status.cost_total == 20


def test_a_link_that_is_slower_than_its_spec_is_scarce_earlier():
    """What is used counts against what the link really carries."""
    stored = link({"bandwidth": "Abundant"})
    reading = Reading(1e9, 0, None, "")
    status = link_status(stored, stored.model, [], reading, Belief(LinkState.SLOW, 0.9e9, 1e9, 0))
    assert status.bandwidth is Bandwidth.SCARCE
    assert status.utilisation == pytest.approx(1 / 0.9, rel=1e-3)
    assert (status.capacity.state, status.capacity.usable_bps) == (LinkState.SLOW, 0.9e9)
    assert status.capacity.message == "routers measure 1 Gbit/s where 5 Gbit/s may be used; plans use 900 Mbit/s"


def test_the_figure_of_a_link_that_is_not_slow_is_seldom_written():
    """It comes from few and small transfers, and wavers."""
    status = link_status(link(), link().model, [], None, Belief(LinkState.NOMINAL, 5e9, 8e9, 0))
    before = link(status.as_object(exclude_unset=False))
    for measured_bps, written in ((6e9, False), (15e9, False), (17e9, True), (3.9e9, True)):
        after = link_status(before, before.model, [], None, Belief(LinkState.NOMINAL, 5e9, measured_bps, 0))
        assert (status_patch(before.body["status"], after) is not None) is written


def test_a_link_without_its_clusters():
    """A link whose ends do not exist cannot be ready."""
    stored = link()
    status = link_status(stored, stored.model, ["a"], None, TRUSTED)
    ready = status.condition(ConditionType.READY)
    assert (ready.status, ready.reason) == ("False", "ClusterNotFound")
