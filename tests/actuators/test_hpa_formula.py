"""`prfaas_core.autoscaling.hpa` against the real controller: the same metric, and the same number after every sync."""

import itertools
import time
from dataclasses import dataclass

import pytest

from prfaas_core.autoscaling import Observed, Policy, PolicyType, Reading, Rules, Settings, SignalName, TargetType, hpa
from prfaas_operator.actuators.pool_metrics import Total, Unknown

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

DECODE = "DecodePool/east-decode"
TARGET = 10.0
MIN_REPLICAS, MAX_REPLICAS = 1, 12
UP = Rules(0, policies=(Policy(PolicyType.PODS, 3, 4),))
DOWN = Rules(4, policies=(Policy(PolicyType.PERCENT, 50, 3), Policy(PolicyType.PODS, 1, 3)))

# Requests, and for how many syncs: within the tolerance, a step that the policy cuts, a dip that the window hides, a fall that
# the window delays and the policies cut, a gap, and more than the maximum.
SERIES = ((21, 2), (75, 5), (30, 2), (75, 2), (22, 9), (None, 3), (400, 5))

# The controller looks at its clock later than it asks for the metric, and remembers a change later still.
LATE_S = (0.0, 0.3, -0.3)


@dataclass(frozen=True)
class Sync:
    """One sync of the controller: when it asked for the metric, what it was told, and what there was."""

    at_s: float
    value: float | None
    replicas: int
    pods: int


def rules(found: Rules) -> dict[str, object]:
    policies = [
        {"type": policy.type.value, "value": policy.value, "periodSeconds": int(policy.period_s)}
        for policy in found.policies
    ]
    return {"stabilizationWindowSeconds": int(found.window_s), "policies": policies, "selectPolicy": found.select.value}


def recorded(tenant, metrics_api) -> list[Sync]:
    """Play the series to the real controller and return its syncs."""
    values, found = metrics_api.values, []
    left = [value for value, syncs in SERIES for _ in range(syncs)]

    def told(value):
        number = Unknown("SignalMissing", "a gap") if value is None else float(value)
        values.set(tenant.namespace, SignalName.DECODE_REQUESTS, number)

    def asked(pool, answer):
        if pool.namespace != tenant.namespace:
            return
        # The controller has read the scale subresource a moment ago, and writes only after it has the answer.
        body = tenant.get(DECODE)
        value = answer.value if isinstance(answer, Total) else None
        found.append(Sync(time.monotonic(), value, body["spec"]["replicas"], body["status"]["replicas"]))
        if left:
            told(left.pop(0))

    told(left.pop(0))
    values.on_read = asked
    metric = {"name": "prfaas-decode-requests", "selector": {"matchLabels": {"pool": "east-decode"}}}
    tenant.apply(
        {
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "formula"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "prfaas.dev/v1alpha1", "kind": "DecodePool", "name": "east-decode"},
                "minReplicas": MIN_REPLICAS, "maxReplicas": MAX_REPLICAS,
                "behavior": {"scaleUp": rules(UP), "scaleDown": rules(DOWN)},
                "metrics": [
                    {"type": "External",
                     "external": {"metric": metric, "target": {"type": "AverageValue", "averageValue": f"{TARGET:g}"}}}
                ],
            },
        }
    )  # fmt: skip
    try:
        tenant.wait(lambda: len(found) > sum(syncs for _, syncs in SERIES), "the whole series", 60)
    finally:
        values.on_read = None
    return found


@pytest.fixture
def syncs(tenant, metrics_api):
    """Return what the controller did with the series."""
    tenant.wait(lambda: tenant.get(DECODE).get("status", {}).get("replicas") == 2, "two workers")
    metrics_api.store.observe(tenant.get(DECODE))
    return recorded(tenant, metrics_api)


def test_the_formula_sets_what_the_controller_sets(syncs):
    """Each sync starts from what the controller really saw, so that one difference does not hide the next."""
    settings = Settings(min_replicas=MIN_REPLICAS, max_replicas=MAX_REPLICAS, up=UP, down=DOWN, period_s=1)
    history = hpa.HpaHistory()
    story, at_once = [], 0
    for now, after in itertools.pairwise(syncs):
        reading = Reading("requests", TARGET, TargetType.AVERAGE_VALUE, now.value)
        observed = Observed(now.replicas, now.replicas, (reading,))
        decisions = [
            hpa.sync(observed, settings, history, now.at_s + late_s, status_replicas=now.pods) for late_s in LATE_S
        ]
        story.append(f"{now} {[decision.replicas for decision in decisions]} {after.replicas}")
        matching = [decision for decision in decisions if decision.replicas == after.replicas]
        assert matching, "\n".join(story)
        at_once += matching[0] is decisions[0]
        history = matching[0].history
    # A window that ends between the metric and the decision is rare.
    assert at_once >= len(story) - 3, "\n".join(story)
    # The series meets the policies both ways; a controller that did nothing would prove nothing.
    found = [sync.replicas for sync in syncs]
    assert max(found) > 6, found
    assert min(found[found.index(max(found)) :]) < 5, found
