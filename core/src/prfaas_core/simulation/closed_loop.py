"""The operator's two slow loops as a controller: what to tell the routers, and which role the local workers have.

Short term, once a period: the best threshold for the lengths after prefix matching, the workers that serve, and what the
link carries as measured; scarce or abundant with hysteresis; prices from measured rates and utilisations. A threshold is
replaced only for a predicted gain of `min_gain`.

Long term, every `roles_period_s`: the best split of the local workers into prefill and decode, one conversion at a time,
and only for a predicted gain of `min_roles_gain`, twice in a row with the same answer: a conversion costs a drain.
"""

from __future__ import annotations

import math
from dataclasses import replace

from prfaas_core import errors, planner
from prfaas_core.lengths import Lengths
from prfaas_core.model import Deployment, throughput
from prfaas_core.routing import Bandwidth
from prfaas_core.routing.prices import across, base_price, price
from prfaas_core.simulation.control import Observation, Orders, PoolObservation

_GRID = 250


def _grid(lengths: Lengths) -> tuple[int, ...]:
    """Return thresholds with equal shares of the requests between them: finer than the sample is not known anyway."""
    sample = lengths.sample
    step = max(1, len(sample) // _GRID)
    return tuple(sorted({max(1, int(tokens)) for tokens in (*sample[::step], sample[-1] + 1)}))


class ClosedLoop:
    """A controller for one decode pool, its local prefill pool and any number of remote pools of the same profile.

    Args:
        template: profiles and mean answer; counts and link are taken from what is observed.
        decode, local, remote: names of the pools.
        plan: whether the threshold is searched; else it stays.
        priced: whether prices follow what is measured; else they stay.
        min_gain: of a new threshold, relative.
        memory: weight of the newest period in averages of rates and utilisations.
        roles_period_s: how often roles are looked at; infinite: never.
        min_roles_gain: of a conversion, relative.
    """

    def __init__(
        self,
        template: Deployment,
        *,
        decode: str,
        local: str | None,
        remote: tuple[str, ...],
        plan: bool = True,
        priced: bool = True,
        min_gain: float = 0.01,
        memory: float = 0.2,
        roles_period_s: float = math.inf,
        min_roles_gain: float = 0.05,
    ) -> None:
        self._template = template
        self._decode, self._local, self._remote = decode, local, remote
        self._plan = plan
        self._priced = priced
        self._min_gain = errors.non_negative("min_gain", min_gain)
        self._memory = errors.positive("memory", memory)
        self._roles_period_s = roles_period_s
        self._min_roles_gain = errors.non_negative("min_roles_gain", min_roles_gain)
        self._averages: dict[tuple[str, str], float] = {}
        self._next_roles_s = roles_period_s
        self._last_wish = 0

    def __call__(self, observation: Observation) -> Orders:
        """Return what to change."""
        prices = {name: self._price(name, pool) for name, pool in observation.pools.items()}
        link_prices = {name: self._link_price(name, observation.pools[name]) for name in self._remote}
        bandwidth = self._bandwidth(observation)
        base_prices, link_base_prices = self._base_prices(observation, prices)
        if not self._priced:
            prices, link_prices, base_prices, link_base_prices = {}, {}, {}, {}
        if not self._plan or not observation.uncached_tokens:
            return Orders(None, bandwidth, prices, link_prices, base_prices, link_base_prices)
        lengths = Lengths.of(max(1, tokens) for tokens in observation.uncached_tokens)
        deployment = self._deployment(observation)
        threshold: int | None = None
        if deployment.remote_instances:
            plan = planner.best_threshold(deployment, lengths, _grid(lengths))
            now = throughput(deployment, lengths, observation.threshold_tokens).rate
            if plan.throughput.rate > now * (1 + self._min_gain):
                threshold = plan.threshold_tokens
        convert = self._roles(observation, deployment, lengths)
        return Orders(threshold, bandwidth, prices, link_prices, base_prices, link_base_prices, convert)

    def _deployment(self, observation: Observation) -> Deployment:
        remote = [observation.pools[name] for name in self._remote]
        lines = {
            pool.line or name: pool.link_bps for name, pool in zip(self._remote, remote, strict=True) if pool.workers
        }
        return replace(
            self._template,
            local_instances=observation.pools[self._local].workers if self._local is not None else 0,
            decode_instances=observation.pools[self._decode].workers,
            remote_instances=sum(pool.workers for pool in remote),
            link_bps=sum(lines.values()),
            output_tokens=max(1.0, observation.output_tokens),
        )

    def _roles(self, observation: Observation, deployment: Deployment, lengths: Lengths) -> int:
        if observation.now_s < self._next_roles_s or self._local is None:
            return 0
        self._next_roles_s = observation.now_s + self._roles_period_s
        grid = _grid(lengths)
        now = planner.best_threshold(deployment, lengths, grid)
        best = planner.best_roles(deployment, lengths, grid)
        wish = 0
        if best.throughput.rate > now.throughput.rate * (1 + self._min_roles_gain):
            wish = 1 if best.deployment.local_instances < deployment.local_instances else -1
        confirmed, self._last_wish = wish == self._last_wish, wish
        return wish if confirmed else 0

    def _bandwidth(self, observation: Observation) -> Bandwidth:
        utilisation = max((observation.pools[name].link_utilisation for name in self._remote), default=0.0)
        was_scarce = observation.bandwidth is Bandwidth.SCARCE
        return Bandwidth.SCARCE if planner.scarce(utilisation, was_scarce) else Bandwidth.ABUNDANT

    def _price(self, name: str, pool: PoolObservation) -> float:
        rate = self._average(name, "rate", pool.rate_rps)
        if name == self._decode:
            # What waits for a decode worker is every request, also the ones that prefill elsewhere.
            rate = self._average(name, "all", sum(self._averages.get((other, "rate"), 0.0) for other in self._pools()))
        utilisation = self._average(name, "utilisation", pool.utilisation)
        return price(rate, max(1, pool.workers), utilisation)

    def _base_prices(
        self, observation: Observation, prices: dict[str, float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        tokens, here = observation.threshold_tokens, self._local or self._decode
        local, pool = self._template.local.prefill_s, observation.pools[here]
        # The mean service time follows from what was measured: utilisation over the rate of one worker.
        rate, utilisation = self._averages[here, "rate"], self._averages[here, "utilisation"]
        workers = max(1, pool.workers)
        service_s = utilisation * workers / rate if rate > 0 and self._local is not None else local(tokens / 2)
        busiest = max([utilisation, *(self._averages[name, "utilisation"] for name in self._remote)])
        base = base_price(prices[here], service_s, workers, busiest)
        bases = {here: base, self._decode: base}
        link_bases: dict[str, float] = {}
        if self._template.remote is None:
            return bases, link_bases
        remote, kv_bytes = self._template.remote.prefill_s(tokens), self._template.remote.kv_bytes(tokens)
        for name in self._remote:
            other = observation.pools[name]
            link_s = 8 * kv_bytes / other.link_bps
            bases[name], link_bases[name] = across(
                base, local(tokens), remote, link_s, link_binds=link_s * max(1, other.workers) > remote
            )
        return bases, link_bases

    def _link_price(self, name: str, pool: PoolObservation) -> float:
        rate = self._average(name, "link rate", pool.link_rate_rps)
        return price(rate, 1, self._average(name, "link utilisation", pool.link_utilisation))

    def _pools(self) -> tuple[str, ...]:
        return (self._decode, *((self._local,) if self._local is not None else ()), *self._remote)

    def _average(self, name: str, what: str, value: float) -> float:
        before = self._averages.get((name, what))
        average = value if before is None else before + self._memory * (value - before)
        self._averages[name, what] = average
        return average
