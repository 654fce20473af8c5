"""What a policy reads and what it answers.

A `View` is what a router knows at the moment of one decision. Its parts can be changed, so that whoever routes at a high
rate keeps one set and updates the fields that move instead of building a new one for each request; policies only read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prfaas_core.profiles import Curve
from prfaas_core.routing.reasons import Algorithm, Bandwidth, Destination, Mode, Reason


@dataclass(slots=True)
class Worker:
    """One worker as the router sees it.

    Attributes:
        name: of the pod; unique in its pool.
        load: requests that the router has in flight there, or has decided to send there.
        cached_tokens: leading tokens of this prompt that it holds.
        usable: ready, and not set aside after failures.
        busy_until_s: when the prefill work assigned to it should be done, on the clock of `View.now_s`; a time in the
            past means idle.
        decoding: requests there that are past their prefill: in a decode slot, or waiting for one.
        pending_s: the same work, summed; see `prfaas_core.routing.backlog`.
    """

    name: str
    load: int
    cached_tokens: int
    usable: bool = True
    busy_until_s: float = -math.inf
    pending_s: float = 0.0
    decoding: int = 0


@dataclass(slots=True)
class Link:
    """The way from a remote pool to the decode cluster.

    Attributes:
        capacity_bps: what PrfaaS may use of it at the moment, bit/s, above 0.
        backlog_bytes: KV that is on its way or will be, of requests that were already sent there.
        kv_bytes: S_kv.
        price, base_price: as of `Pool`, for a second of the whole link.
    """

    capacity_bps: float
    kv_bytes: Curve
    backlog_bytes: float = 0.0
    price: float | None = None
    base_price: float = 0.0


@dataclass(slots=True)
class Pool:
    """The workers of one pool.

    Attributes:
        prefill_s: T_prefill of one worker; None when it is not known.
        pace: how many times as long as `prefill_s` a prefill takes there, as measured.
        price: requests a second that stand behind the work of one worker and wait for it, over the share of it that is
            free; see `prfaas_core.routing.prices`. None when it is not known.
        base_price: what a second of work costs others whatever the backlog is, seconds: the planner's shadow price.
        link: of a remote pool.
        push: whether KV is sent while prefill computes; else it is fetched afterwards.
        slots: requests that one worker decodes at once; 0 when it is not known or the pool does not decode.
    """

    name: str
    workers: tuple[Worker, ...]
    prefill_s: Curve | None = None
    pace: float = 1.0
    price: float | None = None
    base_price: float = 0.0
    link: Link | None = None
    push: bool = False
    slots: int = 0

    def usable(self) -> tuple[Worker, ...]:
        """Return the workers that may be chosen."""
        return tuple(worker for worker in self.workers if worker.usable)


@dataclass(frozen=True, slots=True)
class Request:
    """What of a request matters here.

    Attributes:
        total_tokens: length of the prompt.
        ineligible: the request's trait that keeps its prefill on the decode worker, or None.
    """

    total_tokens: int
    ineligible: Reason | None = None


@dataclass(slots=True)
class View:
    """What the router knows at the moment of a decision.

    Attributes:
        now_s: the moment, on a clock that does not go back.
        decode_s: how long a request holds a decode slot on average, seconds; 0 when it is not known.
        signals_age_s: age of the oldest of prices, curves and link.
        stale_after_s: the age from which they count for nothing.
        absorb: whether decode workers may prefill although there is a local prefill pool.
        asleep: pools without a worker that get one when requests want it; see `prfaas_core.routing.sleeping`.
    """

    threshold_tokens: int
    mode: Mode
    bandwidth: Bandwidth
    decode: Pool
    local_prefill: Pool | None
    remote_prefill: tuple[Pool, ...]
    algorithm: Algorithm = Algorithm.PAPER
    now_s: float = 0.0
    decode_s: float = 0.0
    signals_age_s: float = 0.0
    stale_after_s: float = math.inf
    absorb: bool = True
    asleep: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one request goes, and why.

    Attributes:
        prefill_pool, prefill_worker: None when the decode worker prefills.
        decode_worker: never None.
        cached_tokens: leading tokens that the worker which prefills holds.
        uncached_tokens: the length that was compared with the threshold.
        first_token_s: seconds from now to the first token as estimated; None when the policy estimates nothing.
        regret_s: in shadow mode, by how many seconds the first token comes later than from where the policy would have sent
            the request, as estimated, below 0 when it comes sooner; None when it would not have gone elsewhere, or when
            nothing is known.
        wanted: the prefill pool that it would have gone to if that did not sleep.
    """

    destination: Destination
    reason: Reason
    prefill_pool: str | None
    prefill_worker: str | None
    decode_worker: str
    cached_tokens: int
    uncached_tokens: int
    first_token_s: float | None = None
    regret_s: float | None = None
    wanted: str | None = None
