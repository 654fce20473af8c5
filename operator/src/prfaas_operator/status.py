"""Statuses: composed whole from what was observed, compared with what is there, and written once, if they differ."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from prfaas_operator import api
from prfaas_operator.api.conditions import Condition, ConditionStatus, ConditionType, Reason, condition, merged
from prfaas_operator.api.status import Status


class Conditions:
    """Collects the conditions of one object at one moment."""

    def __init__(self, generation: int, now: datetime) -> None:
        self._generation = generation
        self._now = now
        self._found: dict[ConditionType, Condition] = {}

    def set(self, type_: ConditionType, status: bool | None, reason: Reason, message: str) -> None:
        """State a condition; a status of None is Unknown."""
        self._found[type_] = condition(type_, status, reason, message, generation=self._generation, now=self._now)

    def conclude(
        self, *, ready: bool | None, reason: Reason, message: str, reconciling: bool = False, stalled: bool = False
    ) -> None:
        """State the three conditions of kstatus; the two abnormal ones are False unless work goes on or has stopped."""
        self.set(ConditionType.READY, ready, reason, message)
        done = "nothing is left to do" if ready else "waiting for changes"
        self.set(
            ConditionType.RECONCILING,
            reconciling,
            reason if reconciling else Reason.RECONCILED,
            message if reconciling else done,
        )
        self.set(ConditionType.STALLED, stalled, reason if stalled else Reason.RECONCILED, message if stalled else "")

    def merge(self, before: Sequence[Condition]) -> tuple[Condition, ...]:
        """Return the conditions in the order of their types, with the transition times of `before` where nothing changed."""
        order = list(ConditionType)
        return merged(before, sorted(self._found.values(), key=lambda found: order.index(ConditionType(found.type))))


def is_true(conditions: Sequence[Condition], type_: ConditionType) -> bool:
    return any(found.type == type_ and found.status is ConditionStatus.TRUE for found in conditions)


def status_patch(before: Mapping[str, Any], after: Status) -> dict[str, Any] | None:
    """Return the merge patch that turns a status into another, or None when they are equal.

    Fields that are in the old status and not in the new one are removed.
    """
    wanted = after.as_object(exclude_unset=False)
    patch = _difference(before, wanted)
    return patch or None


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            if inner := _difference(old, value):
                patch[name] = inner
        elif old != value:
            patch[name] = value
    return patch


def previous(model: api.Resource | None) -> Sequence[Condition]:
    """Return the conditions that an object has now."""
    status = getattr(model, "status", None)
    return status.conditions if isinstance(status, Status) else ()
