"""Budget: what the pools of a namespace may use together."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prfaas_operator.api.model import Model, StatusModel
from prfaas_operator.api.resource import AGE, READY, REASON, Column, Definition, Resource
from prfaas_operator.api.rules import Rule
from prfaas_operator.api.scalars import Between, Fraction, LabelValue, Measured, Message, Name, NonNegative, Term, Whole
from prfaas_operator.api.status import Status
from prfaas_operator.api.uniqueness import KeyedBy


class PoolSelector(Model):
    """Which pools a budget is for."""

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=16, default_factory=dict)]
    """Labels that a pool has to have, all of them; none: every pool of the namespace."""


class AcceleratorLimit(Model):
    """How many accelerators the pools may have."""

    count: Annotated[int, Between(0, 1_000_000)]
    """Accelerators: workers times accelerator.countPerInstance of their profile."""
    name: Term | None = None
    """Only those of this name, as accelerator.name of the profile says; absent: of every name."""


class LinkLimit(Model):
    """Which part of a link the pools behind it may fill."""

    name: Name
    """Name of the KVLink."""
    share: Fraction = 1
    """Part of the link's usable bit/s, above 0 up to 1."""


class BudgetSpec(Model):
    """What pools may use together."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.accelerators) || has(self.costPerHour) || (has(self.links) && size(self.links) > 0)",
            "none of accelerators, costPerHour and links is given; give at least one, or delete the budget",
            lambda spec: spec.accelerators is not None or spec.cost_per_hour is not None or len(spec.links) > 0,
        ),
    )

    pools: PoolSelector | None = None
    """Which pools it is for; absent: all of the namespace."""
    accelerators: AcceleratorLimit | None = None
    """Accelerators of all these pools."""
    cost_per_hour: NonNegative | None = None
    """Money per hour, in the currency of accelerator.costPerHour of the profiles."""
    links: Annotated[tuple[LinkLimit, ...], Field(max_length=16), KeyedBy("name")] = ()
    """KVLinks: prefill pools behind one do not grow while its share is full."""


class ResourceUse(StatusModel):
    """What is used of one resource, by what pools ask for."""

    resource: Message
    """The resource: accelerators, costPerHour, or a link."""
    used: Measured
    """What the workers that pools ask for take."""
    limit: Measured
    """What there is."""


class HeldBack(StatusModel):
    """A pool that would have more workers without the budget."""

    kind: Term
    """Kind of the pool."""
    name: Term
    """Name of the pool."""
    wanted_replicas: Whole
    """Workers that it would have."""
    granted_replicas: Whole
    """Workers that it may have."""
    short: Annotated[tuple[Message, ...], Field(max_length=18)]
    """The resources of this budget that are too short for more."""


class BudgetStatus(Status):
    """What the operator observed of a budget."""

    pools: Whole | None = None
    """How many pools it is for."""
    resources: Annotated[tuple[ResourceUse, ...], Field(max_length=18)] = ()
    """What is used of each resource."""
    held_back: Annotated[tuple[HeldBack, ...], Field(max_length=64)] = ()
    """Pools that are held back, by priority and name; the first 64."""
    message: Message = ""
    """The use in one line, for people."""


class Budget(Resource):
    """Accelerators, money and link shares that pools of a namespace may use together. Higher scaling.priority grows first."""

    definition: ClassVar[Definition] = Definition(
        plural="budgets",
        short_name="bud",
        columns=(
            Column("Pools", ".status.pools", "Pools that it is for.", "integer"),
            Column("Use", ".status.message", "What is used of it."),
            READY,
            REASON,
            AGE,
        ),
    )

    kind: Literal["Budget"] = "Budget"
    spec: BudgetSpec
    """What is asked for."""
    status: BudgetStatus = BudgetStatus()
    """What the operator observed."""
