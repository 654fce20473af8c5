"""What a route's status says about its plan and about the roles of the instances beside the decode workers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from prfaas_operator.api.model import Model, StatusModel
from prfaas_operator.api.scalars import Between, Measured, Message, Number, Whole
from prfaas_operator.api.scaling_status import Decision


class RolesMode(StrEnum):
    """Whether instances change roles."""

    FIXED = "Fixed"
    AUTO = "Auto"


class ThresholdSource(StrEnum):
    """Where the threshold in force comes from."""

    FIXED = "Fixed"
    MEASURED = "Measured"
    COMPUTED = "Computed"
    HELD = "Held"


class Roles(Model):
    """Whether instances beside the decode workers change between prefill and decode with the load."""

    mode: RolesMode = RolesMode.FIXED
    """Fixed: nothing changes its role. Auto: of the sum of both pools, the operator has as many prefill as carries most. Both
    pools need `replicas`, or both `scaling`, and the same accelerator; they belong to no other route."""
    minimum_gain: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] = 0.05
    """Auto: convert only for a gain in requests/s above this, relative, and after what the conversion costs."""
    stabilization_window_seconds: Annotated[int, Between(0, 86_400)] = 600
    """Auto: convert only when it was worth it for so many seconds; pools with `scaling` are left alone for as long after a
    conversion."""
    horizon_seconds: Annotated[int, Between(60, 604_800)] = 3600
    """Auto: time in seconds in which a conversion has to earn what its drain and start cost. The load should stay alike for
    so long."""


class RolesAdvice(StatusModel):
    """What the last conversion leaves two pools that have `scaling`: a ceiling to one, and a floor to the other."""

    to_decode: Annotated[int, Between(-1, 1)]
    """Which way an instance went: 1 from prefill to decode, -1 from decode to prefill."""
    prefill_replicas: Whole
    """Workers of the local prefill pool after it: at most so many where it gave one, at least where it got one."""
    decode_replicas: Whole
    """Workers of the decode pool after it, likewise."""


class RolesStatus(StatusModel):
    """How the instances beside the decode workers are divided."""

    to_decode: Annotated[int, Between(-1000, 1000)] = 0
    """Instances that were converted from prefill to decode, on top of the pools' specs; below 0 for the other way. Pools with
    `scaling` are given advice instead."""
    advice: RolesAdvice | None = None
    """What the autoscalers of both pools heed, while the planner stands by it and neither wants its pool back."""
    last_decision: Decision | None = None
    """The last decision, also when it was to hold."""
    last_conversion_time: AwareDatetime | None = None
    """When an instance last changed its role."""


class RoutePlan(StatusModel):
    """What the operator has planned for the route, why, and what comes of it."""

    threshold_tokens: Whole
    """Uncached tokens above which prefill is remote."""
    local_prefill: Whole | None = None
    """Instances that are asked for beside the decode workers to prefill."""
    decode: Whole | None = None
    """Instances that are asked for to decode."""
    wanted_local_prefill: Whole | None = None
    """Of these instances together, how many should prefill; absent with fixed roles, or while too little is known."""
    wanted_decode: Whole | None = None
    """The rest of them."""
    bound_by: Message = ""
    """What keeps the route from carrying more."""
    expected_requests_per_second: Measured | None = None
    """What the workers that are asked for carry at most, by the model."""
    expected_gain: Number | None = None
    """What the last change was to add to what prefill carries, relative."""
    measured_requests_per_second: Measured | None = None
    """What routers are asked for; written again when it is clearly another."""
    measured_gain: Number | None = None
    """Requests/s two minutes after the last change against those before it, relative. Where the load was below what the route
    carries, the load made it, and not the change."""
    requests_per_second_before: Measured | None = None
    """What routers were asked for when the plan last changed."""
    changed_time: AwareDatetime | None = None
    """When threshold or roles last changed."""
    source: ThresholdSource | None = None
    """Where lengths and rates come from, as for thresholdSource."""
    message: Message = ""
    """The plan for people."""
