"""The loop that sizes pools: one question, one decision, a number of workers to ask for.

The decision is `prfaas_core.autoscaling.decide`. What is kept here is what it needs from one look to the next, and what
people want to see of it; a restarted operator goes on from the number in the pool's status.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from prfaas_core import autoscaling
from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.scaling import AutoscalingStatus, Decision, Scaling
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import Ref
from prfaas_operator.scaling import queries
from prfaas_operator.scaling.prometheus import Sample

_log = structlog.get_logger(__name__)

# Status is for people. A value that wobbles within this fraction, for less than this time, is not written again.
_NOTABLE_FRACTION = 0.1
_NOTABLE_AGE_S = 60.0

_FAULTS = {
    autoscaling.ScalingReason.SIGNAL_MISSING: Reason.SIGNAL_MISSING,
    autoscaling.ScalingReason.SIGNAL_INVALID: Reason.SIGNAL_INVALID,
    autoscaling.ScalingReason.SIGNAL_STALE: Reason.SIGNAL_STALE,
}


@dataclass(frozen=True, slots=True)
class ScalingView:
    """What the pool's status says about its size."""

    status: AutoscalingStatus
    active: bool
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class ScaledPool:
    """A pool with `scaling`, as it is known at the moment."""

    ref: Ref
    scaling: Scaling
    workers: queries.Workers
    ready_replicas: int | None  # None: its cluster does not say
    view: ScalingView | None  # as it stands on the hub
    live_replicas: int | None  # of the Deployment


@dataclass(slots=True)
class _State:
    replicas: int
    history: tuple[autoscaling.Recommendation, ...] = ()
    view: ScalingView | None = None
    last_scale_time: datetime | None = None


class PoolScaler:
    """Decides for every pool with `scaling`, at a steady pace.

    `pools` lists them; `on_change` hears which pool's status, or number of workers, is no longer what it was.
    """

    def __init__(
        self,
        ask: Callable[[str], Awaitable[Sample]],
        *,
        pools: Callable[[], list[ScaledPool]],
        on_change: Callable[[Ref, int, int, str], None],
        metrics: Metrics,
        interval_s: float,
    ) -> None:
        self._ask = ask
        self._pools = pools
        self._on_change = on_change
        self._metrics = metrics
        self._interval_s = interval_s
        self._states: dict[Ref, _State] = {}

    async def run(self) -> None:
        """Decide until cancelled."""
        while True:
            started_s = time.monotonic()
            pools = self._pools()
            for gone in self._states.keys() - {pool.ref for pool in pools}:
                del self._states[gone]
            await asyncio.gather(*(self._guarded(pool) for pool in pools))
            await asyncio.sleep(max(0.1, self._interval_s - (time.monotonic() - started_s)))

    def replicas(self, pool: ScaledPool) -> int:
        """Return the number of workers to ask for."""
        return self._state(pool).replicas

    def view(self, ref: Ref) -> ScalingView | None:
        state = self._states.get(ref)
        return state.view if state is not None else None

    async def _guarded(self, pool: ScaledPool) -> None:
        try:
            await self.decide(pool)
        except Exception:  # noqa: BLE001  one failure must not stop the others
            _log.exception("no scaling decision", pool=str(pool.ref))

    async def decide(self, pool: ScaledPool) -> None:
        """Look at one pool, and decide."""
        state, scaling = self._state(pool), pool.scaling
        query = queries.signal(scaling.signal, pool.workers)
        if pool.ready_replicas is None:
            self._publish(
                pool, state, query, None, state.replicas, Reason.CLUSTER_UNREACHABLE,
                "the pool's cluster does not say how many workers are ready; replicas hold", active=False,
            )  # fmt: skip
            return
        sample = await self._ask(query)
        settings = autoscaling.Settings(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            target_value=scaling.signal.target_value,
            tolerance=scaling.tolerance,
            scale_up_window_s=scaling.behavior.scale_up.stabilization_window_seconds,
            scale_down_window_s=scaling.behavior.scale_down.stabilization_window_seconds,
            period_s=self._interval_s,
        )
        observed = autoscaling.Observed(state.replicas, pool.ready_replicas, sample.value, sample.age_s)
        decision = autoscaling.decide(observed, settings, state.history, time.monotonic())
        state.history = decision.history
        self._metrics.scaling_decisions.labels(pool.ref.namespace, pool.ref.name, decision.reason.value).inc()
        fault = _FAULTS.get(decision.reason)
        if fault is not None:
            self._publish(
                pool, state, query, None, decision.replicas, sample.reason or fault,
                f"{sample.message or decision.reason}; {decision.replicas} replicas hold", active=False,
                decision_reason=decision.reason,
            )  # fmt: skip
            return
        message = (
            f"signal {sample.value:.4g}, target {scaling.signal.target_value:g}, {pool.ready_replicas} ready: "
            f"{state.replicas} to {decision.replicas} replicas"
        )
        self._publish(
            pool, state, query, sample.value, decision.replicas, Reason.SIGNAL_OBSERVED, message, active=True,
            decision_reason=decision.reason,
        )  # fmt: skip

    def _publish(
        self,
        pool: ScaledPool,
        state: _State,
        query: str,
        value: float | None,
        replicas: int,
        reason: Reason,
        message: str,
        *,
        active: bool,
        decision_reason: autoscaling.ScalingReason | None = None,
    ) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        before = state.replicas
        if replicas != before:
            state.replicas, state.last_scale_time = replicas, now
            _log.info("scaled", pool=str(pool.ref), before=before, after=replicas, reason=message)
        decided = decision_reason.value if decision_reason is not None else reason.value
        status = AutoscalingStatus(
            signal_value=value,
            query=query,
            desired_replicas=replicas,
            last_decision=Decision(reason=decided, message=message, time=now),
            last_scale_time=state.last_scale_time,
        )
        view = ScalingView(status, active, reason, message)
        if replicas != before or state.view is None or _notable(state.view, view):
            state.view = view
            self._on_change(pool.ref, before, replicas, message)

    def _state(self, pool: ScaledPool) -> _State:
        state = self._states.get(pool.ref)
        if state is None:
            scaling, before = pool.scaling, pool.view
            known = before.status.desired_replicas if before is not None else None
            if known is None:
                known = pool.live_replicas
            start = scaling.min_replicas if known is None else known
            state = self._states[pool.ref] = _State(
                min(max(start, scaling.min_replicas), scaling.max_replicas),
                # What the status says stays until there is something else to say.
                view=before,
                last_scale_time=before.status.last_scale_time if before is not None else None,
            )
        return state


def _notable(before: ScalingView, after: ScalingView) -> bool:
    """Return whether people should see the new view: another reason, another value, or an old time."""
    old, new = before.status.last_decision, after.status.last_decision
    if (before.reason, before.status.query) != (after.reason, after.status.query) or old is None or new is None:
        return True
    if old.reason != new.reason or (new.time - old.time).total_seconds() >= _NOTABLE_AGE_S:
        return True
    a, b = before.status.signal_value, after.status.signal_value
    if a is None or b is None:
        return a is not b
    return abs(a - b) > _NOTABLE_FRACTION * max(abs(a), abs(b))
