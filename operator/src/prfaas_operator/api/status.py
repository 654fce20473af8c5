"""What every status has."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from prfaas_operator.api.conditions import Condition, ConditionStatus, ConditionType
from prfaas_operator.api.model import StatusModel
from prfaas_operator.api.scalars import Whole
from prfaas_operator.api.uniqueness import KeyedBy


class Status(StatusModel):
    """What the operator last observed; it says nothing about fields that are absent."""

    observed_generation: Whole | None = None
    """The newest generation of the spec that the operator has worked on."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), KeyedBy("type")] = ()
    """Observations after the kstatus convention; Ready, Reconciling and Stalled are always among them."""

    def condition(self, type_: ConditionType) -> Condition | None:
        """Return the condition of a type, None if there is none."""
        return next((found for found in self.conditions if found.type == type_), None)

    @property
    def ready(self) -> bool:
        """Whether the condition Ready is True."""
        found = self.condition(ConditionType.READY)
        return found is not None and found.status is ConditionStatus.TRUE
