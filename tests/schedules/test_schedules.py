"""Floors by the clock: in force from a start to the next end, in the time zone's own hours, also where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from prfaas_core.autoscaling import Floor, ScalingReason
from prfaas_operator.api.cron import CronExpression, TimeZone
from prfaas_operator.api.scaling import Schedule
from prfaas_operator.scaling import schedule
from prfaas_operator.scaling.schedule import in_force

OFFICE = Schedule(start="0 8 * * 1-5", end="0 20 * * 1-5", time_zone="Europe/Berlin", min_replicas=4)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def replicas(schedules: list[Schedule], now: datetime) -> int:
    floor = in_force(schedules, now).floor
    return floor.replicas if floor is not None else 0


@pytest.mark.parametrize(
    ("now", "expected", "next_change"),
    [
        # A Wednesday in winter, at UTC+1.
        ("2026-01-07T06:59:59Z", 0, "2026-01-07T07:00:00Z"),
        ("2026-01-07T07:00:00Z", 4, "2026-01-07T19:00:00Z"),
        ("2026-01-07T18:59:59Z", 4, "2026-01-07T19:00:00Z"),
        ("2026-01-07T19:00:00Z", 0, "2026-01-08T07:00:00Z"),
        # The same wall time in summer.
        ("2026-07-08T05:59:59Z", 0, "2026-07-08T06:00:00Z"),
        ("2026-07-08T06:00:00Z", 4, "2026-07-08T18:00:00Z"),
        # Over the weekend in which clocks go forward.
        ("2026-03-27T20:00:00Z", 0, "2026-03-30T06:00:00Z"),
        # And back.
        ("2026-10-23T19:00:00Z", 0, "2026-10-26T07:00:00Z"),
    ],
)
def test_office_hours(now: str, expected: int, next_change: str) -> None:
    found = in_force([OFFICE], at(now))
    assert (found.floor.replicas if found.floor is not None else 0) == expected
    assert found.next_change == at(next_change)


def test_the_highest_floor_counts_and_says_until_when() -> None:
    night = Schedule(start="0 0 * * *", end="0 23 * * *", time_zone="Etc/UTC", min_replicas=2)
    found = in_force([night, OFFICE], at("2026-01-07T12:00:00Z"))
    assert found.floor == Floor(
        4, ScalingReason.SCHEDULED_FLOOR, "schedules[1] asks for at least 4 until Wed 20:00 CET"
    )
    assert found.next_change == at("2026-01-07T19:00:00Z")
    assert replicas([night, OFFICE], at("2026-01-07T20:00:00Z")) == 2
    assert in_force([], at("2026-01-07T20:00:00Z")) == schedule.InForce(None, None)


@pytest.mark.parametrize(
    ("start", "end", "inside", "outside"),
    [
        # 02:30 does not come on this day; the clock jumps from 02:00 to 03:00, at 01:00 UTC.
        ("30 2 * * *", "0 5 * * *", ["2026-03-29T01:00:00Z", "2026-03-29T02:59:00Z"], ["2026-03-29T00:59:00Z"]),
        # 02:30 comes twice: it counts at 00:30 UTC, and the second time, at 01:30, changes nothing.
        ("30 2 * * *", "45 2 * * *", ["2026-10-25T00:30:00Z", "2026-10-25T00:44:00Z"],
         ["2026-10-25T00:29:00Z", "2026-10-25T00:45:00Z", "2026-10-25T01:29:00Z", "2026-10-25T01:30:00Z", "2026-10-25T01:44:00Z"]),
        # From before the change until after it.
        ("0 1 * * *", "0 4 * * *", ["2026-10-24T23:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:59:00Z"],
         ["2026-10-24T22:59:00Z", "2026-10-25T03:00:00Z"]),
    ],
)  # fmt: skip
def test_where_clocks_change(start: str, end: str, inside: list[str], outside: list[str]) -> None:
    window = [Schedule(start=start, end=end, time_zone="Europe/Berlin", min_replicas=3)]
    assert [replicas(window, at(now)) for now in inside] == [3] * len(inside)
    assert [replicas(window, at(now)) for now in outside] == [0] * len(outside)


CRON = st.builds(
    lambda minute, hour, days: f"{minute} {hour} * * {days}",
    st.sampled_from(["0", "30", "59", "*/20"]), st.sampled_from(["0", "2", "3", "1-3", "23", "*"]),
    st.sampled_from(["*", "0", "7", "1-5", "SUN"]),
)  # fmt: skip
SCHEDULES = st.builds(
    lambda start, end, zone, least: Schedule(start=start, end=end, time_zone=zone, min_replicas=least),
    CRON, CRON,
    st.sampled_from(["Etc/UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    st.integers(1, 9),
)  # fmt: skip
TIMES = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  hypothesis adds it


@given(st.lists(SCHEDULES, max_size=3), TIMES, st.data())
def test_nothing_changes_before_the_time_that_is_named(
    schedules: list[Schedule], now: datetime, data: st.DataObject
) -> None:
    """Only one start or end after the other can pass unnoticed, and none within the minute."""
    found = in_force(schedules, now)
    if found.next_change is None:
        assert not schedules
        return
    assert found.next_change > now.replace(second=0, microsecond=0)
    between = data.draw(st.integers(0, int((found.next_change - now).total_seconds()) or 0))
    later = min(now + timedelta(seconds=between), found.next_change - timedelta(seconds=1))
    assert replicas(schedules, max(later, now)) == replicas(schedules, now)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_zone": "Europe/Nowhere"}, "scaling.schedules[0].timeZone: 'Europe/Nowhere' is not in the time zone database"),
        ({"time_zone": "Europe"}, "scaling.schedules[0].timeZone: 'Europe' is not in the time zone database"),
        ({"start": "0 8 31 2 *"}, "scaling.schedules[0].start: '0 8 31 2 *' is not a time (Bad day-of-month)"),
        ({"end": "9-7 8 * * *"}, "scaling.schedules[0].end: '9-7 8 * * *' is not a time (Bad minute)"),
    ],
)  # fmt: skip
def test_what_only_the_operator_can_refuse(changes: dict[str, Any], message: str) -> None:
    night = Schedule(start="0 0 * * *", end="0 23 * * *", time_zone="Etc/UTC", min_replicas=2)
    found = in_force([OFFICE.model_copy(update=changes), night], at("2026-01-07T12:00:00Z"))
    assert found.fault.startswith(message)
    assert found.floor is not None
    assert found.floor.replicas == 2


@pytest.mark.parametrize(
    "expression",
    ["* * * * *", "0 8 * * 1-5", "*/15 0,12 1-7 JAN-mar Mon,Wed", "5/10 23 31 12 7", "1-30/5,45 * * * SUN"],
)
def test_expressions_that_are_admitted_are_read(expression: str) -> None:
    assert TypeAdapter(CronExpression).validate_python(expression) == expression
    assert in_force([OFFICE.model_copy(update={"start": expression})], at("2026-01-07T12:00:00Z")).fault == ""


@pytest.mark.parametrize(
    "expression", ["", "@daily", "* * * *", "* * * * * *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 32 * *",
                   "0 0 * 13 *", "0 0 * * 8", "0  0 * * *", "a b c d e", "0 0 * * 1;"],
)  # fmt: skip
def test_expressions_that_are_not(expression: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(CronExpression).validate_python(expression)


@pytest.mark.parametrize("name", ["", "../etc/passwd", "/Europe/Berlin", "Europe//Berlin", "Europe/Berlin "])
def test_names_that_are_no_time_zones(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(TimeZone).validate_python(name)
