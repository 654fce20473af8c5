"""What a pool's `spec.scaling` means to the autoscaler, and what it means where it says nothing."""

import pytest

from prfaas_core import autoscaling, case_study
from prfaas_core.autoscaling import Policy, PolicyType, Rules
from prfaas_operator.api.scaling import Scaling
from prfaas_operator.scaling import settings

PROFILE = case_study.H20


def scaling(**spec):
    return Scaling.model_validate({"maxReplicas": 8, **spec})


def signals(role, **spec):
    found = settings.signals(scaling(**spec), role, PROFILE)
    return [(signal.name.value, signal.target_value, signal.window_s) for signal in found]


def test_a_pool_that_says_nothing_is_sized_by_its_work_and_by_its_queue():
    assert signals("prefill") == [
        ("PrefillLoad", 0.7, 300), ("PrefillLoad", 0.9, 60), ("PrefillQueueWait", 2, 60),
    ]  # fmt: skip
    assert signals("decode") == [("DecodeRequests", 0.75 * PROFILE.decode_slots, 90)]
    for role in ("prefill", "decode"):
        assert settings.guards(settings.signals(scaling(), role, PROFILE), role, PROFILE) == ()


def test_signals_that_are_given_are_all_there_are():
    given = {"name": "DecodeRequests", "targetValue": 3, "windowSeconds": 30}
    assert signals("decode", signals=[given]) == [("DecodeRequests", 3, 30)]


@pytest.mark.parametrize(("role", "up"), [("prefill", autoscaling.PREFILL_UP), ("decode", autoscaling.UP)])
def test_each_side_grows_at_its_own_pace_and_both_shrink_as_an_hpa_does(role, up):
    found = settings.core_settings(scaling(), role, 5.0)
    assert (found.up, found.down) == (up, autoscaling.DOWN)


def test_behavior_that_is_given_counts_field_by_field():
    found = settings.core_settings(scaling(behavior={"scaleUp": {"stabilizationWindowSeconds": 0}}), "prefill", 5.0)
    assert found.up == autoscaling.UP
    policy = {"type": "Pods", "value": 1, "periodSeconds": 30}
    found = settings.core_settings(scaling(behavior={"scaleUp": {"policies": [policy]}}), "prefill", 5.0)
    assert found.up == Rules(autoscaling.PREFILL_UP.window_s, policies=(Policy(PolicyType.PODS, 1, 30.0),))
    found = settings.core_settings(scaling(behavior={"scaleUp": {"policies": []}}), "prefill", 5.0)
    assert found.up.policies == (), "no policy limits nothing"
