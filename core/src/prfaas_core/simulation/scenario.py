"""What is simulated: pools, links, and what happens to them. Values only; times are seconds from the start of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from prfaas_core import errors, routing
from prfaas_core.profiles import Profile
from prfaas_core.simulation.control import Controller
from prfaas_core.simulation.metrics import Metric
from prfaas_core.simulation.scalers import Scaler


@dataclass(frozen=True, slots=True)
class LinkChange:
    """What a link is like from a time on.

    Attributes:
        capacity_bps: of the line; 0 is an outage, in which transfers stand still.
        foreign_bps: taken by traffic that does not give way.
        foreign_flows: flows of others that share the rest fairly, each as much as one transfer.
    """

    at_s: float
    capacity_bps: float
    foreign_bps: float = 0.0
    foreign_flows: int = 0

    def __post_init__(self) -> None:
        errors.non_negative("change.at_s", self.at_s)
        errors.non_negative("change.capacity_bps", self.capacity_bps)
        errors.non_negative("change.foreign_bps", self.foreign_bps)
        errors.count("change.foreign_flows", self.foreign_flows)


@dataclass(frozen=True, slots=True)
class Link:
    """The way from a remote pool's cluster to the decode cluster.

    Attributes:
        capacity_bps: at the start, bit/s above 0.
        delay_s: from the last byte sent to the KV being usable.
        changes: in order of time.
        cost_per_gb: money for 10^9 bytes.
        share: part of the capacity that routers are told they may use; nothing holds them to it.
        name: pools whose links have the same name are behind one link; empty: it is this pool's alone.
    """

    capacity_bps: float
    delay_s: float = 0.0
    changes: tuple[LinkChange, ...] = ()
    cost_per_gb: float = 0.0
    share: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        errors.positive("link.capacity_bps", self.capacity_bps)
        errors.non_negative("link.delay_s", self.delay_s)
        errors.non_negative("link.cost_per_gb", self.cost_per_gb)
        if not 0 < errors.positive("link.share", self.share) <= 1:
            raise errors.InvalidValueError("link.share", self.share, "give at most 1")

    @property
    def told_bps(self) -> float:
        """What routers reckon with, bit/s."""
        return self.capacity_bps * self.share


@dataclass(frozen=True, slots=True)
class Scaling:
    """Autoscaling of a pool, by the signals that the operator reads.

    Attributes:
        metrics: at least one.
        scaler: decides; it keeps what it remembers, so a run needs one of its own.
        start_up_s: from the decision to a worker that serves.
        scrape_s: how often Prometheus reads the workers.
    """

    metrics: tuple[Metric, ...]
    scaler: Scaler
    start_up_s: float = 60.0
    scrape_s: float = 15.0

    def __post_init__(self) -> None:
        if not self.metrics:
            raise errors.MissingFieldError("scaling.metrics", "give at least one")
        errors.non_negative("scaling.start_up_s", self.start_up_s)
        errors.positive("scaling.scrape_s", self.scrape_s)


@dataclass(frozen=True, slots=True)
class PrefillPool:
    """Workers that prefill, one request after the other in order of arrival.

    Attributes:
        link: to the decode cluster; None for the pool in the decode cluster.
        push: KV goes out while prefill computes; else it is fetched afterwards.
        layers: parts of the KV; in push mode the last one can only go after the prefill.
        batch_tokens: requests at the head of a queue are computed together while their uncached tokens add up to no more
            than this, in T_prefill of the sum; 0: one by one, as the profile was taken.
    """

    name: str
    profile: Profile
    workers: int
    link: Link | None = None
    push: bool = False
    layers: int = 60
    batch_tokens: int = 0
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        errors.text("pool.name", self.name)
        errors.count("pool.workers", self.workers)
        errors.count("pool.layers", self.layers, minimum=1)
        errors.count("pool.batch_tokens", self.batch_tokens)


@dataclass(frozen=True, slots=True)
class DecodePool:
    """Workers that decode in slots, and prefill when they are asked to.

    Attributes:
        chunk_share: share of a worker's time that a prefill gets. 1: the prefill runs alone (not chunked); less: chunks
            of it run between decode steps, so that it takes 1 / chunk_share times as long.
        interference: seconds of decoding lost for each second of prefill work there. 1 conserves the worker's time; 0 is
            the simulated worker of the local clusters, which computes both side by side.
        fabric_bps: of the network inside the cluster, for KV from the local prefill pool; infinite: no time.
    """

    name: str
    profile: Profile
    workers: int
    chunk_share: float = 1.0
    interference: float = 1.0
    fabric_bps: float = math.inf
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        errors.text("pool.name", self.name)
        errors.count("pool.workers", self.workers)
        if not 0 < errors.positive("pool.chunk_share", self.chunk_share) <= 1:
            raise errors.InvalidValueError("pool.chunk_share", self.chunk_share, "give at most 1")
        if not 0 <= errors.non_negative("pool.interference", self.interference) <= 1:
            raise errors.InvalidValueError("pool.interference", self.interference, "give at most 1")
        if not self.fabric_bps > 0:
            raise errors.InvalidValueError("pool.fabric_bps", self.fabric_bps, "give a number above 0, or infinity")


@dataclass(frozen=True, slots=True)
class Failure:
    """Workers that die, with everything on them.

    Attributes:
        workers: how many, the first by name.
        restore_after_s: when new ones serve; infinite: never.
    """

    at_s: float
    pool: str
    workers: int
    restore_after_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Conversion:
    """A change of role inside the decode cluster: drain, switch, serve as the other.

    Attributes:
        to_decode: from the local prefill pool to decode; else the other way.
        switch_s: from drained to serving.
    """

    at_s: float
    to_decode: bool
    workers: int = 1
    switch_s: float = 30.0


Noise = Callable[[], float]
"""Gives the factor by which one prefill takes longer than its profile says."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything of a run but its traffic.

    Attributes:
        decode, local, remote: the pools; `local` may be None.
        policy: decides each request; the view names the algorithm for `routing.decide`.
        threshold_tokens, bandwidth, mode, algorithm, absorb: of the view.
        hybrid: whether caches hold recurrent state, which is usable only at the lengths at which it was stored.
        state_tokens: room of one such state in a cache, in tokens of full attention.
        prices, link_prices, base_prices, link_base_prices: by pool, as `finish_time` needs them; see
            `prfaas_core.routing.prices`.
        controller: is asked every `control_period_s`; None: nothing changes.
        conversion_switch_s: for conversions that the controller orders.
        transfer_timeout_s: a transfer that takes longer has failed, and the decode worker prefills.
        noise: of prefill times.
        window: how many recent requests the controller sees.
    """

    decode: DecodePool
    local: PrefillPool | None
    remote: tuple[PrefillPool, ...] = ()
    policy: routing.Policy = routing.decide
    threshold_tokens: int = 0
    bandwidth: routing.Bandwidth = routing.Bandwidth.ABUNDANT
    mode: routing.Mode = routing.Mode.ENFORCE
    algorithm: routing.Algorithm = routing.Algorithm.PAPER
    absorb: bool = True
    hybrid: bool = False
    state_tokens: int = 0
    prices: Mapping[str, float] = field(default_factory=dict)
    link_prices: Mapping[str, float] = field(default_factory=dict)
    base_prices: Mapping[str, float] = field(default_factory=dict)
    link_base_prices: Mapping[str, float] = field(default_factory=dict)
    controller: Controller | None = None
    control_period_s: float = 10.0
    conversion_switch_s: float = 30.0
    failures: tuple[Failure, ...] = ()
    conversions: tuple[Conversion, ...] = ()
    transfer_timeout_s: float = math.inf
    noise: Noise | None = None
    window: int = 2000

    def __post_init__(self) -> None:
        errors.count("decode.workers", self.decode.workers, minimum=1)
        errors.positive("control_period_s", self.control_period_s)
        errors.count("window", self.window, minimum=1)
        if self.local is not None and self.local.link is not None:
            raise errors.InvalidValueError("local.link", self.local.link, "a local pool has none")
        for index, pool in enumerate(self.remote):
            if pool.link is None:
                raise errors.MissingFieldError(f"remote[{index}].link", "give the link to the decode cluster")
        lines: dict[str, Link] = {}
        for index, pool in enumerate(self.remote):
            if pool.link is not None and pool.link.name and lines.setdefault(pool.link.name, pool.link) != pool.link:
                raise errors.InvalidValueError(
                    f"remote[{index}].link", pool.link, "describe a link that pools share only once"
                )
        names = [pool.name for pool in (self.decode, *((self.local,) if self.local else ()), *self.remote)]
        if len(set(names)) != len(names):
            raise errors.InvalidValueError("pools", names, "name each pool once")
        for failure in self.failures:
            if failure.pool not in names:
                raise errors.InvalidValueError("failure.pool", failure.pool, f"give one of {', '.join(names)}")
        if self.conversions and self.local is None:
            raise errors.MissingFieldError("local", "conversions need a local prefill pool")
