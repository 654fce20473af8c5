"""The long-term loop: instances beside the decode workers that change between prefill and decode.

A conversion is two numbers of replicas that change together: one pool gives an instance away, and lets it finish what it has
begun, and the other gets one. `spec.replicas` of both pools stays what people write; what was converted is kept in the
status of the route, as an autoscaler keeps what it decided. Pools with `scaling` get advice: see `prfaas_core.roles`.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from prfaas_core import roles
from prfaas_core.autoscaling import Ceiling, Floor, ScalingReason
from prfaas_operator import api
from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.route_plan import RolesAdvice, RolesStatus
from prfaas_operator.api.scaling_status import Decision
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import Ref

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ExchangingRoute:
    """A route whose instances may change roles, as it is known at the moment.

    Attributes:
        status: as it stands on the hub.
        refusal: why they cannot; empty if they can.
        observe: the planner's answer is costly, so it is asked for only when it is needed.
        prefill, decode: the pools; None where they cannot exchange instances.
        scalers: what their autoscalers say; None where both have fixed sizes.
    """

    ref: Ref
    settings: roles.Settings
    status: RolesStatus | None
    refusal: str
    observe: Callable[[], roles.Observed]
    prefill: Ref | None = None
    decode: Ref | None = None
    scalers: Callable[[], tuple[roles.Autoscaler, roles.Autoscaler] | None] = lambda: None


@dataclass(frozen=True, slots=True)
class RolesView:
    """What the route's status says about roles."""

    status: RolesStatus
    active: bool
    reason: Reason
    message: str
    wanted_prefill: int | None = None


@dataclass(slots=True)
class _State:
    route: ExchangingRoute
    status: RolesStatus
    history: roles.History
    view: RolesView | None = None


class RoleBalancer:
    """Decides for every route with roles `Auto`, at a steady pace.

    `on_change` hears of routes whose status is no longer what it was, with the conversion, if there is one: +1 is from prefill to
    decode.
    """

    def __init__(
        self,
        *,
        routes: Callable[[], list[ExchangingRoute]],
        on_change: Callable[[Ref, int, str], None],
        metrics: Metrics,
        interval_s: float,
    ) -> None:
        self._routes = routes
        self._on_change = on_change
        self._metrics = metrics
        self._interval_s = interval_s
        self._states: dict[Ref, _State] = {}

    async def run(self) -> None:
        """Decide until cancelled."""
        # Advice of before goes on at once.
        for route in self._routes():
            self._known(route)
        while True:
            # The first decision comes after an interval: right after a start little is known.
            await asyncio.sleep(self._interval_s)
            routes = self._routes()
            for gone in self._states.keys() - {route.ref for route in routes}:
                del self._states[gone]
            for route in routes:
                try:
                    self.decide(route)
                except Exception:  # noqa: BLE001  one failure must not stop the others
                    _log.exception("no decision on roles", route=str(route.ref))

    def floors(self, pool: Ref) -> tuple[Floor, ...]:
        """Return what a pool with `scaling` has at least after a conversion."""
        return tuple(
            Floor(_size(advice, pool), ScalingReason.PLANNER_FLOOR, _advised(route, advice, pool))
            for route, advice in self._advice(pool)
            if (advice.to_decode > 0) == (pool == route.decode)
        )

    def ceilings(self, pool: Ref) -> tuple[Ceiling, ...]:
        """Return what a pool with `scaling` has at most after a conversion."""
        return tuple(
            Ceiling(_size(advice, pool), ScalingReason.PLANNER_CEILING, _advised(route, advice, pool), hard=True)
            for route, advice in self._advice(pool)
            if (advice.to_decode > 0) == (pool == route.prefill)
        )

    def to_decode(self, ref: Ref, status: RolesStatus | None) -> int:
        """Return how many instances of a route have changed from prefill to decode; `status` is what stands on the hub."""
        state = self._states.get(ref)
        found = state.status if state is not None else status
        return found.to_decode if found is not None else 0

    def view(self, ref: Ref) -> RolesView | None:
        state = self._states.get(ref)
        return state.view if state is not None else None

    def decide(self, route: ExchangingRoute) -> None:
        """Look at one route, and decide."""
        state = self._known(route)
        if route.refusal:
            state.history = roles.History()
            state.status = state.status.model_copy(update={"advice": None})
            self._publish(route.ref, state, RolesView(state.status, False, Reason.ROLES_REFUSED, route.refusal))
            return
        seen = route.observe()
        decision = roles.decide(seen, route.settings, state.history, time.monotonic())
        state.history = decision.history
        self._metrics.role_decisions.labels(route.ref.namespace, route.ref.name, decision.reason.value).inc()
        now = datetime.now(UTC).replace(microsecond=0)
        message = _described(seen, decision)
        before = state.status
        state.status = RolesStatus(
            to_decode=before.to_decode + decision.to_decode if seen.scalers is None else 0,
            advice=_advice_status(decision.history.advice),
            last_decision=Decision(reason=decision.reason.value, message=message, time=now),
            last_conversion_time=now if decision.to_decode else before.last_conversion_time,
        )
        if decision.to_decode:
            _log.info("an instance changes its role", route=str(route.ref), to_decode=decision.to_decode, why=message)
        known = decision.reason is not roles.RolesReason.INPUTS_MISSING
        reason = Reason.ROLES_PLANNED if known else Reason.INPUTS_MISSING
        view = RolesView(state.status, known, reason, message, decision.wanted_prefill)
        self._publish(route.ref, state, view, decision.to_decode)

    def _known(self, route: ExchangingRoute) -> _State:
        """Return the state of a route; a new operator goes on from what the status says."""
        state = self._states.get(route.ref)
        if state is None:
            status = route.status or RolesStatus()
            advice = None
            if status.advice is not None:
                said = status.advice
                advice = roles.Advice(
                    said.to_decode, said.prefill_replicas, said.decode_replicas, None, time.monotonic()
                )
            state = self._states[route.ref] = _State(route, status, roles.History(advice=advice))
        state.route = route
        return state

    def _advice(self, pool: Ref) -> Iterator[tuple[ExchangingRoute, roles.Advice]]:
        """Yield the advice to a pool that stands now."""
        for state in self._states.values():
            route = state.route
            if pool not in (route.prefill, route.decode) or state.history.advice is None:
                continue
            history = roles.relieved(state.history, route.scalers(), route.settings, time.monotonic())
            if history != state.history:
                state.history = history
                state.status = state.status.model_copy(update={"advice": _advice_status(history.advice)})
                _log.info("advice has fallen", route=str(route.ref), taken_back=history.taken_back is not None)
                if state.view is not None:
                    state.view = replace(state.view, status=state.status)
                self._on_change(route.ref, 0, "")
            if history.advice is not None:
                yield route, history.advice

    def _publish(self, ref: Ref, state: _State, view: RolesView, converted: int = 0) -> None:
        before = state.view
        if before is None or converted or _told(before) != _told(view):
            state.view = view
            self._on_change(ref, converted, view.message)


def _told(view: RolesView) -> tuple[Reason, str, int | None]:
    decision = view.status.last_decision
    return view.reason, decision.reason if decision is not None else view.message, view.wanted_prefill


def _size(advice: roles.Advice, pool: Ref) -> int:
    return advice.decode if pool.kind == api.DecodePool.__name__ else advice.prefill


def _advised(route: ExchangingRoute, advice: roles.Advice, pool: Ref) -> str:
    bound = "at least" if (advice.to_decode > 0) == (pool == route.decode) else "at most"
    return f"route {route.ref.name} advises {bound} {_size(advice, pool)}, since an instance changed its role"


def _advice_status(advice: roles.Advice | None) -> RolesAdvice | None:
    if advice is None:
        return None
    return RolesAdvice(to_decode=advice.to_decode, prefill_replicas=advice.prefill, decode_replicas=advice.decode)


def _described(seen: roles.Observed, decision: roles.RolesDecision) -> str:
    here = f"{seen.prefill} prefill and {seen.decode} decode"
    if decision.wanted_prefill is None:
        if decision.reason is roles.RolesReason.AT_BOUNDS:
            return f"{here} hold: minReplicas and maxReplicas of the pools leave no other roles"
        return f"{here} hold: too little is measured to plan" if seen.split is None else f"{here} hold"
    wanted = f"{decision.wanted_prefill} and {seen.prefill + seen.decode - decision.wanted_prefill}"
    gain = f"{decision.gain:.0%} more" if decision.gain is not None and decision.gain < 100 else "far more"
    if decision.net_gain is not None and decision.gain is not None and decision.net_gain < decision.gain:
        gain += f", {decision.net_gain:.0%} after drain and start"
    match decision.reason:
        case roles.RolesReason.BEST_SPLIT:
            return f"{here} carry most"
        case roles.RolesReason.GAIN_TOO_SMALL:
            return f"{here} hold: {wanted} would carry {gain}, which is not worth a conversion"
        case roles.RolesReason.STABILIZING:
            return f"{here} hold: {wanted} would carry {gain}, which has to last"
        case roles.RolesReason.CONVERSION_RUNNING:
            return f"{here} are not all there yet; {wanted} would carry {gain}"
        case roles.RolesReason.COOLING_DOWN:
            return f"{here} hold after the last conversion; {wanted} would carry {gain}"
        case roles.RolesReason.AUTOSCALER_SETTLING:
            return f"{here} hold while an autoscaler settles on a new size; {wanted} would carry {gain}"
        case roles.RolesReason.AUTOSCALER_SILENT:
            return f"{here} hold: an autoscaler does not know what its pool needs; {wanted} would carry {gain}"
        case roles.RolesReason.AUTOSCALER_OPPOSES:
            return f"{here} hold: {_wants(seen)}; {wanted} would carry {gain}"
        case _:
            return f"one of {here} changes its role, since {wanted} would carry {gain}"


def _wants(seen: roles.Observed) -> str:
    assert seen.scalers is not None  # noqa: S101  autoscalers oppose only where there are some
    prefill, decode = seen.scalers
    return f"the autoscalers ask for {prefill.wanted} and {decode.wanted}"
