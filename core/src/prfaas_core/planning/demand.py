"""What requests ask of pools and links, by bins of length.

Each cluster's lengths are cut into bins of equally many requests. A bin holds exact sums (`Lengths.totals`), so binning loses
only the choice within a bin; the rate that a plan states is one that a router can reach by splitting bins at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from prfaas_core.lengths import Lengths
from prfaas_core.planning.fleet import DecodeCluster, Fleet, InstancePool, Link

_FEWEST_BINS, _MOST_BINS, _CELLS = 48, 256, 2048


@dataclass(frozen=True, slots=True)
class Way:
    """One way to prefill for a cluster: in a pool, and over a link if the pool is remote.

    Attributes:
        busy_s: by bin, instance-seconds of the pool that a request of the whole fleet costs, if the bin goes this way.
        busy_s2: the same for the square of the prefill time, s^2.
        bits: by bin, bits over the link; empty without one.
    """

    pool: InstancePool
    link: Link | None
    busy_s: tuple[float, ...]
    busy_s2: tuple[float, ...]
    bits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ClusterDemand:
    """One cluster's bins and ways.

    Attributes:
        cuts: indices into the sample that part the bins; one more than there are bins.
        weights: by bin, part of all requests of the fleet.
        split: bins from this one on may only go remote and those before only the first way, as one threshold has it; None:
            every bin may go every way.
        decode_s: seconds of a decode instance that a request of the whole fleet costs here.
        ways: the local one first.
    """

    cluster: DecodeCluster
    share: float
    cuts: tuple[int, ...]
    weights: tuple[float, ...]
    decode_s: float
    ways: tuple[Way, ...]
    split: int | None = None

    def allows(self, way: int, index: int) -> bool:
        """Return whether a bin may go a way."""
        return self.split is None or (way == 0) == (index < self.split)

    @property
    def local_absorbs(self) -> bool:
        """Whether the first way is the decode instances themselves."""
        return self.cluster.local is None


@dataclass(frozen=True, slots=True)
class Demand:
    """The demand of one request of the fleet's mix."""

    fleet: Fleet
    clusters: tuple[ClusterDemand, ...]

    @classmethod
    def of(cls, fleet: Fleet, bins: int | None = None, thresholds: Mapping[str, int] | None = None) -> Self:
        """Return the demand of a fleet.

        Args:
            bins: a cluster, by default 48 to 256, fewer for more ways.
            thresholds: tokens, by name of a cluster whose router has only a threshold.
        """
        fixed = thresholds or {}
        return cls(fleet, tuple(_cluster(fleet, cluster, bins, fixed.get(cluster.name)) for cluster in fleet.clusters))


def _cluster(fleet: Fleet, cluster: DecodeCluster, bins: int | None, threshold: int | None) -> ClusterDemand:
    links = tuple(link for link in fleet.links if link.cluster == cluster.name)
    pools = {pool.name: pool for pool in fleet.pools}
    ways = len(fleet.links) + len(fleet.clusters)
    wanted = bins or max(_FEWEST_BINS, min(_MOST_BINS, _CELLS // ways))
    split = cluster.lengths.index(threshold) if threshold is not None else None
    cuts, share = _cuts(cluster.lengths, wanted, split), fleet.share(cluster)
    scale = share / len(cluster.lengths.sample)

    def way(pool: InstancePool, link: Link | None) -> Way:
        def sums(squared: bool) -> tuple[float, ...]:
            totals = cluster.lengths.totals(pool.profile.prefill_s, cuts, squared=squared)
            return tuple(scale * total for total in totals)

        bits = cluster.lengths.totals(pool.profile.kv_bytes, cuts) if link is not None else ()
        return Way(pool, link, sums(False), sums(True), tuple(8 * scale * total for total in bits))

    local = way(cluster.local or cluster.decode, None)
    return ClusterDemand(
        cluster=cluster,
        share=share,
        cuts=cuts,
        weights=tuple(scale * (last - first) for first, last in pairwise(cuts)),
        decode_s=share * cluster.decode_s,
        ways=(local, *(way(pools[link.pool], link) for link in links)),
        split=cuts.index(split) if split is not None else None,
    )


def _cuts(lengths: Lengths, bins: int, split: int | None) -> tuple[int, ...]:
    total = len(lengths.sample)
    return tuple(
        sorted({total * index // bins for index in range(bins + 1)} | ({split} if split is not None else set()))
    )
