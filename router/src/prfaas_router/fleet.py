"""What this router knows of the workers: its own requests and the work in them, their caches, links, and who is set aside.

A worker that fails `FAILURES_TO_EJECT` times in a row is not chosen for a while, twice as long each time; after that one
request may try it again.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

from prfaas_core import routing
from prfaas_core.link_capacity import LinkReport
from prfaas_core.prefix import PrefixIndex
from prfaas_core.routing import Bandwidth, Decision, View, backlog
from prfaas_router.accounts import HandoverTime, LinkAccount, LocalTransfer, PoolAccount, Transfer, WorkerAccount
from prfaas_router.configuration import Configuration, Endpoint, Pool
from prfaas_router.preparation import Prepared

FAILURES_TO_EJECT = 2
EJECTION_S = 2.0
MAX_EJECTION_S = 60.0

_DECODE_MEMORY = 0.05
"""Weight of the newest request in the mean time that a request decodes."""


class Fleet:
    """The state behind decisions.

    Args:
        clock: seconds that do not go back.
        decode_pod: as a sidecar, the only decode worker that counts.
    """

    def __init__(self, clock: Callable[[], float], decode_pod: str | None = None) -> None:
        self._clock = clock
        self._decode_pod = decode_pod
        self._pools: dict[str, PoolAccount] = {}
        self._links: dict[str, LinkAccount] = {}
        self._endpoints: dict[str, dict[str, Endpoint]] = {}
        self._handover = HandoverTime()
        self._decode_s = 0.0
        self._alone_since_s = math.inf

    def configure(self, configuration: Configuration) -> None:
        """Follow a new configuration: forget what is gone, keep what is known of the rest."""
        pools: dict[str, PoolAccount] = {}
        links: dict[str, LinkAccount] = {}
        for pool in configuration.pools():
            # A pool of unknown capacity gets the room of one prompt of full length a worker.
            capacity_tokens = pool.cache_capacity_tokens or configuration.max_model_len_tokens
            state = self._pools.get(pool.name) or PoolAccount(
                PrefixIndex(capacity_tokens=capacity_tokens, block_tokens=configuration.block_tokens)
            )
            state.index.retain(pool.endpoints)
            state.workers = {
                name: state.workers.get(name) or WorkerAccount(routing.Worker(name, 0, 0)) for name in pool.endpoints
            }
            state.link = None
            if pool.link is not None:
                # Pools behind one link share what is on it.
                name = pool.link.name or f"to {pool.name}"
                state.link = links.get(name) or self._links.get(name) or LinkAccount(pool.link, self._handover)
                state.link.meter.nominal(pool.link.capacity_bps)
                links[name] = state.link
            pools[pool.name] = state
        self._pools, self._links = pools, links
        self._endpoints = {pool.name: pool.endpoints for pool in configuration.pools()}

    def endpoint(self, pool: Pool, worker: str) -> Endpoint:
        """Return where a worker is.

        A request keeps the configuration it began with, and one that has to choose again chooses among the workers of now.
        """
        return self._endpoints.get(pool.name, {}).get(worker) or pool.endpoints[worker]

    def contact(self, connected: bool) -> None:
        """Note whether the operator can be heard; what it said gets old while it cannot."""
        if connected:
            self._alone_since_s = math.inf
        elif self._alone_since_s == math.inf:
            self._alone_since_s = self._clock()

    @property
    def sidecar(self) -> bool:
        """Whether this router belongs to one decode pod."""
        return self._decode_pod is not None

    def serves(self, pool: Pool, worker: str) -> bool:
        """Return whether a worker may get new work: one that is about to go leaves the configuration first."""
        return worker in self._endpoints.get(pool.name, {})

    def decide(self, prepared: Prepared, configuration: Configuration) -> Decision:
        """Return where a request goes; see `prfaas_core.routing.decide`."""
        view = self._everything(prepared, configuration)
        return routing.decide(routing.Request(prepared.total_tokens, prepared.ineligible), view)

    def wanted(self, prepared: Prepared, configuration: Configuration) -> str | None:
        """Return the sleeping prefill pool that a request will want when there is a decode worker for it."""
        view = self._everything(prepared, configuration)
        view.asleep |= {configuration.decode.name}
        return routing.wanted(routing.Request(prepared.total_tokens, prepared.ineligible), view)

    def _everything(self, prepared: Prepared, configuration: Configuration) -> View:
        now_s = self._clock()
        return View(
            threshold_tokens=configuration.threshold_tokens,
            mode=configuration.mode,
            bandwidth=Bandwidth(configuration.bandwidth),
            decode=self.decode_view(configuration, prepared.hashes),
            local_prefill=(
                self.view(configuration.local_prefill, prepared.hashes)
                if configuration.local_prefill is not None
                else None
            ),
            remote_prefill=tuple(self.view(pool, prepared.hashes) for pool in configuration.remote_prefill),
            algorithm=configuration.algorithm,
            now_s=now_s,
            decode_s=self._decode_s,
            signals_age_s=max(0.0, now_s - self._alone_since_s),
            stale_after_s=configuration.stale_after_s,
            absorb=configuration.absorb,
            asleep=configuration.asleep,
        )

    def view(self, pool: Pool, hashes: Sequence[bytes], only: str | None = None) -> routing.Pool:
        """Return the workers of a pool as decisions see them; it holds until the next call for that pool.

        A pool that left the configuration has none.
        """
        state, now_s = self._pools.get(pool.name), self._clock()
        if state is None:
            return routing.Pool(pool.name, ())
        cached = state.index.match(hashes)
        workers: list[routing.Worker] = []
        for name, account in state.workers.items():
            if only is None or name == only:
                seen = account.seen
                seen.cached_tokens = cached.get(name, 0)
                seen.usable = account.ejected_until_s <= now_s
                workers.append(seen)
        link: routing.Link | None = None
        if pool.link is not None and state.link is not None:
            link = routing.Link(
                state.link.meter.capacity_bps(now_s),
                pool.link.kv_bytes,
                state.link.backlog_bytes(now_s),
                pool.link.price,
                pool.link.base_price,
            )
        return routing.Pool(
            pool.name,
            tuple(workers),
            prefill_s=pool.prefill_s,
            pace=state.pace,
            price=pool.price,
            base_price=pool.base_price,
            link=link,
            push=pool.push,
            slots=pool.decode_slots,
        )

    def decode_view(
        self, configuration: Configuration, hashes: Sequence[bytes], exclude: frozenset[str] = frozenset()
    ) -> routing.Pool:
        """Return the decode workers that this router may use, without some that were tried.

        A sidecar has its own, and the others only while that one cannot be used: when its pod is about to end, clients still
        come for a moment.
        """
        pool = configuration.decode
        if self._decode_pod is not None and self._decode_pod not in exclude:
            own = self.view(pool, hashes, only=self._decode_pod)
            if own.usable():
                return own
        return self.view(pool, hashes)

    @contextlib.contextmanager
    def busy(self, pool: str, worker: str) -> Iterator[None]:
        """Count a request in flight."""
        seen = self._account(pool, worker).seen
        seen.load += 1
        try:
            yield
        finally:
            seen.load -= 1

    @contextlib.contextmanager
    def prefilling(self, pool: Pool, worker: str, prepared: Prepared) -> Iterator[float]:
        """Count a request in flight, and its prefill in the worker's backlog; yield how long both should take, seconds."""
        seen, work_s = self._account(pool.name, worker).seen, self._work_s(pool, worker, prepared)
        with self.busy(pool.name, worker):
            now_s, idle = self._clock(), seen.pending_s == 0
            backlog.assign(seen, now_s, work_s)
            try:
                yield seen.busy_until_s - now_s
            except BaseException:
                idle = False
                raise
            finally:
                ended_s = self._clock()
                backlog.release(seen, ended_s, work_s)
                if idle and pool.name in self._pools:
                    self._pools[pool.name].took(work_s, ended_s - now_s)

    def absorbs(self, pool: Pool, worker: str, prepared: Prepared) -> Callable[[], None]:
        """Count a prefill on a decode worker; call the result when its first token is there.

        A request that is not streamed shows no first token, so that its prefill counts as long as it should take.
        """
        seen, work_s = self._account(pool.name, worker).seen, self._work_s(pool, worker, prepared)
        if not prepared.stream:
            backlog.expect(seen, self._clock(), work_s)
            return lambda: None
        backlog.assign(seen, self._clock(), work_s)
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                backlog.release(seen, self._clock(), work_s)

        return end

    @contextlib.contextmanager
    def decoding(self, pool: str, worker: str) -> Iterator[None]:
        """Count a request that is past its prefill on a decode worker, and how long it stays."""
        seen, began_s = self._account(pool, worker).seen, self._clock()
        seen.decoding += 1
        try:
            yield
        finally:
            seen.decoding -= 1
            held_s = self._clock() - began_s
            self._decode_s += (_DECODE_MEMORY if self._decode_s else 1.0) * (held_s - self._decode_s)

    def transfer(self, pool: Pool, prepared: Prepared) -> Transfer | LocalTransfer | None:
        """Return the account of a request's KV on its way from a prefill pool; None where nothing can be learnt from it."""
        state = self._pools.get(pool.name)
        if state is not None and pool.link is None and not (pool.push or pool.decode_slots) and prepared.stream:
            return LocalTransfer(self._handover)
        if pool.link is None or state is None or state.link is None:
            return None
        size_bytes = pool.link.kv_bytes(prepared.total_tokens)
        return Transfer(state.link, size_bytes, push=pool.push, seen=prepared.stream)

    def links(self) -> Iterator[tuple[str, LinkReport]]:
        """Yield each link that something crossed, with what the transfers say about it."""
        now_s = self._clock()
        for name, account in self._links.items():
            report = account.report(now_s)
            if report is not None:
                yield name, report

    def now_s(self) -> float:
        """Return the time on the clock of decisions."""
        return self._clock()

    def in_flight(self) -> Iterator[tuple[str, int]]:
        """Yield each pool with its requests in flight."""
        for name, state in self._pools.items():
            yield name, sum(account.seen.load for account in state.workers.values())

    def succeeded(self, pool: str, worker: str, hashes: Sequence[bytes]) -> None:
        """Record that a worker did its part, and now holds the prompt's blocks."""
        account = self._account(pool, worker)
        account.failures = 0
        account.ejected_until_s = 0.0
        if pool in self._pools:
            self._pools[pool].index.insert(worker, hashes)

    def failed(self, pool: str, worker: str) -> None:
        """Record that a worker failed."""
        account = self._account(pool, worker)
        account.failures += 1
        if account.failures >= FAILURES_TO_EJECT:
            doublings = min(account.failures - FAILURES_TO_EJECT, 10)
            account.ejected_until_s = self._clock() + min(EJECTION_S * 2**doublings, MAX_EJECTION_S)
        if pool in self._pools:
            # A worker that failed may have restarted with an empty cache.
            self._pools[pool].index.drop(worker)

    def _account(self, pool: str, worker: str) -> WorkerAccount:
        state = self._pools.get(pool)
        # A worker that left the configuration is still counted by the requests that use it.
        return (state.workers.get(worker) if state is not None else None) or WorkerAccount(routing.Worker(worker, 0, 0))

    def _work_s(self, pool: Pool, worker: str, prepared: Prepared) -> float:
        if pool.prefill_s is None:
            return 0.0
        state = self._pools.get(pool.name)
        cached_tokens = state.index.match(prepared.hashes).get(worker, 0) if state is not None else 0
        pace = state.pace if state is not None else 1.0
        return pool.prefill_s(max(1, prepared.total_tokens - cached_tokens)) * pace
