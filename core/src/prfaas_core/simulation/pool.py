"""The state of one pool, and of the prefix caches in it."""

from __future__ import annotations

from prfaas_core import routing
from prfaas_core.profiles import Profile
from prfaas_core.simulation.cache import PoolCache
from prfaas_core.simulation.job import Worker
from prfaas_core.simulation.link import LinkState
from prfaas_core.simulation.metrics import Counters
from prfaas_core.simulation.scenario import DecodePool, PrefillPool, Scenario


class PoolState:
    """A pool as it is at the moment.

    Attributes:
        seen: what the router sees; its workers are those of this pool.
        cache: None when the profile has no prefix cache.
        counters: what its workers count for Prometheus; None for a pool that is not scaled.
        link: may be that of several pools.
        requests, work_s, moved_requests, moved_bytes: what was sent here and came over the link in the control period.
        delivered_bytes, taken_bytes: of transfers that ended, and of all that began, without those that were given up.
    """

    __slots__ = (
        "batch_tokens", "cache", "counters", "decodes", "delivered_bytes", "layers", "link", "made", "moved_bytes", "moved_requests", "profile", "requests", "seen",
        "spec", "taken_bytes", "work_s", "workers",
    )  # fmt: skip

    def __init__(self, spec: PrefillPool | DecodePool, scenario: Scenario, links: dict[str, LinkState]) -> None:
        self.spec = spec
        self.profile: Profile = spec.profile
        self.decodes = isinstance(spec, DecodePool)
        self.batch_tokens, self.layers = (spec.batch_tokens, spec.layers) if isinstance(spec, PrefillPool) else (0, 1)
        self.counters = Counters() if spec.scaling is not None else None
        self.made = 0
        self.workers: dict[str, Worker] = {}
        self.requests = 0
        self.work_s = 0.0
        self.moved_bytes = 0.0
        self.moved_requests = 0
        self.delivered_bytes = self.taken_bytes = 0.0
        self.cache: PoolCache | None = None
        if spec.profile.cache_capacity_tokens:
            self.cache = PoolCache(
                spec.profile.cache_capacity_tokens,
                spec.profile.block_tokens,
                hybrid=scenario.hybrid,
                state_tokens=scenario.state_tokens,
            )
        self.link: LinkState | None = None
        self.seen = routing.Pool(
            spec.name,
            (),
            prefill_s=spec.profile.prefill_s,
            price=scenario.prices.get(spec.name),
            base_price=scenario.base_prices.get(spec.name, 0.0),
        )
        if isinstance(spec, DecodePool):
            self.seen.slots = spec.profile.decode_slots
            self.seen.prefill_s = spec.profile.prefill_s.scaled(1 / spec.chunk_share)
        elif spec.link is not None:
            self.seen.push = spec.push
            self.seen.link = routing.Link(
                spec.link.told_bps,
                spec.profile.kv_bytes,
                price=scenario.link_prices.get(spec.name),
                base_price=scenario.link_base_prices.get(spec.name, 0.0),
            )
            self.link = links.setdefault(spec.link.name or f"of {spec.name}", LinkState(spec.link))
        for _ in range(spec.workers):
            self.add()

    def add(self) -> Worker:
        """Add a worker that serves from now on."""
        self.made += 1
        worker = Worker(f"{self.spec.name}-{self.made:04d}", self, self.profile.prefill_s)
        if isinstance(self.spec, DecodePool):
            worker.loss_rate = self.spec.interference * self.spec.chunk_share
        self.workers[worker.name] = worker
        self._show()
        return worker

    def remove(self, worker: Worker) -> None:
        """Take a worker away, with its cache."""
        worker.alive = False
        worker.usable = False
        self.workers.pop(worker.name, None)
        if self.cache is not None:
            self.cache.drop(worker.name)
        self._show()

    def show_link(self, now_s: float) -> None:
        """Let the router see what the link carries, and what is on its way."""
        if self.link is not None and self.seen.link is not None:
            self.seen.link.capacity_bps = self.link.meter.capacity_bps(now_s)
            self.seen.link.backlog_bytes = self.link.backlog_bytes

    def serving(self) -> list[Worker]:
        """Return the workers that take requests."""
        return [worker for worker in self.workers.values() if worker.usable]

    def _show(self) -> None:
        self.seen.workers = tuple(self.workers.values())


def pool_states(scenario: Scenario) -> tuple[PoolState, PoolState | None, tuple[PoolState, ...]]:
    """Return the decode pool, the local prefill pool and the remote ones, of which those behind one link share it."""
    links: dict[str, LinkState] = {}
    local = PoolState(scenario.local, scenario, links) if scenario.local is not None else None
    return (
        PoolState(scenario.decode, scenario, links),
        local,
        tuple(PoolState(pool, scenario, links) for pool in scenario.remote),
    )
