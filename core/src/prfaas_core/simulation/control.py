"""What a controller sees and orders: the seam between the simulated system and the loops of the operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from prfaas_core.routing import Bandwidth


@dataclass(frozen=True, slots=True)
class PoolObservation:
    """One pool over the last control period.

    Attributes:
        workers: that serve now.
        rate_rps: prefills that were sent there, a second.
        utilisation: prefill work that was sent there, of what the workers could do; for decode slots in use.
        backlog_s: prefill work that waits or runs, seconds a worker.
        link_bps: what the link carries as measured by the transfers, bit/s; 0 without a link.
        link_rate_rps, link_utilisation: transfers that arrived, a second, and their bytes, of `link_bps`; of all pools
            behind the same link.
        line: the link's name; pools with the same one share it. Empty: it is this pool's alone.
    """

    workers: int
    rate_rps: float
    utilisation: float
    backlog_s: float
    link_bps: float = 0.0
    link_rate_rps: float = 0.0
    link_utilisation: float = 0.0
    line: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is measured.

    Attributes:
        now_s: the time.
        rate_rps: arrivals a second in the last period.
        uncached_tokens: of the most recent requests, as the router compared them, oldest first.
        output_tokens: their mean.
        waiting_decode: requests that wait for a slot.
        pools: by name.
        threshold_tokens, bandwidth: in force.
    """

    now_s: float
    rate_rps: float
    uncached_tokens: tuple[int, ...]
    output_tokens: float
    waiting_decode: int
    pools: Mapping[str, PoolObservation]
    threshold_tokens: int
    bandwidth: Bandwidth


@dataclass(frozen=True, slots=True)
class Orders:
    """What changes; None and empty leave as it is.

    Attributes:
        prices, base_prices, link_prices, link_base_prices: by pool, see `prfaas_core.routing.prices`.
        convert_to_decode: workers of the local prefill pool to convert to decode; below 0 the other way.
    """

    threshold_tokens: int | None = None
    bandwidth: Bandwidth | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    link_prices: Mapping[str, float] = field(default_factory=dict)
    base_prices: Mapping[str, float] = field(default_factory=dict)
    link_base_prices: Mapping[str, float] = field(default_factory=dict)
    convert_to_decode: int = 0


Controller = Callable[[Observation], Orders]
"""Is asked once a period. It may keep state of its own; with the same observations it has to give the same orders."""
