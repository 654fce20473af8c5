"""From a pool with `spec.scaling` to the signals that are read of it: those of the spec, and the guards that it needs."""

from prfaas_core.autoscaling import Reading, ScalingReason
from prfaas_operator.api.scaling import Signal
from prfaas_operator.scaling import settings
from prfaas_operator.scaling.observation import Question, Subject, observe
from prfaas_operator.scaling.pools import ScaledPool
from prfaas_operator.scaling.prometheus import Prometheus
from prfaas_operator.scaling.views import Measured


async def measure(server: Prometheus, pool: ScaledPool) -> tuple[Measured, ...]:
    """Read the signals of a pool, guards last."""
    own = settings.signals(pool.scaling, pool.workers.role, pool.profile)
    signals = (*own, *settings.guards(own, pool.workers.role, pool.profile))
    asked = tuple(
        _asked(name, signal, guard=index >= len(own))
        for index, (name, signal) in enumerate(zip(settings.titles(signals), signals, strict=True))
    )
    if pool.profile is None or pool.engine is None or pool.ready_replicas is None:
        return tuple(_unknown(signal) for signal in asked)
    panic = pool.scaling.panic
    subject = Subject(
        workers=pool.workers,
        engine=pool.engine,
        profile=pool.profile,
        ready_replicas=pool.ready_replicas,
        expected_replicas=min(pool.ready_replicas, pool.settled_replicas),
        signals=asked,
        panic_window_s=panic.window_seconds if panic is not None else None,
    )
    return await observe(server, subject)


def _asked(name: str, signal: Signal, *, guard: bool) -> Question:
    return Question(
        name=name,
        kind=signal.name,
        target=signal.target_value,
        window_s=signal.window_s,
        quantile=signal.latency_quantile,
        query=signal.query,
        target_type=settings.target_type(signal),
        guard=guard,
    )


def _unknown(asked: Question) -> Measured:
    reading = Reading(
        asked.name, asked.target, asked.target_type, None, guard=asked.guard, fault=ScalingReason.SIGNAL_MISSING,
        message="the pool's profile cannot be read, so nobody knows what its workers report",
    )  # fmt: skip
    return Measured(reading, asked.query or "")
