"""What `status.plan` says, and how seldom it is written."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from prfaas_operator import api
from prfaas_operator.api.route_plan import ThresholdSource
from prfaas_operator.configuration.threshold import Threshold
from prfaas_operator.reconcile.plan_status import Sizes, plan, prediction

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FOUND = Threshold(
    5000, ThresholdSource.MEASURED, "w", 30.0, carried_rps=32.0, bound_by="the link and local prefill", gain=0.2
)
SIZES = Sizes(local=3, decode=5, wanted_local=None)


def test_it_says_what_and_why():
    found = plan(None, FOUND, SIZES, 12.34, NOW)
    assert (
        found.message
        == "above 5000 tokens remote, 3 prefill and 5 decode: 32 requests/s, the link and local prefill binds"
    )
    assert (found.expected_requests_per_second, found.expected_gain) == (32.0, 0.2)
    assert (found.measured_requests_per_second, found.measured_gain) == (12.3, None)
    assert (found.changed_time, found.source) == (NOW, ThresholdSource.MEASURED)


def test_noise_is_not_written():
    first = plan(None, FOUND, SIZES, 12.0, NOW)
    later = NOW + timedelta(seconds=60)
    again = replace(FOUND, gain=None, carried_rps=30.0)
    assert plan(first, again, SIZES, 14.0, later) == first
    assert plan(first, again, SIZES, None, later) == first
    assert plan(first, again, SIZES, 20.0, later).measured_requests_per_second == 20.0
    assert plan(first, replace(again, carried_rps=20.0), SIZES, 12.0, later).expected_requests_per_second == 20.0


def test_the_effect_of_a_change_is_said_once_when_it_can_be_known():
    first = plan(None, FOUND, SIZES, 12.0, NOW)
    early = plan(first, replace(FOUND, gain=None), SIZES, 15.0, NOW + timedelta(seconds=100))
    assert early.measured_gain is None
    known = plan(early, replace(FOUND, gain=None), SIZES, 15.0, NOW + timedelta(seconds=121))
    assert known.measured_gain == 0.25
    assert plan(known, replace(FOUND, gain=None), SIZES, 13.0, NOW + timedelta(seconds=500)).measured_gain == 0.25
    changed = plan(known, replace(FOUND, tokens=6000), SIZES, 15.0, NOW + timedelta(seconds=600))
    assert (changed.measured_gain, changed.requests_per_second_before) == (None, 15.0)
    assert changed.changed_time == NOW + timedelta(seconds=600)


def status(**changes):
    found = {
        "threshold_tokens": 5000,
        "threshold_source": ThresholdSource.MEASURED,
        "predicted_requests_per_second": 30.0,
    }
    return api.InferenceRouteStatus(**found | {"threshold_why": WHY} | changes)


WHY = "32 requests/s with 4 workers, the link binds; 5100 would carry less than 3% more"


@pytest.mark.parametrize(
    ("before", "why", "rate", "kept"),
    [
        (status(), WHY, 30.0, True),
        (status(), WHY.replace("32", "33").replace("5100", "4900"), 31.0, True),
        (status(), WHY.partition(";")[0], 31.0, True),
        (status(), WHY, 40.0, False),
        (status(), WHY, None, False),
        (status(predicted_requests_per_second=None), WHY, 30.0, False),
        (status(), WHY.replace("the link", "decode"), 30.0, False),
        (status(), WHY.replace("4 workers", "5 workers"), 30.0, False),
        (status(threshold_tokens=4000), WHY.replace("32", "33"), 30.0, False),
        (status(), "the decode pool has no workers", 30.0, False),
    ],
)
def test_the_reason_of_a_threshold_is_written_again_when_it_is_another(before, why, rate, kept):
    """Figures that only waver with what is measured leave the status as it is."""
    found = prediction(before, replace(FOUND, why=why, requests_per_second=rate))
    assert found == ((30.0, WHY) if kept else (rate, why))


def test_roles_that_are_wanted_are_named():
    found = plan(None, FOUND, Sizes(local=3, decode=5, wanted_local=2), None, NOW)
    assert (found.wanted_local_prefill, found.wanted_decode) == (2, 6)
    assert "3 prefill and 5 decode (wanted 2 and 6)" in found.message


@pytest.mark.parametrize("local", [None, 3])
def test_what_is_not_known_is_left_out(local):
    held = Threshold(5000, ThresholdSource.HELD, "w", None)
    found = plan(None, held, Sizes(local, 5, None), None, NOW)
    assert found.expected_requests_per_second is None
    assert found.wanted_decode is None
    assert "requests/s" not in found.message
