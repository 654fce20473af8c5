"""What a platform team does every day: apply, scale, edit, look, delete."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import pytest

from prfaas_local.errors import LocalClusterError

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

CHILDREN = "deployments,services,serviceaccounts,configmaps,poddisruptionbudgets"
OBJECTS = "memberclusters,modelprofiles,prefillpools,decodepools,kvlinks,inferenceroutes"


def generations(system: Any) -> dict[str, Any]:
    """What says that somebody wrote: generations of objects, and resource versions of children that have no status.

    Of Deployments it is the spec without the number of replicas, which is the autoscaler's to change at any moment.
    """
    found: dict[str, Any] = {}
    for item in json.loads(system.kubectl("get", OBJECTS, "-o", "json"))["items"]:
        found[f"hub {item['kind']} {item['metadata']['name']}"] = item["metadata"]["generation"]
    for cluster in ("east", "west"):
        for item in json.loads(system.kubectl("get", CHILDREN, "-o", "json", cluster=cluster))["items"]:
            metadata = item["metadata"]
            key = f"{cluster} {item['kind']} {metadata['name']}"
            found[key] = metadata.get("generation") or metadata["resourceVersion"]
            if item["kind"] == "Deployment":
                found[key] = {name: value for name, value in item["spec"].items() if name != "replicas"}
    return found


def threshold_of_router(system: Any) -> int:
    text = system.metrics("chat-router")
    return int(
        float(next(line.split()[-1] for line in text.splitlines() if line.startswith("prfaas_router_threshold_tokens")))
    )


def test_applying_twice_changes_nothing(system: Any) -> None:
    before = generations(system)
    output = system.kubectl("apply", "-f", str(system.manifests.folder))
    assert all(line.endswith(" unchanged") for line in output.splitlines()), output
    # An edit that the operator acts on comes after whatever the first one may have caused.
    system.patch("prefillpool", "east-prefill", {"spec": {"replicas": 2}})
    system.wait(lambda: len(system.pods("east", pool="east-prefill")) == 2, "the edit")
    system.patch("prefillpool", "east-prefill", {"spec": {"replicas": 3}})
    system.wait(lambda: len(system.pods("east", pool="east-prefill")) == 3, "the edit back")
    after = generations(system)
    touched = {key for key in before if before[key] != after[key]}
    assert touched == {"hub PrefillPool east-prefill"}


def test_kubectl_scale_changes_a_pool_with_fixed_replicas(system: Any) -> None:
    system.kubectl("scale", "prefillpool/east-prefill", "--replicas=1")
    system.wait(lambda: system.get("prefillpool", "east-prefill")["status"].get("readyReplicas") == 1, "one worker")
    assert system.complete().status_code == 200
    with pytest.raises(LocalClusterError, match="replicas"):
        system.kubectl("scale", "decodepool/east-decode", "--replicas=3")
    system.patch(
        "decodepool",
        "east-decode",
        [{"op": "remove", "path": "/spec/scaling"}, {"op": "add", "path": "/spec/replicas", "value": 3}],
    )
    system.kubectl("scale", "decodepool/east-decode", "--replicas=4")
    system.wait(lambda: system.get("decodepool", "east-decode")["status"].get("readyReplicas") == 4, "four workers")
    assert system.condition("decodepool", "east-decode", "ScalingActive") == ("False", "FixedReplicas")


def test_the_category_shows_everything_with_columns(system: Any) -> None:
    text = system.kubectl("get", "prfaas")
    for item in system.manifests.objects:
        assert item["metadata"]["name"] in text
    assert "THRESHOLD" in text
    assert "UTILISATION" in text


def test_a_threshold_that_is_edited_reaches_the_router_within_a_second(system: Any, record_property: Any) -> None:
    waits_s = []
    for threshold in (1000, 2000, 3000, 4000, 5000):
        started_s = time.monotonic()
        system.patch("inferenceroute", "chat", {"spec": {"policy": {"threshold": threshold}}})
        system.wait(lambda threshold=threshold: threshold_of_router(system) == threshold, "the threshold", 15)
        waits_s.append(time.monotonic() - started_s)
    record_property("threshold_s", waits_s)
    # The time of two kubectl calls is in it.
    assert statistics.median(waits_s) <= 1.0, waits_s

    def acknowledged() -> bool:
        status = system.get("inferenceroute", "chat")["status"]
        return bool(status["thresholdTokens"] == 5000 and status["routersReady"] == "1/1")

    system.wait(acknowledged, "the status to say which routers have it")
    assert system.complete(tokens=4999).headers["x-prfaas-decision"] == "local_prefill"
    assert system.complete(tokens=5001).headers["x-prfaas-decision"] == "remote_prefill"


def test_what_somebody_edits_in_a_member_is_put_back(system: Any) -> None:
    system.kubectl("scale", "deployment/east-prefill", "--replicas=0", cluster="east")
    system.wait(lambda: system.get("deployment", "east-prefill", "east")["spec"]["replicas"] == 3, "the replicas")
    system.kubectl("delete", "service", "east-decode", cluster="east")
    system.wait(lambda: system.get("service", "east-decode", "east"), "the Service")


def test_load_makes_the_remote_side_grow(system: Any) -> None:
    """The loop is closed: workers, Prometheus, autoscaler, Deployment, pods, router."""
    # What was before may have made it grow already: begin with two.
    (pool,) = [item for item in system.manifests.of_kind("PrefillPool") if "scaling" in item["spec"]]
    fixed = [{"op": "remove", "path": "/spec/scaling"}, {"op": "add", "path": "/spec/replicas", "value": 2}]
    system.patch("prefillpool", "west-prefill", fixed)
    system.wait(lambda: len(system.pods("west", pool="west-prefill")) == 2, "two workers")
    scaled = [
        {"op": "remove", "path": "/spec/replicas"},
        {"op": "add", "path": "/spec/scaling", "value": pool["spec"]["scaling"]},
    ]
    system.patch("inferenceroute", "chat", {"spec": {"policy": {"threshold": 100}}})
    load = system.replay(600, speed=12)
    system.patch("prefillpool", "west-prefill", scaled)
    system.wait(lambda: len(system.pods("west", pool="west-prefill")) == 4, "more remote workers")
    system.wait(lambda: system.get("prefillpool", "west-prefill")["status"].get("readyReplicas") == 4, "them to serve")
    decision = system.get("prefillpool", "west-prefill")["status"]["autoscaling"]["lastDecision"]
    assert decision["reason"] in ("AboveTarget", "AtMaximum", "Stabilized", "WithinTolerance")
    outcomes = load.outcomes()
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert system.reasons(outcomes).get("uncached_above_threshold", 0) > 500


def test_a_deletion_takes_everything_along_and_can_be_undone(system: Any) -> None:
    system.kubectl("delete", "-f", str(system.manifests.folder), "--wait=true", "--timeout=60s")
    for cluster in ("east", "west"):
        system.wait(
            lambda cluster=cluster: not json.loads(
                system.kubectl("get", f"{CHILDREN},pods", "-l", "app.kubernetes.io/managed-by=prfaas", "-o", "json", cluster=cluster)
            )["items"],
            f"nothing to be left in {cluster}",
        )  # fmt: skip
    system.kubectl("apply", "-f", str(system.manifests.folder))
    system.wait(system.converged, "everything to be back")
    system.wait(lambda: system.complete().status_code == 200, "an answer")
