"""What a pool is sized to: HPA's arithmetic, several signals, bursts, sleep, floors and ceilings, and holding on bad data."""

import math
from dataclasses import replace

import pytest

from prfaas_core import errors
from prfaas_core.autoscaling import (
    Ceiling,
    Floor,
    History,
    Observed,
    Panic,
    Policy,
    PolicyType,
    Reading,
    Rules,
    ScalingReason,
    SelectPolicy,
    Settings,
    TargetType,
    decide,
)

AT_ONCE = Rules(0.0)
SETTINGS = Settings(min_replicas=1, max_replicas=10, up=AT_ONCE, down=AT_ONCE)


def mean(value, target=2.0, **changes):
    return Reading("Wait", target, TargetType.VALUE, value, **changes)


def total(value, target=2.0, **changes):
    return Reading("Work", target, TargetType.AVERAGE_VALUE, value, work=True, **changes)


def seen(replicas, *readings, ready=None, **changes):
    return Observed(replicas, replicas if ready is None else ready, readings, **changes)


CASES = {
    "on target": (seen(3, mean(2.0)), 3, ScalingReason.WITHIN_TOLERANCE),
    "within tolerance": (seen(3, mean(2.19)), 3, ScalingReason.WITHIN_TOLERANCE),
    "above": (seen(2, mean(3.0)), 3, ScalingReason.ABOVE_TARGET),
    "far above stops at the maximum": (seen(4, mean(20.0)), 10, ScalingReason.AT_MAXIMUM),
    "below": (seen(4, mean(1.0)), 2, ScalingReason.BELOW_TARGET),
    "nothing to do stops at the minimum": (seen(4, mean(0.0)), 1, ScalingReason.AT_MINIMUM),
    "a total is divided by its target": (seen(2, total(9.0)), 5, ScalingReason.ABOVE_TARGET),
    "a total does not care who is ready": (seen(2, total(9.0), ready=0), 5, ScalingReason.ABOVE_TARGET),
    "a total within tolerance": (seen(4, total(8.5)), 4, ScalingReason.WITHIN_TOLERANCE),
    "before the first pod serves nothing is missing": (seen(2, total(None), ready=0), 2, ScalingReason.WAITING_FOR_PODS),
    "a mean over no pods is none": (seen(2, mean(5.0), ready=0), 2, ScalingReason.WAITING_FOR_PODS),
    "the highest of two wins upward": (seen(2, mean(3.0), total(9.0)), 5, ScalingReason.ABOVE_TARGET),
    "both must agree downward": (seen(4, mean(1.0), total(6.0)), 3, ScalingReason.BELOW_TARGET),
    "one that disagrees keeps all": (seen(4, mean(2.0), total(2.0)), 4, ScalingReason.WITHIN_TOLERANCE),
    "a guard keeps what the work needs": (seen(4, mean(0.0), total(6.0, guard=True)), 3, ScalingReason.BELOW_TARGET),
    "a guard does not let it grow": (seen(4, mean(2.0), total(60.0, guard=True)), 4, ScalingReason.WITHIN_TOLERANCE),
    "a signal that fails keeps all": (seen(4, mean(None), total(2.0)), 4, ScalingReason.SIGNAL_MISSING),
    "a signal that fails stops no growth": (seen(2, mean(None), total(9.0)), 5, ScalingReason.ABOVE_TARGET),
    "missing": (seen(3, mean(None)), 3, ScalingReason.SIGNAL_MISSING),
    "no signals": (seen(3), 3, ScalingReason.SIGNAL_MISSING),
    "a guard alone": (seen(3, total(0.0, guard=True)), 3, ScalingReason.SIGNAL_MISSING),
    "not a number": (seen(3, mean(math.nan)), 3, ScalingReason.SIGNAL_INVALID),
    "infinite": (seen(3, mean(math.inf)), 3, ScalingReason.SIGNAL_INVALID),
    "negative": (seen(3, total(-1.0)), 3, ScalingReason.SIGNAL_INVALID),
    "stale": (seen(3, mean(9.0, age_s=61)), 3, ScalingReason.SIGNAL_STALE),
    "from the future": (seen(3, mean(9.0, age_s=-1)), 3, ScalingReason.SIGNAL_STALE),
    "a fault with a name": (
        seen(3, mean(None, fault=ScalingReason.PROMETHEUS_THROTTLED)), 3, ScalingReason.PROMETHEUS_THROTTLED,
    ),
    "a hold keeps the bounds": (seen(20, mean(None)), 10, ScalingReason.SIGNAL_MISSING),
    "a floor": (seen(3, mean(2.0), floors=(Floor(6, ScalingReason.SCHEDULED_FLOOR),)), 6, ScalingReason.SCHEDULED_FLOOR),
    "the highest floor": (
        seen(3, mean(2.0), floors=(Floor(6, ScalingReason.SCHEDULED_FLOOR), Floor(7, ScalingReason.FORECAST_FLOOR))),
        7, ScalingReason.FORECAST_FLOOR,
    ),
    "a floor above the maximum": (
        seen(3, mean(2.0), floors=(Floor(60, ScalingReason.SCHEDULED_FLOOR),)), 10, ScalingReason.AT_MAXIMUM,
    ),
    "a floor holds without signals": (
        seen(3, mean(None), floors=(Floor(6, ScalingReason.SCHEDULED_FLOOR),)), 6, ScalingReason.SCHEDULED_FLOOR,
    ),
    "a ceiling stops growth": (
        seen(3, mean(4.0), ceilings=(Ceiling(2, ScalingReason.LINK_CEILING),)), 3, ScalingReason.LINK_CEILING,
    ),
    "a hard ceiling takes away": (
        seen(5, mean(2.0), ceilings=(Ceiling(2, ScalingReason.BUDGET_CEILING, hard=True),)),
        2, ScalingReason.BUDGET_CEILING,
    ),
    "no ceiling goes below the minimum": (
        seen(5, mean(2.0), ceilings=(Ceiling(0, ScalingReason.BUDGET_CEILING, hard=True),)),
        1, ScalingReason.BUDGET_CEILING,
    ),
    "a ceiling is above a floor": (
        seen(
            2, mean(2.0), floors=(Floor(6, ScalingReason.SCHEDULED_FLOOR),),
            ceilings=(Ceiling(4, ScalingReason.BUDGET_CEILING, hard=True),),
        ),
        4, ScalingReason.BUDGET_CEILING,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("observed", "replicas", "reason"), CASES.values(), ids=CASES.keys())
def test_a_case(observed, replicas, reason):
    decision = decide(observed, SETTINGS, History(), now_s=0.0)
    assert (decision.replicas, decision.reason) == (replicas, reason)
    assert decision.next_look_s == SETTINGS.period_s
    assert [proposal.name for proposal in decision.proposals] == [reading.name for reading in observed.readings]


class Pool:
    """A pool whose pods are ready as soon as they are asked for, unless the test says otherwise."""

    def __init__(self, replicas, **changes):
        self.settings = replace(SETTINGS, **changes)
        self.replicas = replicas
        self.history = History()

    def look(self, now_s, *readings, ready=None, **changes):
        observed = seen(self.replicas, *readings, ready=ready, **changes)
        decision = decide(observed, self.settings, self.history, now_s)
        self.replicas, self.history = decision.replicas, decision.history
        return decision.replicas, decision.reason


def test_shrinking_waits_for_the_window_and_growing_does_not():
    pool = Pool(2, down=Rules(300))
    assert pool.look(0, total(8)) == (4, ScalingReason.ABOVE_TARGET)
    assert pool.look(100, total(1)) == (4, ScalingReason.STABILIZED)
    assert pool.look(299, total(1)) == (4, ScalingReason.STABILIZED)
    assert pool.look(400, total(1)) == (1, ScalingReason.BELOW_TARGET)


def test_a_pool_seen_for_the_first_time_is_not_shrunk_at_once():
    pool = Pool(6, down=Rules(300))
    assert pool.look(0, total(0)) == (6, ScalingReason.STABILIZED)
    assert pool.look(301, total(0)) == (1, ScalingReason.AT_MINIMUM)


def test_policies_limit_what_a_period_changes():
    two = Policy(PolicyType.PODS, 2, 60)
    half = Policy(PolicyType.PERCENT, 50, 60)
    pool = Pool(2, up=Rules(0, policies=(two,)), down=Rules(0, policies=(half,)))
    assert pool.look(0, total(20)) == (4, ScalingReason.RATE_LIMITED)
    assert pool.look(30, total(20)) == (4, ScalingReason.RATE_LIMITED)
    assert pool.look(60, total(20)) == (6, ScalingReason.RATE_LIMITED)
    assert pool.look(200, total(0)) == (3, ScalingReason.RATE_LIMITED)
    assert pool.look(230, total(0)) == (3, ScalingReason.RATE_LIMITED)
    assert pool.look(260, total(0)) == (1, ScalingReason.RATE_LIMITED)


@pytest.mark.parametrize(
    ("select", "replicas"), [(SelectPolicy.MAX, 6), (SelectPolicy.MIN, 4), (SelectPolicy.DISABLED, 3)]
)
def test_the_selected_policy_holds(select, replicas):
    policies = (Policy(PolicyType.PODS, 1, 60), Policy(PolicyType.PERCENT, 100, 60))
    pool = Pool(3, up=Rules(0, select=select, policies=policies))
    assert pool.look(0, total(20)) == (replicas, ScalingReason.RATE_LIMITED)


def test_pods_that_start_are_not_asked_for_twice():
    """A mean that rises because nothing new serves yet orders nothing, until the start-up time is over."""
    pool = Pool(2, startup_s=60)
    assert pool.look(0, mean(5)) == (5, ScalingReason.ABOVE_TARGET)
    assert pool.look(30, mean(9), ready=2) == (5, ScalingReason.WAITING_FOR_PODS)
    assert pool.look(61, mean(9), ready=2) == (9, ScalingReason.ABOVE_TARGET)


def test_a_mean_of_before_the_new_pods_orders_nothing():
    pool = Pool(2)
    pool.look(0, mean(4, window_s=60))
    assert pool.replicas == 4
    pool.look(10, mean(4, window_s=60), ready=2)
    assert pool.look(20, mean(4, window_s=60)) == (4, ScalingReason.SETTLING)
    # In the first window they take what had been waiting for them.
    assert pool.look(139, mean(4, window_s=60)) == (4, ScalingReason.SETTLING)
    assert pool.look(140, mean(4, window_s=60)) == (8, ScalingReason.ABOVE_TARGET)


def test_a_time_says_that_workers_are_missing_and_not_how_many():
    """Twenty times the target asks for a quarter more, and for two at least."""
    wait = replace(mean(40), proportional=False)
    assert Pool(4).look(0, wait) == (6, ScalingReason.ABOVE_TARGET)
    assert Pool(12, max_replicas=40).look(0, wait) == (15, ScalingReason.ABOVE_TARGET)
    assert Pool(12, max_replicas=40).look(0, wait, total(40)) == (20, ScalingReason.ABOVE_TARGET), (
        "who counts the work is believed"
    )
    slightly = replace(mean(2.2), proportional=False)
    assert Pool(20, max_replicas=40, up=Rules(0, 0.05)).look(0, slightly) == (22, ScalingReason.ABOVE_TARGET)


def test_a_mean_of_before_pods_went_lets_no_more_go():
    pool = Pool(8)
    assert pool.look(0, mean(1, window_s=60)) == (4, ScalingReason.BELOW_TARGET)
    assert pool.look(10, mean(1, window_s=60)) == (4, ScalingReason.SETTLING)
    assert pool.look(69, mean(1, window_s=60)) == (4, ScalingReason.SETTLING)
    assert pool.look(70, mean(1, window_s=60)) == (2, ScalingReason.BELOW_TARGET)


def test_the_window_to_shrink_begins_anew_after_an_outage_of_the_signals():
    pool = Pool(4, down=Rules(300))
    assert pool.look(0, total(8)) == (4, ScalingReason.WITHIN_TOLERANCE)
    for now_s in range(100, 1000, 100):
        assert pool.look(now_s, total(None)) == (4, ScalingReason.SIGNAL_MISSING)
    assert pool.look(1000, total(0)) == (4, ScalingReason.STABILIZED)
    assert pool.look(1199, total(0)) == (4, ScalingReason.STABILIZED)
    assert pool.look(1200, total(0)) == (1, ScalingReason.AT_MINIMUM)


def test_a_burst_is_answered_before_the_window_knows_of_it():
    pool = Pool(2, up=Rules(120), panic=Panic(window_s=10, threshold=2, lasts_s=60))
    assert pool.look(0, total(4)) == (2, ScalingReason.WITHIN_TOLERANCE)
    assert pool.look(10, total(6)) == (2, ScalingReason.STABILIZED)
    assert pool.look(20, total(6, panic_value=16)) == (8, ScalingReason.PANIC)
    # It does not shrink while it lasts, whatever the burst does.
    assert pool.look(50, total(2, panic_value=2)) == (8, ScalingReason.PANIC)
    assert pool.look(81, total(2, panic_value=2)) == (1, ScalingReason.BELOW_TARGET)


def test_a_burst_wakes_a_pool_to_what_it_asks_for():
    pool = Pool(0, min_replicas=0, panic=Panic(window_s=10, threshold=2, lasts_s=60))
    assert pool.look(0, total(1, panic_value=6)) == (3, ScalingReason.ACTIVATED)
    assert pool.look(1, total(1, panic_value=6), ready=0) == (3, ScalingReason.PANIC)


def test_less_than_the_threshold_is_no_panic():
    pool = Pool(4, up=Rules(120), panic=Panic(threshold=2))
    assert pool.look(0, total(8, panic_value=12)) == (4, ScalingReason.WITHIN_TOLERANCE)


def test_a_pool_that_has_turned_too_often_keeps_what_it_has_for_an_hour():
    pool = Pool(2)
    assert [pool.look(now_s, total(value))[0] for now_s, value in ((0, 8), (10, 4), (20, 8))] == [4, 2, 4]
    assert pool.look(30, total(4)) == (4, ScalingReason.FLAPPING)
    assert pool.look(40, total(12)) == (6, ScalingReason.ABOVE_TARGET)
    assert pool.look(3609, total(4)) == (6, ScalingReason.FLAPPING)
    assert pool.look(3610, total(4)) == (2, ScalingReason.BELOW_TARGET)


def test_another_behavior_lets_it_turn_again():
    pool = Pool(2)
    assert [pool.look(now_s, total(value))[0] for now_s, value in ((0, 8), (10, 4), (20, 8), (30, 4))] == [4, 2, 4, 4]
    pool.settings = replace(pool.settings, max_replicas=9)
    assert pool.look(40, total(4)) == (2, ScalingReason.BELOW_TARGET)


def test_a_pool_with_nothing_to_do_shrinks_however_often_it_has_turned():
    turned = ((0, 8), (10, 4), (20, 8))
    pool = Pool(2)
    assert [pool.look(now_s, total(value))[0] for now_s, value in turned] == [4, 2, 4]
    assert pool.look(30, total(0)) == (1, ScalingReason.AT_MINIMUM)
    pool = Pool(2, min_replicas=0, idle_cool_down_s=100)
    assert [pool.look(now_s, total(value))[0] for now_s, value in turned] == [4, 2, 4]
    assert pool.look(30, total(0), demand=0) == (1, ScalingReason.COOLING_DOWN)
    assert pool.look(130, total(0), demand=0) == (0, ScalingReason.IDLE)


def test_a_pool_falls_asleep_and_is_woken():
    pool = Pool(3, min_replicas=0, idle_cool_down_s=100)
    assert pool.look(0, total(0), demand=0) == (1, ScalingReason.COOLING_DOWN)
    assert pool.look(50, total(1), demand=0) == (1, ScalingReason.BELOW_TARGET)
    assert pool.look(60, total(0), demand=0) == (1, ScalingReason.COOLING_DOWN)
    assert pool.look(159, total(0), demand=0) == (1, ScalingReason.COOLING_DOWN)
    assert pool.look(160, total(0), demand=0) == (0, ScalingReason.IDLE)
    assert pool.look(200, total(0), demand=0) == (0, ScalingReason.IDLE)
    assert pool.look(210, total(None), demand=None) == (0, ScalingReason.DEMAND_UNKNOWN)
    assert pool.look(220, total(None), demand=1) == (1, ScalingReason.ACTIVATED)
    assert pool.look(230, total(9), demand=0) == (5, ScalingReason.ABOVE_TARGET)


@pytest.mark.parametrize("demand", [None, 1.0])
def test_a_pool_does_not_fall_asleep_while_routers_want_it_or_do_not_say(demand):
    pool = Pool(1, min_replicas=0, idle_cool_down_s=10)
    for now_s in (0, 10, 20, 30):
        assert pool.look(now_s, total(0), demand=demand)[0] == 1


def test_a_pool_that_was_woken_gets_the_whole_cool_down():
    pool = Pool(1, min_replicas=0, idle_cool_down_s=100)
    pool.look(0, total(0), demand=0)
    assert pool.look(100, total(0), demand=0)[0] == 0
    assert pool.look(200, total(0), demand=1) == (1, ScalingReason.ACTIVATED)
    assert pool.look(205, total(0), demand=0) == (1, ScalingReason.COOLING_DOWN)
    assert pool.look(304, total(0), demand=0) == (1, ScalingReason.COOLING_DOWN)
    assert pool.look(305, total(0), demand=0) == (0, ScalingReason.IDLE)


def test_any_work_wakes_a_pool_and_no_faster_than_policies_allow():
    assert Pool(0, min_replicas=0).look(0, total(0.1), demand=0) == (1, ScalingReason.ACTIVATED)
    double = Policy(PolicyType.PERCENT, 100, 15)
    pool = Pool(0, min_replicas=0, up=Rules(0, policies=(double,)))
    assert [pool.look(now_s, total(20))[0] for now_s in (0, 5, 15, 30, 45)] == [1, 1, 2, 4, 8]


def test_a_floor_wakes_a_pool():
    pool = Pool(0, min_replicas=0)
    floors = (Floor(2, ScalingReason.SCHEDULED_FLOOR),)
    assert pool.look(0, total(None), demand=0, floors=floors) == (2, ScalingReason.SCHEDULED_FLOOR)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"min_replicas": -1}, "minReplicas"),
        ({"max_replicas": 0}, "maxReplicas"),
        ({"min_replicas": 11}, "maxReplicas"),
        ({"startup_s": -1}, "startupSeconds"),
        ({"turns_an_hour": 1}, "turns_an_hour"),
        ({"idle_cool_down_s": math.nan}, "coolDownSeconds"),
    ],
)
def test_bad_settings_name_their_field(changes, field):
    with pytest.raises(errors.InvalidValueError, match=field):
        replace(SETTINGS, **changes)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Rules(-1), "stabilizationWindowSeconds"),
        (lambda: Rules(0, tolerance=-0.1), "tolerance"),
        (lambda: Policy(PolicyType.PODS, 0, 15), "value"),
        (lambda: Policy(PolicyType.PODS, 1, 0), "periodSeconds"),
        (lambda: Panic(threshold=0), "threshold"),
        (lambda: mean(1.0, target=0.0), "target"),
        (lambda: mean(1.0, fault=ScalingReason.SIGNAL_STALE), "fault"),
    ],
)
def test_bad_parts_name_their_field(make, field):
    with pytest.raises(errors.InvalidValueError, match=field):
        make()
