"""Floors that hold at certain times: `spec.scaling.schedules`.

A schedule is in force from a start until the end that follows. Starts and ends are minutes that a cron expression names in
a time zone, and mean what Debian's cron makes of them where clocks change: a time that is skipped comes when the clock has
jumped, and one that is there twice counts once, the first time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from prfaas_core.autoscaling import Floor, ScalingReason
from prfaas_operator.api.scaling import Schedule

# cronsim counts in wall time, in which the hours around a change of clocks are no order. Its search begins this far away.
_CLOCK_CHANGE = timedelta(hours=3)


@dataclass(frozen=True, slots=True)
class InForce:
    """What schedules say at a moment.

    Attributes:
        floor: of several, the highest.
        next_change: when a schedule next begins or ends; None without schedules.
        fault: what the API server could not refuse: a time zone that is not known, a time that never comes. It names the
            fields, their values and the way out; empty if all can be read. The others stay in force.
    """

    floor: Floor | None
    next_change: datetime | None
    fault: str = ""


class _UnreadableError(Exception):
    pass


def in_force(schedules: Sequence[Schedule], now: datetime) -> InForce:
    """Return what schedules say at `now`, an aware time."""
    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    floor: Floor | None = None
    changes: list[datetime] = []
    faults: list[str] = []
    for index, schedule in enumerate(schedules):
        try:
            active, change = _state(schedule.start, schedule.end, schedule.time_zone, index, minute)
        except _UnreadableError as error:
            faults.append(str(error))
            continue
        changes.append(change)
        if active and (floor is None or schedule.min_replicas > floor.replicas):
            until = change.astimezone(ZoneInfo(schedule.time_zone))
            message = f"schedules[{index}] asks for at least {schedule.min_replicas} until {until:%a %H:%M %Z}"
            floor = Floor(schedule.min_replicas, ScalingReason.SCHEDULED_FLOOR, message)
    return InForce(floor, min(changes, default=None), "; ".join(faults))


# Cron counts in minutes, so within one nothing changes; a pool is looked at every few seconds.
@lru_cache(maxsize=4096)
def _state(start: str, end: str, time_zone: str, index: int, minute: datetime) -> tuple[bool, datetime]:
    """Return whether a schedule is in force in a minute, and when it next begins or ends."""
    zone = _zone(time_zone, index)
    field = f"scaling.schedules[{index}]"
    last_start, last_end = (
        _tick(expression, zone, minute, f"{field}.{name}", before=True)
        for name, expression in (("start", start), ("end", end))
    )
    # Where both are the same minute, the new start counts.
    active = last_start >= last_end
    name, expression = ("end", end) if active else ("start", start)
    return active, _tick(expression, zone, minute, f"{field}.{name}", before=False)


def _tick(expression: str, zone: ZoneInfo, minute: datetime, field: str, *, before: bool) -> datetime:
    """Return the last time of an expression up to `minute`, or the first one behind it."""
    away = minute + _CLOCK_CHANGE if before else minute - _CLOCK_CHANGE
    try:
        ticks: Iterator[datetime] = CronSim(expression, away.astimezone(zone), reverse=before)
        for tick in ticks:
            at = tick.astimezone(UTC)
            if (at <= minute) if before else (at > minute):
                return at
    except CronSimError as error:
        raise _UnreadableError(
            f"{field}: {expression!r} is not a time ({error}); write minute, hour, day of month, month and day of week, "
            "such as 0 8 * * 1-5"
        ) from error
    raise _UnreadableError(f"{field}: {expression!r} never comes; give a day that the month has")


def _zone(name: str, index: int) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    # Some names are folders of the database.
    except (KeyError, ValueError, OSError) as error:
        raise _UnreadableError(
            f"scaling.schedules[{index}].timeZone: {name!r} is not in the time zone database; use a name such as Europe/Berlin"
        ) from error
