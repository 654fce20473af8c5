"""What a plan may use: prefill pools, decode clusters, links, prices; and how many of each it settles on.

A decode cluster is what one route serves: its own mix of lengths, its decode instances, perhaps local prefill instances,
and links from remote prefill pools, which several clusters may share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prfaas_core import errors
from prfaas_core.lengths import Lengths
from prfaas_core.profiles import Profile

Counts = Mapping[str, int]
"""Instances by the name of their pool."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many instances a pool may have; equal bounds leave no choice. A maximum of 0 is a pool that is switched off."""

    minimum: int
    maximum: int

    def __post_init__(self) -> None:
        errors.count("minimum", self.minimum)
        errors.count("maximum", self.maximum)
        if self.maximum < self.minimum:
            raise errors.InvalidValueError("maximum", self.maximum, f"give at least the minimum ({self.minimum})")

    @classmethod
    def exactly(cls, count: int) -> Bounds:
        """Return bounds that leave no choice."""
        return cls(count, count)


@dataclass(frozen=True, slots=True)
class InstancePool:
    """Equal instances.

    Attributes:
        name: unique in the fleet.
        price_per_hour: of one instance, all its GPUs, in the currency of the bill.
    """

    name: str
    profile: Profile
    instances: Bounds
    price_per_hour: float = 0.0

    def __post_init__(self) -> None:
        errors.text("name", self.name)
        errors.non_negative(f"{self.name}.price_per_hour", self.price_per_hour)


@dataclass(frozen=True, slots=True)
class DecodeCluster:
    """One route: where its requests decode, and may prefill without crossing a link.

    Attributes:
        name: unique in the fleet.
        lengths: uncached prompt lengths of its requests.
        output_tokens: mean length of its answers, L_out.
        local: its own prefill instances; None: the decode instances prefill too.
        role_total: instances that `local` and `decode` share, each at least one, when their roles may be exchanged; None:
            the bounds of either stand for themselves.
        weight: its part of all requests, relative to the other clusters.
    """

    name: str
    lengths: Lengths
    output_tokens: float
    decode: InstancePool
    local: InstancePool | None = None
    role_total: int | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        errors.text("name", self.name)
        errors.positive(f"{self.name}.output_tokens", self.output_tokens)
        errors.positive(f"{self.name}.weight", self.weight)
        if self.role_total is not None:
            errors.count(f"{self.name}.role_total", self.role_total, minimum=2)
            if self.local is None:
                raise errors.InvalidValueError(f"{self.name}.role_total", self.role_total, "give local prefill too")

    def decode_bounds(self) -> Bounds:
        """Return how many instances may decode, whatever they are bound to by `role_total`."""
        return self.decode.instances if self.role_total is None else Bounds(1, self.role_total - 1)

    @property
    def decode_s(self) -> float:
        """Seconds of a decode instance that one request takes: T_decode L_out / BS_max."""
        return 1 / self.decode.profile.decode_rps(self.output_tokens)


@dataclass(frozen=True, slots=True)
class Link:
    """The way from a remote pool to a decode cluster.

    Attributes:
        line: name of what carries it; ways with the same line share one capacity. Empty: it has a line of its own.
        capacity_bps: of the line; 0 is a line that is down, which carries nothing.
        share: the part of it that PrfaaS may use, at most 1.
        cost_per_gb: price of 10^9 bytes.
    """

    pool: str
    cluster: str
    capacity_bps: float
    share: float = 1.0
    cost_per_gb: float = 0.0
    line: str = ""

    def __post_init__(self) -> None:
        errors.non_negative(f"{self.name}.capacity_bps", self.capacity_bps)
        errors.non_negative(f"{self.name}.cost_per_gb", self.cost_per_gb)
        if errors.positive(f"{self.name}.share", self.share) > 1:
            raise errors.InvalidValueError(f"{self.name}.share", self.share, "give at most 1, the whole link")

    @property
    def name(self) -> str:
        """The line, in messages, loads and prices."""
        return self.line or f"{self.pool} -> {self.cluster}"

    @property
    def usable_bps(self) -> float:
        """What PrfaaS may send."""
        return self.capacity_bps * self.share


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that a plan may use. A remote pool without a link serves nobody."""

    clusters: tuple[DecodeCluster, ...]
    pools: tuple[InstancePool, ...] = ()
    links: tuple[Link, ...] = ()

    def __post_init__(self) -> None:
        if not self.clusters:
            raise errors.InvalidValueError("clusters", self.clusters, "give at least one decode cluster")
        _unique("clusters", (cluster.name for cluster in self.clusters))
        _unique("pools", (pool.name for pool in self.instance_pools()))
        _unique("links", (f"{link.pool} -> {link.cluster}" for link in self.links))
        pools, clusters = {pool.name for pool in self.pools}, {cluster.name for cluster in self.clusters}
        for link in self.links:
            if link.pool not in pools:
                raise errors.InvalidValueError("links.pool", link.pool, "name one of the remote pools")
            if link.cluster not in clusters:
                raise errors.InvalidValueError("links.cluster", link.cluster, "name one of the decode clusters")
        lines: dict[str, Link] = {}
        for link in self.links:
            first = lines.setdefault(link.name, link)
            if (link.usable_bps, link.cost_per_gb) != (first.usable_bps, first.cost_per_gb):
                raise errors.InvalidValueError(
                    f"links[{link.name}]", link, "give all ways over one line its capacity and cost"
                )

    def lines(self) -> tuple[Link, ...]:
        """Return one link for each line."""
        return tuple({link.name: link for link in reversed(self.links)}.values())[::-1]

    def instance_pools(self) -> tuple[InstancePool, ...]:
        """Return remote, local and decode pools, in this order."""
        own = (pool for cluster in self.clusters for pool in (cluster.local, cluster.decode) if pool is not None)
        return (*self.pools, *own)

    def share(self, cluster: DecodeCluster) -> float:
        """Return the part of all requests that is the cluster's."""
        return cluster.weight / sum(other.weight for other in self.clusters)

    def most(self) -> dict[str, int]:
        """Return the counts at the upper bounds; where roles are exchanged, about half of the instances for either."""
        counts = {pool.name: pool.instances.maximum for pool in self.instance_pools()}
        for cluster in self.clusters:
            if cluster.role_total is not None and cluster.local is not None:
                counts[cluster.local.name] = cluster.role_total // 2
                counts[cluster.decode.name] = cluster.role_total - cluster.role_total // 2
        return counts


def _unique(field: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise errors.InvalidValueError(field, name, "give each its own name")
        seen.add(name)
