"""What a route's status says, as a function of what was observed."""

from collections.abc import Sequence
from dataclasses import dataclass

from prfaas_operator import api
from prfaas_operator.api.conditions import ConditionStatus, ConditionType, Reason
from prfaas_operator.api.inference_route import ConfigurationStatus, RouterStatus
from prfaas_operator.api.route_plan import RolesMode, RolesStatus, RoutePlan
from prfaas_operator.configuration.publisher import RouterReport
from prfaas_operator.configuration.threshold import Threshold
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile.context import now
from prfaas_operator.reconcile.plan_status import prediction
from prfaas_operator.reconcile.resolution import ResolutionError, Resolved, bandwidth
from prfaas_operator.scaling.roles import RolesView
from prfaas_operator.status import Conditions, previous


@dataclass(frozen=True, slots=True)
class RouterPods:
    """How many routers there should be, and how many are ready; None where their cluster does not say."""

    expected: int
    ready: int | None


def route_status(
    stored: Stored,
    route: api.InferenceRoute | None,
    *,
    fault: ResolutionError | None,
    resolved: Resolved | None,
    threshold: Threshold | None,
    version: int,
    reports: Sequence[RouterReport],
    pods: RouterPods,
    roles: RolesView | None = None,
    plan: RoutePlan | None = None,
) -> api.InferenceRouteStatus:
    """Return the status of a route."""
    before = route.status if route is not None else api.InferenceRouteStatus()
    conditions = Conditions(stored.generation, now())
    expected = pods.expected
    routers = tuple(
        RouterStatus(
            name=report.name,
            cluster=report.cluster,
            version=report.version,
            acknowledged=report.version == version and version > 0,
            message=report.refusal if report.refused_version == version else "",
        )
        for report in reports
    )
    acknowledged = sum(router.acknowledged for router in routers)
    refusals = [router for router in routers if router.message]
    if refusals:
        message = "; ".join(f"{router.name}: {router.message}" for router in refusals)
        programmed, why = (False, Reason.CONFIGURATION_REFUSED), f"version {version} is refused by {message}"
    elif version > 0 and acknowledged >= expected > 0 and acknowledged == len(routers):
        programmed, why = (True, Reason.ROUTERS_ACKNOWLEDGED), f"{acknowledged} routers serve version {version}"
    else:
        programmed, why = (
            (False, Reason.ROUTERS_PENDING),
            f"{acknowledged} of {max(expected, len(routers))} routers serve version {version}",
        )
    conditions.set(ConditionType.PROGRAMMED, *programmed, why)
    _set_compatible(conditions, resolved)
    _set_roles(conditions, route, roles)
    _conclude(conditions, fault, resolved, pods.ready, programmed=programmed[0], why=(programmed[1], why))
    predicted, reason = prediction(before, threshold) if threshold is not None else (None, before.threshold_why)
    return api.InferenceRouteStatus(
        observed_generation=stored.generation,
        conditions=conditions.merge(previous(route)),
        threshold_tokens=threshold.tokens if threshold is not None else before.threshold_tokens,
        threshold_source=threshold.source if threshold is not None else before.threshold_source,
        threshold_why=reason,
        bandwidth=(bandwidth(route, resolved) if route is not None and resolved is not None else before.bandwidth),
        predicted_requests_per_second=predicted,
        plan=plan,
        roles=_roles_status(route, roles),
        configuration=ConfigurationStatus(version=version, routers=routers) if version > 0 or routers else None,
        routers_ready=f"{acknowledged}/{max(expected, len(routers))}",
    )


def _set_roles(conditions: Conditions, route: api.InferenceRoute | None, view: RolesView | None) -> None:
    if view is not None:
        conditions.set(ConditionType.ROLES, view.active, view.reason, view.message)
    elif route is not None and route.spec.policy.roles.mode is RolesMode.AUTO:
        found = route.status.condition(ConditionType.ROLES)
        if found is not None and found.reason in set(Reason) and found.reason != Reason.FIXED_ROLES:
            # A new operator says what the last one said until it has looked by itself.
            active = found.status is ConditionStatus.TRUE
            conditions.set(ConditionType.ROLES, active, Reason(found.reason), found.message)
        else:
            conditions.set(ConditionType.ROLES, None, Reason.PENDING, "no decision was taken yet")
    else:
        conditions.set(
            ConditionType.ROLES,
            False,
            Reason.FIXED_ROLES,
            "spec.policy.roles.mode is Fixed; instances keep their roles",
        )


def _roles_status(route: api.InferenceRoute | None, view: RolesView | None) -> RolesStatus | None:
    if route is None or route.spec.policy.roles.mode is RolesMode.FIXED:
        return None
    return view.status if view is not None else route.status.roles


def _set_compatible(conditions: Conditions, resolved: Resolved | None) -> None:
    if resolved is None:
        conditions.set(ConditionType.COMPATIBLE, None, Reason.PENDING, "the pools could not be compared")
        return
    different = [entry for entry in resolved.left_out if entry.reason is Reason.FINGERPRINTS_DIFFER]
    if different:
        text = "; ".join(entry.message for entry in different)
        conditions.set(ConditionType.COMPATIBLE, False, Reason.FINGERPRINTS_DIFFER, text)
    else:
        text = "all pools in use have one KV fingerprint"
        conditions.set(ConditionType.COMPATIBLE, True, Reason.FINGERPRINTS_EQUAL, text)


def _conclude(
    conditions: Conditions,
    fault: ResolutionError | None,
    resolved: Resolved | None,
    routers_ready: int | None,
    *,
    programmed: bool,
    why: tuple[Reason, str],
) -> None:
    if fault is not None or resolved is None:
        reason = fault.reason if fault is not None else Reason.PENDING
        message = fault.message if fault is not None else "nothing was observed yet"
        stalled = fault is not None and fault.stalled
        unknown = reason is Reason.CLUSTER_UNREACHABLE
        conditions.conclude(
            ready=None if unknown else False,
            reason=reason,
            message=message + ("; routers keep what they have" if unknown else ""),
            reconciling=not stalled,
            stalled=stalled,
        )
        return
    name = resolved.decode.view.name
    # Requests wait in the routers and wake it, so that nothing is missing while nobody asks.
    asleep = resolved.decode.view.wakes and resolved.decode.desired == resolved.decode.ready == 0
    if resolved.left_out:
        message = "; ".join(entry.message for entry in resolved.left_out)
        conditions.conclude(ready=False, reason=resolved.left_out[0].reason, message=message, stalled=True)
    elif not (resolved.decode.ready or asleep):
        conditions.conclude(
            ready=False, reason=Reason.NO_READY_DECODE, message=f"no worker of {name} is ready", reconciling=True
        )
    elif not routers_ready:
        conditions.conclude(ready=False, reason=Reason.NO_READY_ROUTER, message="no router is ready", reconciling=True)
    elif not programmed:
        refused = why[0] is Reason.CONFIGURATION_REFUSED
        conditions.conclude(ready=False, reason=why[0], message=why[1], reconciling=not refused, stalled=refused)
    elif asleep:
        message = f"{name} is scaled to zero; the next request waits in a router, and wakes it"
        conditions.conclude(ready=True, reason=Reason.DECODE_ASLEEP, message=message)
    else:
        conditions.conclude(ready=True, reason=Reason.AVAILABLE, message=why[1])
