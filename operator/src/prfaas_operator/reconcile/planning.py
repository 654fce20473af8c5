"""What the planner is asked for a route, and what it says: threshold, roles, and the plan in the status."""

import contextlib
import functools
from dataclasses import replace

from prfaas_core.roles import Observed, Settings, prefill_bounds
from prfaas_core.traffic import Traffic
from prfaas_operator import api
from prfaas_operator.api.route_plan import RolesMode, RoutePlan, ThresholdSource
from prfaas_operator.configuration import threshold as thresholds
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile import plan_status, roles
from prfaas_operator.reconcile.context import Context, now
from prfaas_operator.reconcile.resolution import Pool, ResolutionError, Resolved, resolve
from prfaas_operator.reconcile.sizing import workers_of
from prfaas_operator.scaling.roles import ExchangingRoute, RolesView

# A threshold that is held may have been measured before that, and the status no longer says.
_FROM_MEASUREMENT = (ThresholdSource.MEASURED, ThresholdSource.HELD)
# For so many looks, or windows, advice to autoscalers outlasts the planner's last word.
_ADVICE_PERIODS = 3


def threshold(context: Context, stored: Stored, route: api.InferenceRoute, resolved: Resolved) -> thresholds.Threshold:
    """Return the threshold of a route."""
    newest = context.publisher.newest(stored.ref)
    before = None
    if newest is not None:
        before = thresholds.Before(newest.policy.threshold_tokens, route.status.threshold_source in _FROM_MEASUREMENT)
    return thresholds.choose(
        route.spec.policy.threshold,
        decode=_side(resolved.decode),
        local=_side(resolved.local) if resolved.local is not None else None,
        remote=_ways(resolved),
        before=before,
        mix=_mix(context, stored, resolved, context.publisher.traffic(stored.ref)),
    )


def exchanging_routes(context: Context) -> list[ExchangingRoute]:
    """Return every route whose instances may change roles."""
    found = []
    for namespace in sorted({ref.namespace for ref in context.store.refs((api.InferenceRoute.__name__,))}):
        for stored, route in roles.exchanging(context, namespace):
            wanted, period_s = route.spec.policy.roles, context.options.role_interval_s
            settings = Settings(
                min_gain=wanted.minimum_gain,
                window_s=wanted.stabilization_window_seconds,
                period_s=period_s,
                horizon_s=wanted.horizon_seconds,
                expiry_s=_ADVICE_PERIODS * max(period_s, wanted.stabilization_window_seconds),
            )
            observe = functools.partial(_observe, context, stored, route)
            here = ExchangingRoute(stored.ref, settings, route.status.roles, "", observe)
            try:
                pair = roles.exchange(context, stored, route)
            except roles.RefusedError as error:
                found.append(replace(here, refusal=str(error)))
                continue
            scalers = functools.partial(roles.scalers, context, pair)
            found.append(replace(here, prefill=pair.prefill, decode=pair.decode, scalers=scalers))
    return found


def roles_view(context: Context, stored: Stored, route: api.InferenceRoute | None) -> RolesView | None:
    """Return what is to be said about the roles of a route; None with fixed roles, and while nothing was decided."""
    if route is None or route.spec.policy.roles.mode is RolesMode.FIXED:
        return None
    return context.roles.view(stored.ref)


def plan(
    context: Context,
    stored: Stored,
    route: api.InferenceRoute | None,
    resolved: Resolved | None,
    threshold: thresholds.Threshold | None,
) -> RoutePlan | None:
    """Return the plan for the status of a route; without a threshold it stays as it was."""
    if route is None or resolved is None or threshold is None:
        return route.status.plan if route is not None else None
    traffic, view = context.publisher.traffic_now(stored.ref), roles_view(context, stored, route)
    return plan_status.plan(
        route.status.plan,
        threshold,
        plan_status.Sizes(
            local=resolved.local.desired if resolved.local is not None else None,
            decode=resolved.decode.desired,
            wanted_local=view.wanted_prefill if view is not None else None,
        ),
        traffic.rate_rps if traffic is not None else None,
        now(),
    )


def _observe(context: Context, stored: Stored, route: api.InferenceRoute) -> Observed:
    """Return a route that can exchange instances as the decision on roles sees it."""
    exchange = roles.exchange(context, stored, route)
    prefill, decode = exchange.prefill_replicas, exchange.decode_replicas
    if not exchange.scaled:
        to_decode = exchange.bounded(context.roles.to_decode(stored.ref, route.status.roles))
        prefill, decode = prefill - to_decode, decode + to_decode
    settled = roles.settled(context, exchange.prefill, prefill) and roles.settled(context, exchange.decode, decode)
    seen = Observed(
        prefill,
        decode,
        settled,
        split=None,
        drain_s=exchange.drain_s,
        start_s=exchange.start_s,
        scalers=roles.scalers(context, exchange),
    )
    # What was seen long ago says nothing about what should be done now.
    fresh = context.publisher.traffic_now(stored.ref)
    with contextlib.suppress(ResolutionError):
        resolved = resolve(context, stored, route)
        if resolved.local is not None and fresh is not None:
            split = thresholds.split(
                decode=_side(resolved.decode),
                local=_side(resolved.local),
                remote=_ways(resolved),
                mix=_mix(context, stored, resolved, fresh),
                prefill=prefill_bounds(seen),
            )
            return replace(seen, split=split)
    return seen


def _mix(context: Context, stored: Stored, resolved: Resolved, traffic: Traffic | None) -> thresholds.Mix:
    output_tokens = context.answers.output_tokens(workers_of(resolved.decode.model, stored.ref.namespace))
    if traffic is None:
        return thresholds.Mix(None, output_tokens)
    return thresholds.Mix(traffic.lengths, output_tokens, traffic.rate_rps, traffic.requests)


def _ways(resolved: Resolved) -> tuple[thresholds.Way, ...]:
    return tuple(
        thresholds.Way(_side(remote.pool), remote.usable_bps, remote.link.metadata.name, remote.pool.view.name)
        for remote in resolved.remote
    )


def _side(pool: Pool) -> thresholds.Side:
    return thresholds.Side(pool.view.profile, pool.desired, pool.ready, pool.view.wakes)
