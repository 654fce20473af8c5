"""Conditions after the kstatus convention, and every reason that one can carry.

`Ready` says whether the object does what its spec says. `Reconciling` and `Stalled` are True only while work goes on or
nothing more will happen by itself; the other types are about one matter each. docs/objects.md lists all of this, and a
test compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import AwareDatetime

from prfaas_operator.api.model import StatusModel
from prfaas_operator.api.scalars import CamelCase, Message, Whole

MAX_MESSAGE: Final = 32768


class ConditionType(StrEnum):
    """What a condition is about."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    REACHABLE = "Reachable"
    SCALING = "ScalingActive"
    REPLICAS_OWNED = "ReplicasOwned"
    COMPATIBLE = "Compatible"
    PROGRAMMED = "Programmed"
    ROLES = "RolesActive"


TYPES: Final[dict[ConditionType, str]] = {
    ConditionType.READY: "The object does what its spec says. Unknown while that cannot be seen.",
    ConditionType.RECONCILING: "True while the operator still works towards the spec.",
    ConditionType.STALLED: "True when the operator cannot go on before somebody changes something.",
    ConditionType.REACHABLE: "MemberCluster: its API server answers and accepts the credentials.",
    ConditionType.SCALING: "Pools: the autoscaler has a signal and decides. False holds the last number of replicas.",
    ConditionType.REPLICAS_OWNED: "Pools: exactly one of people, PrfaaS or another autoscaler sets the number of workers, and the message says which.",
    ConditionType.COMPATIBLE: "InferenceRoute: the KV fingerprints of all its pools are equal.",
    ConditionType.PROGRAMMED: "InferenceRoute: every router has acknowledged the newest configuration.",
    ConditionType.ROLES: "InferenceRoute: instances change roles with the load. False: they stay as they are.",
}


class ConditionStatus(StrEnum):
    """True, False, or Unknown where nothing was observed."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Why a condition has its status, for machines; the message beside it is for people."""

    # Any object
    AVAILABLE = "Available"
    RECONCILED = "Reconciled"
    PROGRESSING = "Progressing"
    PENDING = "Pending"
    DELETING = "Deleting"
    INVALID_SPEC = "InvalidSpec"
    INTERNAL_ERROR = "InternalError"
    # References
    CLUSTER_NOT_FOUND = "ClusterNotFound"
    CLUSTER_UNREACHABLE = "ClusterUnreachable"
    PROFILE_NOT_FOUND = "ProfileNotFound"
    POOL_NOT_FOUND = "PoolNotFound"
    LINK_NOT_FOUND = "LinkNotFound"
    LINK_AMBIGUOUS = "LinkAmbiguous"
    # MemberCluster
    PROBE_SUCCEEDED = "ProbeSucceeded"
    PROBE_FAILED = "ProbeFailed"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105  a reason, not a password
    KUBECONFIG_INVALID = "KubeconfigInvalid"
    CREDENTIALS_REFUSED = "CredentialsRefused"
    # Children in a member cluster
    ADOPTION_REFUSED = "AdoptionRefused"
    APPLY_CONFLICT = "ApplyConflict"
    APPLY_FORBIDDEN = "ApplyForbidden"
    APPLY_INVALID = "ApplyInvalid"
    APPLY_FAILED = "ApplyFailed"
    NAMESPACE_UNAVAILABLE = "NamespaceUnavailable"
    # Pools
    ROLLING_OUT = "RollingOut"
    ROLLOUT_STALLED = "RolloutStalled"
    REPLICAS_UNAVAILABLE = "ReplicasUnavailable"
    SCALED_TO_ZERO = "ScaledToZero"
    DRAINING = "Draining"
    # Autoscaling
    FIXED_REPLICAS = "FixedReplicas"
    SIGNAL_OBSERVED = "SignalObserved"
    SIGNAL_MISSING = "SignalMissing"
    SIGNAL_STALE = "SignalStale"
    SIGNAL_INVALID = "SignalInvalid"
    SIGNAL_INCOMPLETE = "SignalIncomplete"
    SIGNAL_IMPLAUSIBLE = "SignalImplausible"
    DEMAND_UNKNOWN = "DemandUnknown"
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
    PROMETHEUS_NOT_CONFIGURED = "PrometheusNotConfigured"
    # Who sets the number of workers
    OWNED_BY_SPEC = "OwnedBySpec"
    OWNED_BY_SCALING = "OwnedByScaling"
    OWNED_BY_HPA = "OwnedByHPA"
    OWNED_BY_KEDA = "OwnedByKEDA"
    OWNERS_CONFLICT = "OwnersConflict"
    OWNERS_UNKNOWN = "OwnersUnknown"
    # InferenceRoute
    FINGERPRINTS_EQUAL = "FingerprintsEqual"
    FINGERPRINTS_DIFFER = "FingerprintsDiffer"
    MODEL_MISMATCH = "ModelMismatch"
    CLUSTER_MISMATCH = "ClusterMismatch"
    NO_READY_DECODE = "NoReadyDecode"
    DECODE_ASLEEP = "DecodeAsleep"
    NO_READY_ROUTER = "NoReadyRouter"
    ROUTERS_ACKNOWLEDGED = "RoutersAcknowledged"
    ROUTERS_PENDING = "RoutersPending"
    CONFIGURATION_REFUSED = "ConfigurationRefused"
    FIXED_ROLES = "FixedRoles"
    ROLES_PLANNED = "RolesPlanned"
    ROLES_REFUSED = "RolesRefused"
    INPUTS_MISSING = "InputsMissing"
    # Budget
    BUDGET_EXCEEDED = "BudgetExceeded"
    COST_UNKNOWN = "CostUnknown"


REASONS: Final[dict[Reason, str]] = {
    Reason.AVAILABLE: "Everything that the spec asks for is there and ready.",
    Reason.RECONCILED: "Nothing is left to do for this generation.",
    Reason.PROGRESSING: "Changes were made and are not complete yet.",
    Reason.PENDING: "Nothing was observed so far.",
    Reason.DELETING: "The object is being deleted, and what belongs to it is being removed.",
    Reason.INVALID_SPEC: "The spec passes the API server but not the operator; the message names the field.",
    Reason.INTERNAL_ERROR: "The operator failed and will try again; its log has the details.",
    Reason.CLUSTER_NOT_FOUND: "No MemberCluster has the name that is referred to.",
    Reason.CLUSTER_UNREACHABLE: "The member cluster does not answer; its last known state is kept.",
    Reason.PROFILE_NOT_FOUND: "No ModelProfile has the name that is referred to.",
    Reason.POOL_NOT_FOUND: "A pool that the route refers to does not exist.",
    Reason.LINK_NOT_FOUND: "No KVLink leads from a remote pool's cluster to the decode pool's.",
    Reason.LINK_AMBIGUOUS: "More than one KVLink leads between the same two clusters.",
    Reason.PROBE_SUCCEEDED: "The last probe of the cluster was answered.",
    Reason.PROBE_FAILED: "The last probe found no answer: address, TLS or time limit.",
    Reason.SECRET_NOT_FOUND: "The Secret with the kubeconfig, or its key, does not exist.",
    Reason.KUBECONFIG_INVALID: "The kubeconfig cannot be read or asks for something that is not supported.",
    Reason.CREDENTIALS_REFUSED: "The API server answered 401 or 403 to the credentials.",
    Reason.ADOPTION_REFUSED: "An object of that name exists in the member cluster and is not ours.",
    Reason.APPLY_CONFLICT: "Another field manager owns a field that PrfaaS sets.",
    Reason.APPLY_FORBIDDEN: "The credentials do not allow the change; see the chart prfaas-member.",
    Reason.APPLY_INVALID: "The member's API server refuses the object, usually because of the pod template.",
    Reason.APPLY_FAILED: "The member's API server failed; it is tried again.",
    Reason.NAMESPACE_UNAVAILABLE: "The namespace does not exist in the member cluster, cannot be made, or is terminating.",
    Reason.ROLLING_OUT: "Pods of the newest template are being started.",
    Reason.ROLLOUT_STALLED: "The rollout makes no progress within its deadline.",
    Reason.REPLICAS_UNAVAILABLE: "Fewer workers are ready than desired.",
    Reason.SCALED_TO_ZERO: "The pool is ready as asked for, with no workers.",
    Reason.DRAINING: "The workers that are asked for are ready; others finish what they have, and then go.",
    Reason.FIXED_REPLICAS: "The pool has `replicas` and is not scaled by PrfaaS.",
    Reason.SIGNAL_OBSERVED: "The signal was read and a decision taken.",
    Reason.SIGNAL_MISSING: "The query returns nothing; replicas hold.",
    Reason.SIGNAL_STALE: "The newest sample is too old; replicas hold.",
    Reason.SIGNAL_INVALID: "The answer is not one finite number of at least 0, counts a worker twice, or the query is refused; replicas hold.",
    Reason.SIGNAL_INCOMPLETE: "Not every ready worker reports; replicas hold.",
    Reason.SIGNAL_IMPLAUSIBLE: "The value cannot be, such as a fraction above 1: the unit may be another; replicas hold.",
    Reason.DEMAND_UNKNOWN: "No router says whether the sleeping pool is wanted; it sleeps on.",
    Reason.PROMETHEUS_UNREACHABLE: "Prometheus cannot be connected to, or breaks off; replicas hold.",
    Reason.PROMETHEUS_TIMEOUT: "Prometheus does not answer within the time limit; replicas hold.",
    Reason.PROMETHEUS_FAILED: "Prometheus answers with an error, such as status 500; replicas hold.",
    Reason.PROMETHEUS_UNAUTHORIZED: "Prometheus refuses the credentials (401 or 403); replicas hold.",
    Reason.PROMETHEUS_THROTTLED: "Prometheus asks for fewer questions (429); replicas hold.",
    Reason.PROMETHEUS_REDIRECTED: "The URL leads elsewhere, often to a login page; redirects are not followed; replicas hold.",
    Reason.PROMETHEUS_CERTIFICATE_INVALID: "The certificate of Prometheus is not trusted; replicas hold.",
    Reason.PROMETHEUS_ANSWER_INVALID: "The answer is not one of the Prometheus HTTP API, or is cut off; replicas hold.",
    Reason.PROMETHEUS_ANSWER_TOO_LARGE: "The answer is larger than any that could be meant; replicas hold.",
    Reason.PROMETHEUS_CLOCK_SKEWED: "The clocks of Prometheus and of the operator differ; replicas hold.",
    Reason.PROMETHEUS_NOT_CONFIGURED: "Neither the member nor the operator has a Prometheus, or its credentials are missing; replicas hold.",
    Reason.OWNED_BY_SPEC: "People set `spec.replicas`, or a tool of theirs such as `kubectl scale` or GitOps.",
    Reason.OWNED_BY_SCALING: "The autoscaler of PrfaaS sizes the pool by `spec.scaling`.",
    Reason.OWNED_BY_HPA: "A HorizontalPodAutoscaler sets `spec.replicas` through the scale subresource.",
    Reason.OWNED_BY_KEDA: "A ScaledObject of KEDA does, through the HorizontalPodAutoscaler that it makes.",
    Reason.OWNERS_CONFLICT: "Several want to set the number of workers; the message names them and the way out.",
    Reason.OWNERS_UNKNOWN: "HorizontalPodAutoscalers cannot be read, so whether one sizes the pool is not known.",
    Reason.FINGERPRINTS_EQUAL: "All pools of the route can hand KV to each other.",
    Reason.FINGERPRINTS_DIFFER: "Two pools cannot hand KV to each other; the message names the fields.",
    Reason.MODEL_MISMATCH: "The profile of a pool is for another model than the route.",
    Reason.CLUSTER_MISMATCH: "The local prefill pool is not in the decode pool's cluster, or a remote one is.",
    Reason.NO_READY_DECODE: "No decode worker is ready.",
    Reason.DECODE_ASLEEP: "The decode pool is scaled to zero; requests wait in the routers until it has a worker again.",
    Reason.NO_READY_ROUTER: "No router of the route is ready.",
    Reason.ROUTERS_ACKNOWLEDGED: "All routers serve the newest configuration.",
    Reason.ROUTERS_PENDING: "Some routers have not answered the newest configuration yet.",
    Reason.CONFIGURATION_REFUSED: "A router refuses the newest configuration and keeps its last good one.",
    Reason.FIXED_ROLES: "`policy.roles.mode` is Fixed: pools have the replicas of their specs.",
    Reason.ROLES_PLANNED: "The best roles were computed and a decision taken.",
    Reason.ROLES_REFUSED: "The pools of the route cannot exchange instances; the message says why.",
    Reason.INPUTS_MISSING: "Too little is measured to plan roles; they hold.",
    Reason.BUDGET_EXCEEDED: "Pools have more than the budget allows, and none of them may give it up.",
    Reason.COST_UNKNOWN: "What a worker of some pool costs is not known; that pool does not grow.",
}


class Condition(StatusModel):
    """One observation about the object."""

    type: CamelCase
    """What the condition is about, such as Ready."""
    status: ConditionStatus
    """True, False, or Unknown where nothing was observed."""
    reason: CamelCase
    """Why, for machines; docs/objects.md lists all of them."""
    message: Message = ""
    """Why, for people."""
    observed_generation: Whole | None = None
    """The generation of the spec that this is about."""
    last_transition_time: AwareDatetime
    """When the status last became another."""


def condition(
    type_: ConditionType,
    status: ConditionStatus | bool | None,
    reason: Reason,
    message: str,
    *,
    generation: int | None,
    now: datetime,
) -> Condition:
    """Return a condition as of `now`; a status of None reads as Unknown."""
    if status is None:
        status = ConditionStatus.UNKNOWN
    elif isinstance(status, bool):
        status = ConditionStatus.TRUE if status else ConditionStatus.FALSE
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message[:MAX_MESSAGE],
        observed_generation=generation,
        last_transition_time=now.replace(microsecond=0),
    )


def merged(old: Iterable[Condition], new: Iterable[Condition]) -> tuple[Condition, ...]:
    """Return `new`, each with the transition time of the old condition of its type unless its status changed."""
    before = {found.type: found for found in old}
    result: list[Condition] = []
    for found in new:
        last = before.get(found.type)
        if last is not None and last.status == found.status:
            found = found.model_copy(update={"last_transition_time": last.last_transition_time})
        result.append(found)
    return tuple(result)
