"""What a pool's status says about its size."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from prfaas_core.autoscaling import TargetType
from prfaas_operator.api.model import StatusModel
from prfaas_operator.api.scalars import CamelCase, Measured, Message, Number, Seconds, Term, Whole

MAX_DECISIONS: Final = 20


class Decision(StatusModel):
    """A decision and why it was taken."""

    reason: CamelCase
    """Why, for machines."""
    message: Message = ""
    """Why, for people, with the numbers."""
    time: AwareDatetime
    """When it was taken."""


class ScalingRecord(StatusModel):
    """A decision that differed from the one before, in the number of workers or in its reason."""

    time: AwareDatetime
    """When it was taken first."""
    from_replicas: Whole
    """Workers that were asked for before."""
    to_replicas: Whole
    """Workers that were asked for after it."""
    reason: CamelCase
    """Why, for machines."""
    message: Message = ""
    """Why, for people, with the numbers of that moment."""


class SignalStatus(StatusModel):
    """One signal as it was last read."""

    name: Term
    """What was measured; several queries are numbered."""
    query: Message | None = None
    """The PromQL."""
    value: Number | None = None
    """What was read; absent if nothing could be."""
    target_value: Number
    """What it should be: for a total, for each worker."""
    target_type: TargetType
    """Value: a mean or a quantile over workers. AverageValue: a total."""
    guard: bool = False
    """It was added by PrfaaS, and only keeps the pool from shrinking."""
    proposed_replicas: Whole | None = None
    """Workers that it asks for; absent if nothing could be read."""
    reason: CamelCase
    """Why, for machines."""
    message: Message = ""
    """What is wrong with it, for people."""


class LoadForecast(StatusModel):
    """What is predicted, and how right predictions were."""

    predicted_replicas: Whole | None = None
    """Workers that the predicted load asks for; absent while nothing can be predicted."""
    target_time: AwareDatetime | None = None
    """The time that is predicted."""
    error: Measured | None = None
    """Mean absolute error of the predictions for the time that has passed since, relative to what happened."""
    message: Message = ""
    """How it was predicted, or why it could not be."""


class AutoscalingStatus(StatusModel):
    """What the autoscaler saw and decided."""

    signals: Annotated[tuple[SignalStatus, ...], Field(max_length=16)] = ()
    """The signals, as they were at the last decision that is shown here."""
    desired_replicas: Whole | None = None
    """What it asked for, within the bounds."""
    wanted_replicas: Whole | None = None
    """What the signals alone ask for; absent if they say nothing."""
    last_decision: Decision | None = None
    """The last decision, also when it was to hold. It is written again when it differs, and every minute."""
    decisions: Annotated[tuple[ScalingRecord, ...], Field(max_length=MAX_DECISIONS)] = ()
    """The last decisions that differed from the one before, newest first."""
    period_seconds: Seconds | None = None
    """Seconds from one look to the next."""
    last_scale_time: AwareDatetime | None = None
    """When the number of workers last changed."""
    forecast: LoadForecast | None = None
    """What is predicted; absent with mode Off."""
