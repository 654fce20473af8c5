"""Why a pool has the replicas it has."""

from __future__ import annotations

import enum


class ScalingReason(enum.StrEnum):
    """What decided, in the last place, about a number of replicas."""

    WITHIN_TOLERANCE = "WithinTolerance"
    ABOVE_TARGET = "AboveTarget"
    BELOW_TARGET = "BelowTarget"
    PANIC = "Panic"
    STABILIZED = "Stabilized"
    RATE_LIMITED = "RateLimited"
    FLAPPING = "Flapping"
    AT_MAXIMUM = "AtMaximum"
    AT_MINIMUM = "AtMinimum"
    WAITING_FOR_PODS = "WaitingForPods"
    SETTLING = "Settling"
    ACTIVATED = "Activated"
    IDLE = "Idle"
    COOLING_DOWN = "CoolingDown"
    SCHEDULED_FLOOR = "ScheduledFloor"
    FORECAST_FLOOR = "ForecastFloor"
    PLANNER_FLOOR = "PlannerFloor"
    PLANNER_CEILING = "PlannerCeiling"
    LINK_CEILING = "LinkCeiling"
    BUDGET_CEILING = "BudgetCeiling"
    SIGNAL_MISSING = "SignalMissing"
    SIGNAL_INVALID = "SignalInvalid"
    SIGNAL_STALE = "SignalStale"
    SIGNAL_INCOMPLETE = "SignalIncomplete"
    SIGNAL_IMPLAUSIBLE = "SignalImplausible"
    DEMAND_UNKNOWN = "DemandUnknown"
    PROMETHEUS_NOT_CONFIGURED = "PrometheusNotConfigured"
    PROMETHEUS_UNREACHABLE = "PrometheusUnreachable"
    PROMETHEUS_TIMEOUT = "PrometheusTimeout"
    PROMETHEUS_FAILED = "PrometheusFailed"
    PROMETHEUS_UNAUTHORIZED = "PrometheusUnauthorized"
    PROMETHEUS_THROTTLED = "PrometheusThrottled"
    PROMETHEUS_REDIRECTED = "PrometheusRedirected"
    PROMETHEUS_CERTIFICATE_INVALID = "PrometheusCertificateInvalid"
    PROMETHEUS_ANSWER_INVALID = "PrometheusAnswerInvalid"
    PROMETHEUS_ANSWER_TOO_LARGE = "PrometheusAnswerTooLarge"
    PROMETHEUS_CLOCK_SKEWED = "PrometheusClockSkewed"


FAULTS = frozenset(reason for reason in ScalingReason if reason.value.startswith(("Signal", "Prometheus"))) | {
    ScalingReason.DEMAND_UNKNOWN
}
"""Reasons that mean that there was nothing to go by; replicas hold."""
