"""A pod of the API as the plan of a drain sees it."""

import copy
from typing import Any

import pytest

from prfaas_core.autoscaling.drain import Stage
from prfaas_operator.children.metadata import DRAINING_ANNOTATION, REVISION_LABEL
from prfaas_operator.reconcile.draining import COST_ANNOTATION, RELEASED_COST, Drain, observed
from prfaas_operator.scaling.idleness import Work

RUNNING: dict[str, Any] = {"name": "worker", "state": {"running": {}}, "started": True}
POD: dict[str, Any] = {
    "metadata": {"name": "p", "labels": {REVISION_LABEL: "new"}, "annotations": {}},
    "spec": {"nodeName": "n", "containers": [{"name": "worker"}, {"name": "router"}]},
    "status": {"phase": "Running", "containerStatuses": [RUNNING, {**RUNNING, "name": "router"}]},
}


def pod(**status: Any) -> dict[str, Any]:
    return copy.deepcopy(POD) | {"status": POD["status"] | status}


def annotated(**annotations: str) -> dict[str, Any]:
    found = copy.deepcopy(POD)
    found["metadata"]["annotations"] = annotations
    return found


@pytest.mark.parametrize(
    ("body", "stage", "started"),
    [
        (pod(conditions=[{"type": "Ready", "status": "True"}]), Stage.READY, True),
        (pod(conditions=[{"type": "Ready", "status": "False"}]), Stage.NOT_READY, True),
        (pod(), Stage.NOT_READY, True),
        # Nothing is known of the containers: it may have requests.
        (pod(containerStatuses=[]), Stage.NOT_READY, True),
        # The model is being loaded, although the router beside it is there.
        (pod(containerStatuses=[{**RUNNING, "started": False}, {**RUNNING, "name": "router"}]), Stage.NOT_READY, False),
        (pod(containerStatuses=[{"name": "worker", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
         Stage.NOT_READY, False),
        (pod(phase="Pending", containerStatuses=[]), Stage.PENDING, False),
        ({**pod(phase="Pending"), "spec": {"containers": [{"name": "worker"}]}}, Stage.UNSCHEDULED, False),
        ({**copy.deepcopy(POD), "status": {}}, Stage.PENDING, False),
    ],
    ids=["ready", "not-ready", "running", "no-containers", "loading", "crashed", "pending", "unscheduled", "new"],
)  # fmt: skip
def test_how_far_a_pod_is(body: dict[str, Any], stage: Stage, started: bool) -> None:
    found = observed(body, None, "new")
    assert (found.stage, found.started, found.outdated) == (stage, started, False)


def test_what_is_measured_is_taken_over_and_what_is_not_is_unknown() -> None:
    found = observed(POD, Work(0.5, 100.0, 30.0), "newer")
    assert (found.load, found.measured_s, found.idle_s, found.outdated) == (0.5, 100.0, 30.0, True)
    unknown = observed(POD, None, "new")
    assert (unknown.load, unknown.idle_s) == (None, None)


@pytest.mark.parametrize(
    ("mark", "marked_s"),
    [
        ("1970-01-01T00:01:40.500+00:00", 100.5),
        ("1970-01-01T01:01:40+01:00", 100.0),
        # By hand, without a zone; and what is no time at all counts as old, so that no drain lasts for ever.
        ("1970-01-01T00:01:40", 100.0),
        ("now", 0.0),
    ],
)
def test_since_when_a_pod_drains(mark: str, marked_s: float) -> None:
    assert observed(annotated(**{DRAINING_ANNOTATION: mark}), None, "new").marked_s == marked_s


def test_only_the_lowest_cost_is_a_release() -> None:
    costs = ("0", "-5", RELEASED_COST)
    assert [observed(annotated(**{COST_ANNOTATION: cost}), None, "new").released for cost in costs] == [
        False, False, True,
    ]  # fmt: skip
    assert observed(POD, None, "new").marked_s is None


def test_what_people_are_told() -> None:
    assert Drain(3).message == ""
    assert Drain(3, fault="the pods cannot be listed").message == "the pool keeps 3: the pods cannot be listed"
