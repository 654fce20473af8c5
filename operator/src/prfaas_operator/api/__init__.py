"""The objects of the group `prfaas.dev`, version v1alpha1: models of what users write and what the operator answers.

`crds/` is generated from these models. Each kind has a module; `KINDS` has them in the order in which a person would
write them.
"""

from __future__ import annotations

from typing import Final

from prfaas_operator.api.budget import Budget, BudgetSpec, BudgetStatus
from prfaas_operator.api.decode_pool import DecodePool, DecodePoolSpec
from prfaas_operator.api.inference_route import InferenceRoute, InferenceRouteSpec, InferenceRouteStatus
from prfaas_operator.api.kv_link import KVLink, KVLinkSpec, KVLinkStatus
from prfaas_operator.api.member_cluster import MemberCluster, MemberClusterSpec, MemberClusterStatus
from prfaas_operator.api.model import explain
from prfaas_operator.api.model_profile import ModelProfile, ModelProfileSpec, ModelProfileStatus
from prfaas_operator.api.pool import Pool, PoolSpec, PoolStatus
from prfaas_operator.api.prefill_pool import PrefillPool, PrefillPoolSpec
from prfaas_operator.api.resource import API_VERSION, CATEGORY, GROUP, VERSION, Resource

KINDS: Final[tuple[type[Resource], ...]] = (
    MemberCluster,
    ModelProfile,
    PrefillPool,
    DecodePool,
    KVLink,
    InferenceRoute,
    Budget,
)

__all__ = [
    "API_VERSION",
    "CATEGORY",
    "GROUP",
    "KINDS",
    "VERSION",
    "Budget",
    "BudgetSpec",
    "BudgetStatus",
    "DecodePool",
    "DecodePoolSpec",
    "InferenceRoute",
    "InferenceRouteSpec",
    "InferenceRouteStatus",
    "KVLink",
    "KVLinkSpec",
    "KVLinkStatus",
    "MemberCluster",
    "MemberClusterSpec",
    "MemberClusterStatus",
    "ModelProfile",
    "ModelProfileSpec",
    "ModelProfileStatus",
    "Pool",
    "PoolSpec",
    "PoolStatus",
    "PrefillPool",
    "PrefillPoolSpec",
    "Resource",
    "explain",
]
