"""Which requests get to a decision, and when: checked against the configuration, and in line while there is no decode worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prfaas_core.routing import Decision
from prfaas_protocol import configuration_pb2 as pb
from prfaas_router import preparation
from prfaas_router.configuration import Configuration
from prfaas_router.demand import DemandMeter
from prfaas_router.fleet import Fleet
from prfaas_router.metrics import Metrics
from prfaas_router.openai import APIError
from prfaas_router.preparation import ModelLimits, Prepared
from prfaas_router.waiting import WaitingLine


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that may be decided on.

    Attributes:
        configuration: of the moment at which it was let in.
        waited_s: how long it waited for the first decode worker; 0 when there was one.
        counted: the sleeping prefill pool that it was counted for while it waited.
    """

    configuration: Configuration
    prepared: Prepared
    waited_s: float = 0.0
    counted: str | None = None


class Gate:
    """Lets requests of one route in, and counts which pools they want. Before `configure` it lets nobody in."""

    def __init__(self, route: str, fleet: Fleet, metrics: Metrics) -> None:
        self._route = route
        self._fleet = fleet
        self._demand = DemandMeter(time.monotonic, metrics)
        self._line = WaitingLine(metrics)
        self._draining = False
        self.configuration: Configuration | None = None

    def configure(self, configuration: Configuration) -> None:
        """Follow a new configuration; with a decode worker in it, everybody who waits goes on."""
        self.configuration = configuration
        self._demand.configure(configuration)
        if configuration.decode.endpoints:
            self._line.open()
        else:
            self._line.close()

    def current(self) -> Configuration:
        """Return the configuration.

        Raises:
            APIError: 503, there is none yet.
        """
        if self.configuration is None:
            raise APIError(
                503, f"route {self._route} has no configuration yet; the operator sends it", code="not_configured"
            )
        return self.configuration

    @property
    def ready(self) -> bool:
        """Whether clients should be sent here.

        Who waits in front of a decode pool that sleeps wakes it. A sidecar's own worker tells by itself whether it is ready,
        and is listed in the configuration only when the whole pod is.
        """
        if self.configuration is None or self._draining:
            return False
        decode = self.configuration.decode
        return bool(decode.endpoints) or decode.wakes or self._fleet.sidecar

    def drain(self, within_s: float) -> None:
        """Look not ready, and let nobody wait that could not be answered in `within_s` seconds.

        Who waits for a decode worker does so for half of that time, so that the other half is left for the answer.
        """
        self._draining = True
        self._line.drain(within_s / 2)

    async def admit(self, body: dict[str, Any], *, chat: bool, waited_s: float = 0.0) -> Admission:
        """Check a request, and have it wait in line while there is no decode worker.

        Args:
            waited_s: how long it has waited before.

        Raises:
            APIError: it is not valid, or there is no configuration; or it may not wait, or not longer.
        """
        configuration, prepared = self._prepare(body, chat=chat)
        self._demand.wants(configuration.decode.name)
        if self._line.free or configuration.max_waiting == 0 or configuration.max_wait_s == 0:
            return Admission(configuration, prepared, waited_s)
        counted = None if configuration.decode.endpoints else self._fleet.wanted(prepared, configuration)
        if counted is not None:
            self._demand.wants(counted)
        waited_s += await self._line.wait(configuration.max_waiting, max(0.0, configuration.max_wait_s - waited_s))
        return Admission(*self._prepare(body, chat=chat), waited_s, counted)

    def emptied(self, admission: Admission) -> bool:
        """Return whether the decode pool has lost all its workers since a request was let in."""
        return bool(admission.configuration.decode.endpoints) and not self.current().decode.endpoints

    def decided(self, admission: Admission, decision: Decision) -> None:
        """Count a decision as demand for the prefill pool that the request takes, and for the one that it would take."""
        for pool in (decision.prefill_pool, decision.wanted):
            if pool is not None and pool != admission.counted:
                self._demand.wants(pool)

    def demand(self) -> pb.Demand:
        """Return how much requests want each pool."""
        return self._demand.report(len(self._line))

    def on_wanted(self, listener: Callable[[], None]) -> None:
        """Have a listener hear at once when a request wants a pool without workers that nobody wanted before."""
        self._demand.on_wanted = listener

    def _prepare(self, body: dict[str, Any], *, chat: bool) -> tuple[Configuration, Prepared]:
        configuration = self.current()
        limits = ModelLimits(
            configuration.model,
            configuration.max_model_len_tokens,
            configuration.bytes_per_token,
            configuration.block_tokens,
        )
        return configuration, preparation.prepare(body, chat=chat, model=limits)
