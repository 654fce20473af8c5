"""The control loop of a run: what the controller is shown, and its orders carried out."""

from __future__ import annotations

from prfaas_core.simulation.control import Controller, Observation, Orders, PoolObservation
from prfaas_core.simulation.disruption import Disruption
from prfaas_core.simulation.engine import Engine
from prfaas_core.simulation.pool import PoolState


class Steering:
    """Asks the scenario's controller once a period."""

    def __init__(self, engine: Engine, disruption: Disruption, controller: Controller) -> None:
        self._engine = engine
        self._disruption = disruption
        self._controller = controller
        self._period_s = engine.scenario.control_period_s
        self._arrived = 0
        engine.at(self._period_s, self._look, None)

    def _look(self, _subject: None, _token: int) -> None:
        engine = self._engine
        orders = self._controller(self._observe())
        self._obey(orders)
        engine.at(engine.now_s + self._period_s, self._look, None)

    def _observe(self) -> Observation:
        engine = self._engine
        pools = {name: self._pool(pool) for name, pool in engine.pools.items()}
        for pool in engine.pools.values():
            pool.requests = pool.moved_requests = 0
            pool.work_s = pool.moved_bytes = 0.0
        rate_rps = (engine.arrived - self._arrived) / self._period_s
        self._arrived = engine.arrived
        return Observation(
            now_s=engine.now_s,
            rate_rps=rate_rps,
            uncached_tokens=tuple(engine.recent_uncached),
            output_tokens=engine.output_tokens,
            waiting_decode=engine.waiting_decode,
            pools=pools,
            threshold_tokens=engine.view.threshold_tokens,
            bandwidth=engine.view.bandwidth,
        )

    def _pool(self, pool: PoolState) -> PoolObservation:
        engine, period_s = self._engine, self._period_s
        serving = pool.serving()
        count = max(1, len(serving))
        if pool.decodes:
            utilisation = sum(len(worker.in_slots) for worker in serving) / (count * engine.slots)
        else:
            utilisation = pool.work_s / period_s / count
        link_bps = link_utilisation = 0.0
        behind = [other for other in engine.remote if other.link is pool.link] if pool.link is not None else []
        if pool.link is not None:
            link_bps = pool.link.meter.capacity_bps(engine.now_s)
            link_utilisation = 8 * sum(other.moved_bytes for other in behind) / period_s / link_bps
        return PoolObservation(
            workers=len(serving),
            rate_rps=pool.requests / period_s,
            utilisation=utilisation,
            backlog_s=sum(max(0.0, worker.busy_until_s - engine.now_s) for worker in serving) / count,
            link_bps=link_bps,
            link_rate_rps=sum(other.moved_requests for other in behind) / period_s,
            link_utilisation=link_utilisation,
            line=pool.link.spec.name if pool.link is not None else "",
        )

    def _obey(self, orders: Orders) -> None:
        engine = self._engine
        if orders.threshold_tokens is not None and orders.threshold_tokens != engine.view.threshold_tokens:
            engine.view.threshold_tokens = orders.threshold_tokens
            engine.history.append((engine.now_s, "threshold", orders.threshold_tokens))
        if orders.bandwidth is not None:
            engine.view.bandwidth = orders.bandwidth
        for name, price in orders.prices.items():
            engine.pools[name].seen.price = price
        for name, price in orders.link_prices.items():
            link = engine.pools[name].seen.link
            if link is not None:
                link.price = price
        for name, price in orders.base_prices.items():
            engine.pools[name].seen.base_price = price
        for name, price in orders.link_base_prices.items():
            link = engine.pools[name].seen.link
            if link is not None:
                link.base_price = price
        if orders.convert_to_decode:
            self._disruption.convert(abs(orders.convert_to_decode), to_decode=orders.convert_to_decode > 0)
