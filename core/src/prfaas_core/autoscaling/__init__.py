"""How many replicas a pool should have, decided from signals as a HorizontalPodAutoscaler would, and held when they fail."""

from prfaas_core.autoscaling.decision import History, ScalingDecision, decide
from prfaas_core.autoscaling.observed import Ceiling, Floor, Observed, Reading
from prfaas_core.autoscaling.pace import Change, Recommendation
from prfaas_core.autoscaling.proposals import Proposal, distrust
from prfaas_core.autoscaling.reasons import FAULTS, ScalingReason
from prfaas_core.autoscaling.settings import (
    DOWN,
    PREFILL_UP,
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
from prfaas_core.autoscaling.signals import (
    DECODE_SIGNALS,
    PREFILL_SIGNALS,
    PREFILL_TARGETS,
    QUANTILES,
    SignalName,
    Target,
    built_in_target_type,
    decode_targets,
    is_proportional,
)

__all__ = [
    "DECODE_SIGNALS",
    "DOWN",
    "FAULTS",
    "PREFILL_SIGNALS",
    "PREFILL_TARGETS",
    "PREFILL_UP",
    "QUANTILES",
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
    "SignalName",
    "Target",
    "TargetType",
    "built_in_target_type",
    "decide",
    "decode_targets",
    "distrust",
    "is_proportional",
]
