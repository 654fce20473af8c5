"""What this router knows of the workers: its own requests in flight, their caches, and who is set aside.

A worker that fails `FAILURES_TO_EJECT` times in a row is not chosen for a while, twice as long each time; after that one
request may try it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from prfaas_core import routing
from prfaas_core.prefix import PrefixIndex
from prfaas_core.routing import Bandwidth, Decision, View
from prfaas_router.configuration import Configuration, Pool
from prfaas_router.preparation import Prepared

FAILURES_TO_EJECT = 2
EJECTION_S = 2.0
MAX_EJECTION_S = 60.0


@dataclass(slots=True)
class _Health:
    in_flight: int = 0
    failures: int = 0
    ejected_until_s: float = 0.0


@dataclass(slots=True)
class _PoolState:
    index: PrefixIndex
    workers: dict[str, _Health] = field(default_factory=dict)


class Fleet:
    """The state behind decisions.

    Args:
        clock: seconds that do not go back.
        decode_pod: as a sidecar, the only decode worker that counts.
    """

    def __init__(self, clock: Callable[[], float], decode_pod: str | None = None) -> None:
        self._clock = clock
        self._decode_pod = decode_pod
        self._pools: dict[str, _PoolState] = {}

    def configure(self, configuration: Configuration) -> None:
        """Follow a new configuration: forget what is gone, keep what is known of the rest."""
        pools = {}
        for pool in configuration.pools():
            # A pool of unknown capacity gets the room of one prompt of full length a worker.
            capacity_tokens = pool.cache_capacity_tokens or configuration.max_model_len_tokens
            state = self._pools.get(pool.name) or _PoolState(
                PrefixIndex(capacity_tokens=capacity_tokens, block_tokens=configuration.block_tokens)
            )
            state.index.retain(pool.endpoints)
            state.workers = {name: state.workers.get(name) or _Health() for name in pool.endpoints}
            pools[pool.name] = state
        self._pools = pools

    def decide(self, prepared: Prepared, configuration: Configuration) -> Decision:
        """Return where a request goes; see `prfaas_core.routing.decide`."""
        view = View(
            threshold_tokens=configuration.threshold_tokens,
            mode=configuration.mode,
            bandwidth=Bandwidth(configuration.bandwidth),
            decode=self.view(configuration.decode, prepared.hashes, only=self._decode_pod),
            local_prefill=(
                self.view(configuration.local_prefill, prepared.hashes)
                if configuration.local_prefill is not None
                else None
            ),
            remote_prefill=tuple(self.view(pool, prepared.hashes) for pool in configuration.remote_prefill),
        )
        return routing.decide(routing.Request(prepared.total_tokens, prepared.ineligible), view)

    def view(self, pool: Pool, hashes: Sequence[bytes], only: str | None = None) -> routing.Pool:
        """Return the workers of a pool as decisions see them."""
        state, now_s = self._pools[pool.name], self._clock()
        cached = state.index.match(hashes)
        return routing.Pool(
            pool.name,
            tuple(
                routing.Worker(name, health.in_flight, cached.get(name, 0), usable=health.ejected_until_s <= now_s)
                for name, health in state.workers.items()
                if only is None or name == only
            ),
        )

    def decode_view(self, configuration: Configuration, hashes: Sequence[bytes]) -> routing.Pool:
        """Return the decode workers that this router may use."""
        return self.view(configuration.decode, hashes, only=self._decode_pod)

    @contextlib.contextmanager
    def busy(self, pool: str, worker: str) -> Iterator[None]:
        """Count a request in flight."""
        health = self._health(pool, worker)
        health.in_flight += 1
        try:
            yield
        finally:
            health.in_flight -= 1

    def in_flight(self) -> Iterator[tuple[str, int]]:
        """Yield each pool with its requests in flight."""
        for name, state in self._pools.items():
            yield name, sum(health.in_flight for health in state.workers.values())

    def succeeded(self, pool: str, worker: str, hashes: Sequence[bytes]) -> None:
        """Record that a worker did its part, and now holds the prompt's blocks."""
        health = self._health(pool, worker)
        health.failures = 0
        health.ejected_until_s = 0.0
        if pool in self._pools:
            self._pools[pool].index.insert(worker, hashes)

    def failed(self, pool: str, worker: str) -> None:
        """Record that a worker failed."""
        health = self._health(pool, worker)
        health.failures += 1
        if health.failures >= FAILURES_TO_EJECT:
            doublings = min(health.failures - FAILURES_TO_EJECT, 10)
            health.ejected_until_s = self._clock() + min(EJECTION_S * 2**doublings, MAX_EJECTION_S)
        if pool in self._pools:
            # A worker that failed may have restarted with an empty cache.
            self._pools[pool].index.drop(worker)

    def _health(self, pool: str, worker: str) -> _Health:
        state = self._pools.get(pool)
        # A worker that left the configuration is still counted by the requests that use it.
        return (state.workers.get(worker) if state is not None else None) or _Health()
