"""The loop that sizes pools: what is seen, one decision, a number of workers to ask for.

The decision is `prfaas_core.autoscaling.decide`. What is kept here is what it needs from one look to the next, and what
people want to see of it; a restarted operator goes on from the number and the decisions in the pool's status.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from prfaas_core import autoscaling
from prfaas_core.autoscaling import Ceiling, Floor, History
from prfaas_core.profiles import Profile
from prfaas_operator.api.model_profile import EngineName
from prfaas_operator.api.scaling import Scaling
from prfaas_operator.api.scaling_status import LoadForecast
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import Ref
from prfaas_operator.scaling import settings, views
from prfaas_operator.scaling.queries import Workers
from prfaas_operator.scaling.timetable import Timetable
from prfaas_operator.scaling.views import Measured, ScalingView

_log = structlog.get_logger(__name__)

# What is due within this part of the period is looked at together.
_TICKS: Final = 50
_NEW_AFTER_S: Final = 1.0
"""Time after which a new pool is looked at, at the latest."""


@dataclass(frozen=True, slots=True)
class ScaledPool:
    """A pool with `scaling`, as it is known at the moment.

    Attributes:
        engine, profile: of its workers; None while the profile cannot be read.
        ready_replicas: workers that take requests; None while its cluster does not say.
        settled_replicas: those of them that have been ready for so long that Prometheus knows them.
        view: as it stands on the hub.
        live_replicas: of the Deployment.
    """

    ref: Ref
    scaling: Scaling
    workers: Workers
    engine: EngineName | None
    profile: Profile | None
    ready_replicas: int | None
    settled_replicas: int
    view: ScalingView | None
    live_replicas: int | None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What others say about the size of a pool: see `prfaas_core.autoscaling.Observed`."""

    demand: float | None = None
    floors: tuple[Floor, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    forecast: LoadForecast | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a pool asks for.

    Attributes:
        replicas: now.
        wanted: by its signals alone; None when they say nothing.
        changed_s: when it last became another number, on the monotonic clock; None: not since the start.
    """

    replicas: int
    wanted: int | None
    changed_s: float | None


@dataclass(slots=True)
class _State:
    asked: Asked
    history: History = field(default_factory=History)
    view: ScalingView | None = None
    told: ScalingView | None = None


class PoolScaler:
    """Decides for every pool with `scaling`, at a steady pace.

    Args:
        measure: reads the signals of a pool, with the guards that it needs.
        pools: names them.
        pool: returns one as it is at the moment; None if it is not one any more.
        surroundings: says what others want of a pool's size.
        on_decision: hears of each decision at once: replicas, and what was wanted before ceilings.
        on_change: hears which pool's status, or number of workers, is no longer what it was: before, after, why.
    """

    def __init__(
        self,
        *,
        measure: Callable[[ScaledPool], Awaitable[tuple[Measured, ...]]],
        pools: Callable[[], list[Ref]],
        pool: Callable[[Ref], ScaledPool | None],
        surroundings: Callable[[ScaledPool], Surroundings],
        on_decision: Callable[[Ref, int, int | None], None],
        on_change: Callable[[Ref, int, int, str], None],
        metrics: Metrics,
        interval_s: float,
    ) -> None:
        self._measure = measure
        self._pools = pools
        self._pool = pool
        self._surroundings = surroundings
        self._on_decision = on_decision
        self._on_change = on_change
        self._metrics = metrics
        self._interval_s = interval_s
        self._states: dict[Ref, _State] = {}
        self._timetable = Timetable(interval_s)
        self._looking: set[Ref] = set()
        self._woken: set[Ref] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Decide until cancelled."""
        async with asyncio.TaskGroup() as looks:
            while True:
                self._wake.clear()
                refs, now_s = self._pools(), time.monotonic()
                self._forget(set(refs))
                due = self._timetable.due(refs, now_s)
                for late_s in due.values():
                    self._metrics.scaling_late_seconds.observe(late_s)
                wanted = [ref for ref in refs if (ref in due or ref in self._woken) and ref not in self._looking]
                # One that is being looked at is looked at again afterwards.
                self._woken &= self._looking
                self._looking.update(wanted)
                for ref in wanted:
                    looks.create_task(self._look(ref))
                await self._until(self._timetable.next_s(), now_s)

    def wake(self, ref: Ref) -> None:
        """Have a pool looked at before it is due: somebody wants it while it sleeps."""
        self._woken.add(ref)
        self._wake.set()

    def replicas(self, pool: ScaledPool) -> int:
        """Return the number of workers to ask for."""
        return self._state(pool).asked.replicas

    def asked(self, ref: Ref) -> Asked | None:
        """Return what a pool asks for; None for one that was not looked at yet."""
        state = self._states.get(ref)
        return state.asked if state is not None else None

    def view(self, ref: Ref) -> ScalingView | None:
        """Return what is to be seen of a pool's size."""
        state = self._states.get(ref)
        return state.told if state is not None else None

    async def _decide(self, pool: ScaledPool) -> None:
        state = self._state(pool)
        now = datetime.now(UTC).replace(microsecond=0)
        if pool.ready_replicas is None:
            self._tell(pool.ref, state, views.unreachable(state.asked.replicas, state.view, now=now))
            return
        measured = await self._measure(pool)
        around = self._surroundings(pool)
        observed = autoscaling.Observed(
            replicas=state.asked.replicas,
            ready_replicas=pool.ready_replicas,
            readings=tuple(item.reading for item in measured),
            demand=around.demand,
            floors=around.floors,
            ceilings=around.ceilings,
        )
        rules = settings.core_settings(pool.scaling, pool.workers.role, self._interval_s)
        now_s = time.monotonic()
        decision = autoscaling.decide(observed, rules, state.history, now_s)
        state.history = decision.history
        before, after = observed.replicas, decision.replicas
        state.asked = Asked(after, decision.wanted, now_s if after != before else state.asked.changed_s)
        lowest = max((floor.replicas for floor in around.floors), default=0)
        self._on_decision(pool.ref, after, None if decision.wanted is None else max(decision.wanted, lowest))
        self._metrics.scaled(pool.ref.namespace, pool.ref.kind, pool.ref.name, observed, decision)
        seen = views.view(
            measured, observed, decision, state.view, now=now, period_s=self._interval_s, forecast=around.forecast
        )
        if after != before:
            _log.info("scaled", pool=str(pool.ref), before=before, after=after, reason=seen.message)
        self._tell(pool.ref, state, seen, before)

    def _tell(self, ref: Ref, state: _State, seen: ScalingView, before: int | None = None) -> None:
        state.view = seen
        after = state.asked.replicas
        if before not in (None, after) or state.told is None or views.notable(state.told, seen):
            state.told = seen
            self._on_change(ref, after if before is None else before, after, seen.message)

    async def _look(self, ref: Ref) -> None:
        try:
            with self._metrics.scaling_look_seconds.time():
                pool = self._pool(ref)
                if pool is not None:
                    await self._decide(pool)
        except Exception:  # noqa: BLE001  one failure must not stop the others
            _log.exception("no scaling decision", pool=str(ref))
        finally:
            self._looking.discard(ref)
            if ref in self._woken:
                self._wake.set()

    async def _until(self, next_s: float | None, now_s: float) -> None:
        """Wait until something is due, might be new, or is woken."""
        least_s, most_s = self._interval_s / _TICKS, min(self._interval_s, _NEW_AFTER_S)
        wait_s = most_s if next_s is None else min(max(next_s - now_s, least_s), most_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()

    def _forget(self, known: set[Ref]) -> None:
        for gone in self._states.keys() - known:
            del self._states[gone]
            self._metrics.unscaled(gone.namespace, gone.kind, gone.name)

    def _state(self, pool: ScaledPool) -> _State:
        state = self._states.get(pool.ref)
        if state is None:
            scaling, before = pool.scaling, pool.view
            known = before.status.desired_replicas if before is not None else None
            if known is None:
                known = pool.live_replicas
            start = scaling.min_replicas if known is None else known
            bounded = min(max(start, scaling.min_replicas), scaling.max_replicas)
            # What the status says stays until there is something else to say.
            state = self._states[pool.ref] = _State(Asked(bounded, None, None), view=before, told=before)
        return state
