"""Who decides the size of a simulated pool: this project's autoscaler, or a HorizontalPodAutoscaler, to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prfaas_core.autoscaling import History, Observed, ScalingDecision, Settings, decide, hpa


class Sized(Protocol):
    """What a scaler answers: the replicas to set, and when it wants to look again."""

    @property
    def replicas(self) -> int: ...

    @property
    def next_look_s(self) -> float: ...


Scaler = Callable[[Observed, float], Sized]
"""Is asked with what is seen of the pool, and the time. It may keep state of its own."""


class Core:
    """`prfaas_core.autoscaling.decide`, with its history."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._history = History()

    def __call__(self, observed: Observed, now_s: float) -> ScalingDecision:
        """Decide, and remember."""
        decision = decide(observed, self._settings, self._history, now_s)
        self._history = decision.history
        return decision


class Hpa:
    """`prfaas_core.autoscaling.hpa`, with its history; arguments are those of `hpa.sync`."""

    def __init__(self, settings: Settings, *, behavior: bool = True) -> None:
        self._settings = settings
        self._behavior = behavior
        self._history = hpa.HpaHistory()

    def __call__(self, observed: Observed, now_s: float) -> hpa.HpaDecision:
        """Sync, and remember."""
        decision = hpa.sync(observed, self._settings, self._history, now_s, behavior=self._behavior)
        self._history = decision.history
        return decision
