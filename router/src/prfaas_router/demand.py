"""Which pools the requests of this router want, as it is reported to the operator."""

from __future__ import annotations

import math
from collections.abc import Callable

from prfaas_core.demand import PRESSING_S, DemandWindow
from prfaas_protocol import configuration_pb2 as pb
from prfaas_router.configuration import Configuration
from prfaas_router.metrics import Metrics


class DemandMeter:
    """Counts the requests that want each pool of the route.

    Args:
        clock: seconds that do not go back.

    Attributes:
        on_wanted: hears at once when a request wants a pool without workers that nobody wanted before.
    """

    def __init__(self, clock: Callable[[], float], metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._windows: dict[str, DemandWindow] = {}
        self._decode = ""
        self._empty: frozenset[str] = frozenset()
        self._told: set[str] = set()
        self.on_wanted: Callable[[], None] = _nobody

    def configure(self, configuration: Configuration) -> None:
        """Follow a new configuration: forget pools that are gone, keep what is known of the rest."""
        pools = configuration.pools()
        self._windows = {pool.name: self._windows.get(pool.name) or DemandWindow() for pool in pools}
        self._decode = configuration.decode.name
        self._empty = frozenset(pool.name for pool in pools if not pool.endpoints)
        self._told &= self._empty

    def wants(self, pool: str) -> None:
        """Count a request that wants a pool."""
        window = self._windows.get(pool)
        if window is None:
            return
        now_s = self._clock()
        news = pool in self._empty and (pool not in self._told or window.since_last_s(now_s) > PRESSING_S)
        window.record(now_s)
        self._metrics.wanted(pool)
        if news:
            self._told.add(pool)
            self.on_wanted()

    def report(self, waiting: int) -> pb.Demand:
        """Return the demand for each pool; `waiting` requests wait for the decode pool."""
        now_s = self._clock()
        message = pb.Demand()
        for name, window in self._windows.items():
            found = window.report(now_s, waiting if name == self._decode else 0)
            message.pools.append(
                pb.PoolDemand(
                    name=name,
                    decode=name == self._decode,
                    waiting=found.waiting,
                    wanted_rps=found.wanted_rps,
                    since_last_s=found.since_last_s if math.isfinite(found.since_last_s) else None,
                )
            )
        return message


def _nobody() -> None:
    """Nobody listens."""
