"""The HorizontalPodAutoscaler's algorithm as its documentation states it, and as its controller fills the gaps."""

import math

import pytest

from prfaas_core.autoscaling import (
    Observed,
    Policy,
    PolicyType,
    Reading,
    Rules,
    ScalingReason,
    SelectPolicy,
    Settings,
    TargetType,
    hpa,
)

SETTINGS = Settings(min_replicas=1, max_replicas=100, up=Rules(0.0), down=Rules(0.0))


def mean(value, target=2.0, **changes):
    return Reading("Wait", target, TargetType.VALUE, value, **changes)


def total(value, target=2.0, **changes):
    return Reading("Work", target, TargetType.AVERAGE_VALUE, value, **changes)


CASES = {
    "the documentation's 200m at 100m doubles": (Observed(3, 3, (mean(0.2, 0.1),)), 6),
    "the documentation's 50m at 100m halves": (Observed(4, 4, (mean(0.05, 0.1),)), 2),
    "rounded up": (Observed(3, 3, (mean(2.3),)), 4),
    "within a tenth": (Observed(3, 3, (mean(2.2),)), 3),
    "a total": (Observed(2, 2, (total(9.0),)), 5),
    "a total within a tenth": (Observed(4, 4, (total(8.8),)), 4),
    "thousandths, rounded up": (Observed(1, 1, (total(2.2004, 1.0),)), 3),
    "the largest of several": (Observed(2, 2, (mean(3.0), total(9.0))), 5),
    "one is missing and the rest asks for more": (Observed(2, 2, (mean(None), total(9.0))), 5),
    "one is missing and the rest asks for less": (Observed(6, 6, (mean(None), total(2.0))), 6),
    "all are missing": (Observed(6, 6, (mean(None), total(math.nan))), 6),
    "no metrics": (Observed(6, 6, ()), 6),
    "an old value counts": (Observed(2, 2, (total(9.0, age_s=1e6),)), 5),
    "only ready pods count for a mean": (Observed(10, 2, (mean(4.0),)), 4),
    "a mean over no ready pods": (Observed(10, 0, (mean(4.0),)), 1),
    "at the maximum": (Observed(50, 50, (mean(9.0),)), 100),
    "above the maximum, whatever metrics say": (Observed(120, 120, (mean(9.0),)), 100),
    "at the minimum": (Observed(4, 4, (mean(0.0),)), 1),
    "at no replicas it is switched off": (Observed(0, 0, (total(9.0),)), 0),
}


@pytest.mark.parametrize(("observed", "replicas"), CASES.values(), ids=CASES.keys())
def test_a_case(observed, replicas):
    assert hpa.sync(observed, SETTINGS, hpa.HpaHistory(), 0.0).replicas == replicas


class Workload:
    def __init__(self, replicas, settings, **options):
        self.replicas, self.settings, self.options = replicas, settings, options
        self.history = hpa.HpaHistory()

    def sync(self, now_s, *readings):
        decision = hpa.sync(
            Observed(self.replicas, self.replicas, readings), self.settings, self.history, now_s, **self.options
        )
        assert decision.next_look_s == now_s + 15
        self.replicas, self.history = decision.replicas, decision.history
        return self.replicas


def test_with_default_behavior_it_grows_by_the_larger_of_four_and_double_each_quarter_of_a_minute():
    workload = Workload(1, Settings(1, 100))
    assert [workload.sync(now_s, total(200)) for now_s in (0, 15, 30, 45, 60)] == [5, 10, 20, 40, 80]


def test_without_behavior_it_grows_to_the_larger_of_four_and_double():
    workload = Workload(1, Settings(1, 100), behavior=False)
    assert [workload.sync(now_s, total(200)) for now_s in (0, 15, 30, 45, 60)] == [4, 8, 16, 32, 64]


@pytest.mark.parametrize("behavior", [True, False])
def test_it_shrinks_to_the_highest_recommendation_of_five_minutes(behavior):
    workload = Workload(4, Settings(1, 100), behavior=behavior)
    assert workload.sync(0, total(8)) == 4
    assert workload.sync(150, total(4)) == 4
    assert workload.sync(285, total(2)) == 4
    assert workload.sync(315, total(2)) == 2
    assert workload.sync(465, total(2)) == 1


def test_the_documentations_ten_per_cent_a_minute():
    """80 pods, 10 per cent a minute and 4 pods a minute: 72, 65 ..., until four are more than a tenth."""
    policies = (Policy(PolicyType.PODS, 4, 60), Policy(PolicyType.PERCENT, 10, 60))
    workload = Workload(80, Settings(1, 100, down=Rules(0, policies=policies)))
    workload.sync(0, total(160))
    assert [workload.sync(60 * minute, total(20)) for minute in (1, 2, 3, 4, 5, 6, 7)] == [72, 64, 57, 51, 45, 40, 36]
    assert [workload.sync(60 * minute, total(20)) for minute in (8, 9)] == [32, 28]


def test_the_smallest_policy_and_none():
    policies = (Policy(PolicyType.PODS, 5, 60), Policy(PolicyType.PERCENT, 10, 60))
    for select, after in ((SelectPolicy.MIN, 75), (SelectPolicy.DISABLED, 80)):
        workload = Workload(80, Settings(1, 100, down=Rules(0, select=select, policies=policies)))
        workload.sync(0, total(160))
        assert workload.sync(60, total(2)) == after


def test_a_fault_is_a_missing_metric():
    fault = mean(None, fault=ScalingReason.PROMETHEUS_TIMEOUT)
    decision = hpa.sync(Observed(4, 4, (fault,)), SETTINGS, hpa.HpaHistory(), 0.0)
    assert (decision.replicas, decision.wanted) == (4, None)
