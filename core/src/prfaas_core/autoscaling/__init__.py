"""How many replicas a pool should have, decided from signals as a HorizontalPodAutoscaler would, and held when they fail."""

from prfaas_core.autoscaling.decision import History, ScalingDecision, decide
from prfaas_core.autoscaling.observed import Ceiling, Floor, Observed, Reading
from prfaas_core.autoscaling.pace import Change, Recommendation
from prfaas_core.autoscaling.proposals import Proposal, distrust
from prfaas_core.autoscaling.reasons import FAULTS, ScalingReason
from prfaas_core.autoscaling.settings import (
    DOWN,
    STALE_AFTER_S,
    UP,
    Panic,
    Policy,
    PolicyType,
    Rules,
    SelectPolicy,
    Settings,
    TargetType,
)

__all__ = [
    "DOWN",
    "FAULTS",
    "STALE_AFTER_S",
    "UP",
    "Ceiling",
    "Change",
    "Floor",
    "History",
    "Observed",
    "Panic",
    "Policy",
    "PolicyType",
    "Proposal",
    "Reading",
    "Recommendation",
    "Rules",
    "ScalingDecision",
    "ScalingReason",
    "SelectPolicy",
    "Settings",
    "TargetType",
    "decide",
    "distrust",
]
