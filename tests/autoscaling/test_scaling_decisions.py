"""The first autoscaler: HPA's arithmetic, holding on bad data, bounds always."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core import autoscaling, errors
from prfaas_core.autoscaling import Observed, Recommendation, ScalingReason, Settings

SETTINGS = Settings(min_replicas=1, max_replicas=10, target_value=2.0, scale_down_window_s=300)

CASES = {
    "on target": (Observed(3, 3, 2.0), 3, ScalingReason.WITHIN_TOLERANCE),
    "within tolerance": (Observed(3, 3, 2.19), 3, ScalingReason.WITHIN_TOLERANCE),
    "above": (Observed(2, 2, 3.0), 3, ScalingReason.ABOVE_TARGET),
    "far above stops at the maximum": (Observed(4, 4, 20.0), 10, ScalingReason.AT_MAXIMUM),
    "below": (Observed(4, 4, 1.0), 2, ScalingReason.BELOW_TARGET),
    "idle stops at the minimum": (Observed(4, 4, 0.0), 1, ScalingReason.AT_MINIMUM),
    "pods on their way are not asked for twice": (Observed(6, 2, 5.0), 6, ScalingReason.WAITING_FOR_PODS),
    "nothing serves yet": (Observed(2, 0, 5.0), 2, ScalingReason.WAITING_FOR_PODS),
    "missing": (Observed(3, 3, None), 3, ScalingReason.SIGNAL_MISSING),
    "not a number": (Observed(3, 3, math.nan), 3, ScalingReason.SIGNAL_INVALID),
    "infinite": (Observed(3, 3, math.inf), 3, ScalingReason.SIGNAL_INVALID),
    "negative": (Observed(3, 3, -1.0), 3, ScalingReason.SIGNAL_INVALID),
    "stale": (Observed(3, 3, 9.0, age_s=61), 3, ScalingReason.SIGNAL_STALE),
    "from the future": (Observed(3, 3, 9.0, age_s=-1), 3, ScalingReason.SIGNAL_STALE),
    "a hold keeps the bounds": (Observed(20, 20, None), 10, ScalingReason.SIGNAL_MISSING),
}


@pytest.mark.parametrize(("observed", "replicas", "reason"), CASES.values(), ids=CASES.keys())
def test_a_case(observed: Observed, replicas: int, reason: ScalingReason) -> None:
    decision = autoscaling.decide(observed, SETTINGS, (), now_s=0.0)
    assert (decision.replicas, decision.reason) == (replicas, reason)
    assert decision.next_look_s == SETTINGS.period_s


def test_scaling_down_waits_for_the_window_and_scaling_up_does_not() -> None:
    history: tuple[Recommendation, ...] = ()
    replicas = 2
    seen = []
    for now_s, value in ((0, 4.0), (100, 0.5), (299, 0.5), (401, 0.5)):
        decision = autoscaling.decide(Observed(replicas, replicas, value), SETTINGS, history, now_s)
        replicas, history = decision.replicas, decision.history
        seen.append((replicas, decision.reason))
    assert seen == [
        (4, ScalingReason.ABOVE_TARGET),
        (4, ScalingReason.STABILIZED),
        (4, ScalingReason.STABILIZED),
        (1, ScalingReason.BELOW_TARGET),
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"min_replicas": -1}, "minReplicas"),
        ({"max_replicas": 0}, "maxReplicas"),
        ({"min_replicas": 11}, "maxReplicas"),
        ({"target_value": 0}, "targetValue"),
        ({"target_value": math.nan}, "targetValue"),
        ({"tolerance": -0.1}, "tolerance"),
    ],
)
def test_bad_settings_name_their_field(changes: dict[str, float], field: str) -> None:
    with pytest.raises(errors.InvalidValueError, match=field):
        replace(SETTINGS, **changes)  # type: ignore[arg-type]


VALUES = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 50)
STEPS = st.lists(st.tuples(st.floats(0, 600), VALUES, st.integers(0, 12), st.floats(-5, 120)), max_size=30)
SETTING = st.builds(
    Settings,
    min_replicas=st.integers(0, 5),
    max_replicas=st.integers(5, 12),
    target_value=st.floats(0.01, 100),
    tolerance=st.floats(0, 0.5),
    scale_up_window_s=st.floats(0, 300),
    scale_down_window_s=st.floats(0, 600),
)


@given(SETTING, STEPS, st.integers(0, 12))
def test_bounds_hold_and_missing_data_decides_nothing(
    settings: Settings, steps: list[tuple[float, float | None, int, float]], replicas: int
) -> None:
    history: tuple[Recommendation, ...] = ()
    now_s = 0.0
    for delay_s, value, ready, age_s in steps:
        now_s += delay_s
        observed = Observed(replicas, min(ready, replicas), value, age_s)
        decision = autoscaling.decide(observed, settings, history, now_s)
        assert autoscaling.decide(observed, settings, history, now_s) == decision
        assert settings.min_replicas <= decision.replicas <= settings.max_replicas
        if decision.reason in autoscaling.HOLDING_REASONS:
            assert decision.wanted is None
            within = settings.min_replicas <= replicas <= settings.max_replicas
            assert not within or decision.replicas == replicas
        replicas, history = decision.replicas, decision.history


@given(SETTING, st.integers(1, 12), st.floats(0, 1000), st.floats(0, 1000))
def test_more_load_never_wants_fewer_replicas(settings: Settings, ready: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    decisions = [autoscaling.decide(Observed(ready, ready, value), settings, (), 0.0).replicas for value in (low, high)]
    assert decisions == sorted(decisions)
