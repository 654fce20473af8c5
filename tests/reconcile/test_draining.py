"""Workers drain before they go: on a real API server, with the real ReplicaSet controller to delete them."""

import time
from datetime import UTC, datetime

import pytest

from prfaas_local.testing import wait
from prfaas_operator.children.metadata import DRAINING_ANNOTATION, SERVING_LABEL
from prfaas_operator.reconcile.draining import COST_ANNOTATION

pytestmark = pytest.mark.cluster

BASE = ("MemberCluster/east", "ModelProfile/case-study-h20")
POOL, DEPLOYMENT, PODS = "PrefillPool/east-prefill", "Deployment/east-prefill", "prfaas.dev/pool=east-prefill"


def replicas(number):
    return lambda found: found["spec"]["replicas"] == number


def names(pods):
    return [pod["metadata"]["name"] for pod in sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])]


class Drained:
    """A tenant with a pool of three workers that are ready and busy."""

    def __init__(self, tenant, prometheus, timeout_s):
        self.tenant, self.prometheus = tenant, prometheus
        pool = tenant.body(POOL)
        pool["spec"] |= {"replicas": 3, "drain": {"timeoutSeconds": timeout_s}}
        tenant.apply(*BASE, pool)
        self.names = names(tenant.set_ready(PODS, 3))
        tenant.wait_reason(POOL, "Ready", "Available")
        prometheus.load |= dict.fromkeys(self.names, 5.0)

    def scale(self, number):
        self.tenant.merge(POOL, {"spec": {"replicas": number}})

    def is_idle(self, name, idle_s=600.0):
        self.prometheus.load.pop(name)
        self.prometheus.idle_s[name] = idle_s

    def marks(self):
        """Return the annotations of a drain, by pod."""
        found = {}
        for pod in self.tenant.pods(PODS):
            annotations = pod["metadata"].get("annotations") or {}
            kept = {key: annotations[key] for key in (DRAINING_ANNOTATION, COST_ANNOTATION) if key in annotations}
            if kept:
                found[pod["metadata"]["name"]] = kept
        return found

    def wait_marked(self, *expected):
        end_s = time.monotonic() + 60
        while self.marks().keys() != set(expected):
            assert time.monotonic() < end_s, (self.marks(), expected, self.prometheus.load)
            time.sleep(0.02)

    def wait_pods(self, *expected):
        end_s = time.monotonic() + 60
        while set(names(self.tenant.pods(PODS))) != set(expected):
            assert time.monotonic() < end_s, (names(self.tenant.pods(PODS)), expected, self.marks())
            time.sleep(0.02)


@pytest.fixture
def pool(tenant, prometheus, request):
    """Workers that may take five minutes to drain, or as many seconds as the test's parameter says."""
    return Drained(tenant, prometheus, getattr(request, "param", 300))


def test_exactly_the_one_that_was_idle_for_longest_goes(pool):
    """The first that was made, although the controller by itself takes the last."""
    first, second, third = pool.names
    pool.is_idle(second, 30.0)
    pool.is_idle(first, 300.0)
    pool.scale(2)
    pool.wait_marked(first)
    assert pool.tenant.get(DEPLOYMENT)["spec"]["replicas"] == 3
    pool.wait_pods(second, third)
    pool.tenant.wait(DEPLOYMENT, replicas(2), "has two replicas")
    pool.tenant.wait_reason(POOL, "Ready", "Available")
    assert pool.marks() == {}


def test_a_busy_one_gets_no_work_and_stays_until_it_is_idle(pool, operator):
    """The idle one goes meanwhile; the status says who is waited for, and counts only those that one can rely on."""
    first, second, third = pool.names
    pool.is_idle(third)
    pool.prometheus.load[first] = 1.0
    pool.scale(1)
    pool.wait_marked(first, third)
    pool.wait_pods(first, second)
    pool.tenant.wait(DEPLOYMENT, replicas(2), "falls by the one that went")
    found = pool.tenant.wait_reason(POOL, "Ready", "Draining", "1 worker is ready; 1 worker drains, until ")
    assert found["status"] == "True"
    assert pool.tenant.condition(POOL, "Reconciling")["status"] == "True"
    numbers = {"replicas": 2, "readyReplicas": 1, "desiredReplicas": 1}
    pool.tenant.wait(POOL, lambda found: numbers.items() <= found["status"].items(), f"has {numbers}")
    wait(lambda: operator.metric("prfaas_operator_draining_workers") == 1, "one worker drains")

    # A new operator finds the mark, and goes on.
    began = pool.marks()[first][DRAINING_ANNOTATION]
    operator.kill()
    operator.start()
    pool.tenant.wait_reason(POOL, "Ready", "Draining")
    assert pool.marks()[first][DRAINING_ANNOTATION] == began
    pool.is_idle(first)
    pool.wait_pods(second)
    pool.tenant.wait_reason(POOL, "Ready", "Available")
    assert pool.marks() == {}
    wait(lambda: operator.metric("prfaas_operator_draining_workers") == 0, "none drains")


def test_growing_again_takes_marks_back_and_nobody_goes(pool):
    first, _, third = pool.names
    pool.prometheus.load |= {first: 1.0, third: 2.0}
    pool.scale(1)
    pool.wait_marked(first, third)
    pool.scale(2)
    pool.wait_marked(first)
    pool.scale(3)
    pool.wait_marked()
    pool.tenant.wait_reason(POOL, "Ready", "Available")
    assert names(pool.tenant.pods(PODS)) == pool.names
    assert pool.tenant.get(DEPLOYMENT)["spec"]["replicas"] == 3


@pytest.mark.parametrize("pool", [3], indirect=True)
@pytest.mark.parametrize("known", [True, False])
def test_a_drain_has_an_end(pool, known):
    """Busy for ever, or not known: after the time of a drain the worker goes, and an event says so."""
    pool.prometheus.knows_pods = known
    pool.scale(2)
    message = pool.tenant.wait_reason(POOL, "Ready", "Draining", "" if known else "Prometheus knows none")["message"]
    assert ("Prometheus knows none of the workers" in message) is not known
    (mark,) = pool.marks().values()
    pool.tenant.wait(DEPLOYMENT, replicas(2), "falls")
    # The time of the mark has milliseconds.
    assert (datetime.now(UTC) - datetime.fromisoformat(mark[DRAINING_ANNOTATION])).total_seconds() >= 2.99
    pool.tenant.wait(
        POOL,
        lambda _: any(
            event["reason"] == "DrainTimedOut" for event in pool.tenant.client.list("Event", pool.tenant.namespace)
        ),
        "the event",
    )


def test_what_is_not_ready_goes_at_once(pool):
    """A worker that starts has nothing to finish, whatever is known of the others."""
    pool.prometheus.knows_pods = False
    pool.scale(4)
    pool.tenant.wait(DEPLOYMENT, replicas(4), "grows")
    pool.tenant.wait(POOL, lambda _: len(pool.tenant.pods(PODS)) == 4, "has a pod that starts")
    pool.scale(3)
    pool.wait_pods(*pool.names)
    assert pool.marks() == {}
    assert pool.tenant.get(DEPLOYMENT)["spec"]["replicas"] == 3


def test_a_rollout_goes_on_while_workers_drain(pool):
    """It takes those first that drain; in the end there are as many as asked for, all of the new template."""
    pool.scale(2)
    pool.tenant.wait_reason(POOL, "Ready", "Draining")
    (marked,) = pool.marks()
    template = pool.tenant.get(POOL)["spec"]["template"]
    template["spec"]["containers"][0]["env"] = [{"name": "NEW", "value": "1"}]
    pool.tenant.merge(POOL, {"spec": {"template": template}})
    pool.tenant.wait_reason(POOL, "Ready", "RollingOut")
    pool.prometheus.load.clear()
    revision, gone_first, seen = pool.tenant.get(POOL)["status"]["revision"], None, set(pool.names)
    end_s = time.monotonic() + 60
    while True:
        pods = pool.tenant.pods(PODS)
        there = set(names(pods))
        if gone_first is None and not set(pool.names) <= there:
            gone_first = set(pool.names) - there
        pool.tenant.report_ready([pod for pod in pods if pod["metadata"]["name"] not in seen])
        seen |= there
        done = len(pods) == 2 and all(pod["metadata"]["labels"]["prfaas.dev/revision"] == revision for pod in pods)
        if done and pool.tenant.condition(POOL, "Ready").get("reason") == "Available":
            break
        assert time.monotonic() < end_s, (there, pool.marks(), pool.tenant.get(POOL)["status"])
        time.sleep(0.05)
    assert gone_first == {marked}
    assert pool.marks() == {}
    assert pool.tenant.get(DEPLOYMENT)["spec"]["replicas"] == 2


def test_a_pool_that_is_deleted_goes_at_once(pool):
    pool.scale(1)
    pool.tenant.wait_reason(POOL, "Ready", "Draining")
    pool.tenant.delete(POOL)
    pool.tenant.wait_gone(POOL)
    assert pool.tenant.get(DEPLOYMENT) is None


def test_clients_are_led_away_from_a_router_beside_a_worker_that_drains(tenant, prometheus):
    """Its Service selects the decode pods that do not drain."""
    decode, route = tenant.body("DecodePool/east-decode"), tenant.body("InferenceRoute/chat")
    del decode["spec"]["scaling"]
    decode["spec"]["replicas"] = 2
    route["spec"]["router"]["placement"] = "Sidecar"
    for unused in ("localPrefillPoolRef", "remotePrefillPoolRefs"):
        route["spec"].pop(unused)
    tenant.apply(*BASE, decode, route)
    pods = "prfaas.dev/pool=east-decode"
    first, second = names(tenant.set_ready(pods, 2))
    prometheus.load |= {first: 1.0, second: 9.0}
    selector = {"prfaas.dev/pool": "east-decode", "prfaas.dev/role": "decode", SERVING_LABEL: "true"}
    tenant.wait("Service/chat-router", lambda found: found["spec"]["selector"] == selector, "selects by the label")

    def selected():
        labels = ",".join(f"{key}={value}" for key, value in selector.items())
        return set(names(tenant.pods(labels)))

    assert selected() == {first, second}
    tenant.merge("DecodePool/east-decode", {"spec": {"replicas": 1}})
    tenant.wait("DecodePool/east-decode", lambda _: selected() == {second}, "leads away from the one that drains")
    assert set(names(tenant.pods(pods))) == {first, second}
    tenant.merge("DecodePool/east-decode", {"spec": {"replicas": 2}})
    tenant.wait("DecodePool/east-decode", lambda _: selected() == {first, second}, "leads to both again")
