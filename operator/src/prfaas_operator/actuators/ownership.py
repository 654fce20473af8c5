"""Who sets the number of a pool's workers: exactly one of people, the autoscaler of PrfaaS, or another autoscaler.

The API server refuses `replicas` beside `scaling`, so that another autoscaler cannot write to a pool with `scaling`. What it
cannot refuse is reported here: two autoscalers on one pool, which undo each other's decisions without an error of their own
where the pool's pods are in another cluster, and one on a pool whose number a route changes by roles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prfaas_operator.actuators.autoscalers import Autoscaler
from prfaas_operator.api.conditions import Reason


@dataclass(frozen=True, slots=True)
class Ownership:
    """The condition ReplicasOwned; `owned` is None where the owner is not known."""

    owned: bool | None
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Writer:
    """A field manager whose `spec.replicas` it is, as the API server recorded it."""

    manager: str
    by_scale: bool  # through the scale subresource

    def __str__(self) -> str:
        return f"{self.manager} through the scale subresource" if self.by_scale else self.manager


@dataclass(frozen=True, slots=True)
class Claims:
    """All that may set the number of one pool's workers.

    Attributes:
        scaling: whether the pool has `scaling`.
        writers: that set the present number. Those of several agree on it, since another number takes the field away.
        autoscalers: those whose target is the pool; `fault` says why they are not known.
        exchanging_route: the route with roles Auto that changes the pool's number.
        elsewhere: whether the pool's pods are in another cluster than the hub.
    """

    scaling: bool
    writers: Sequence[Writer] = ()
    autoscalers: Sequence[Autoscaler] = ()
    fault: str | None = None
    exchanging_route: str | None = None
    elsewhere: bool = False


def writers_of(metadata: Mapping[str, Any]) -> tuple[Writer, ...]:
    """Return who set `spec.replicas`, from the managed fields of an object."""
    found = {
        Writer(entry["manager"], entry.get("subresource") == "scale")
        for entry in metadata.get("managedFields") or ()
        if "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
    }
    return tuple(sorted(found, key=str))


def decide(claims: Claims) -> Ownership:
    """Return the owner of a pool's number, or the conflict between several and the way out of it."""
    if claims.autoscalers and (conflict := _conflict(claims)) is not None:
        return Ownership(False, Reason.OWNERS_CONFLICT, conflict)
    if claims.scaling:
        message = "spec.scaling sets the number of workers"
        if claims.fault is not None:
            message += f"; whether another autoscaler tries to as well is not known: {claims.fault}"
        return Ownership(True, Reason.OWNED_BY_SCALING, message)
    writers = " and ".join(str(writer) for writer in claims.writers)
    written = f", set by {writers}" if writers else ""
    if claims.fault is not None:
        return Ownership(None, Reason.OWNERS_UNKNOWN, f"spec.replicas{written}; {claims.fault}")
    if not claims.autoscalers:
        return Ownership(True, Reason.OWNED_BY_SPEC, f"spec.replicas{written}")
    (autoscaler,) = claims.autoscalers
    bounds = f"between {autoscaler.min_replicas} and {autoscaler.max_replicas}"
    message = f"{autoscaler} sets spec.replicas {bounds}"
    if writers:
        message += f"; the present number was set by {writers}"
    if claims.elsewhere and autoscaler.counting:
        message += (
            f"; its target for {' and '.join(autoscaler.counting)} is of type Value, for which Kubernetes counts the ready pods"
            " in the hub, and this pool has none there: use AverageValue"
        )
    reason = Reason.OWNED_BY_HPA if autoscaler.scaled_object is None else Reason.OWNED_BY_KEDA
    return Ownership(True, reason, message)


def _conflict(claims: Claims) -> str | None:
    first, *others = claims.autoscalers
    names = " and ".join(str(autoscaler) for autoscaler in claims.autoscalers)
    if claims.scaling:
        return (
            f"spec.scaling and {names} both size the pool, and the API server refuses what the latter writes; "
            f"delete {'them' if others else 'it'}, or replace spec.scaling by spec.replicas for one of them to set"
        )
    if claims.exchanging_route is not None:
        return (
            f"{names} and the roles of InferenceRoute {claims.exchanging_route} both size the pool, so no instance changes "
            f"its role; set policy.roles.mode Fixed, or delete {'them' if others else first}"
        )
    return f"{names} all set spec.replicas; delete all but one" if others else None
