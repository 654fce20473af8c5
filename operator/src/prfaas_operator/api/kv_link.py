"""KVLink: the network that KV crosses from one cluster to another."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prfaas_core.link_capacity import LinkState
from prfaas_operator.api.model import Model, StatusModel
from prfaas_operator.api.references import Reference
from prfaas_operator.api.resource import AGE, READY, REASON, Column, Definition, Resource
from prfaas_operator.api.rules import Rule, immutable
from prfaas_operator.api.scalars import CIDR, Fraction, Measured, Message, NonNegative, Whole
from prfaas_operator.api.status import Status


class Bandwidth(StrEnum):
    """How the link's capacity compares with what could be sent over it (paper, section 3.4.3)."""

    SCARCE = "Scarce"
    ABUNDANT = "Abundant"


def _same_size(translation: AddressTranslation) -> bool:
    own, seen = (ipaddress.ip_network(cidr) for cidr in (translation.pod_cidr, translation.translated_cidr))
    return own.version == seen.version and own.prefixlen == seen.prefixlen


class AddressTranslation(Model):
    """A 1:1 translation of the sending cluster's pod addresses: the prefix is replaced, the rest is kept."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!isCIDR(self.podCIDR) || !isCIDR(self.translatedCIDR) || "
            "cidr(self.podCIDR).prefixLength() == cidr(self.translatedCIDR).prefixLength() && "
            "cidr(self.podCIDR).ip().family() == cidr(self.translatedCIDR).ip().family()",
            "podCIDR {self.podCIDR} and translatedCIDR {self.translatedCIDR} differ in size; a 1:1 translation needs the "
            "same address family and prefix length",
            _same_size,
        ),
    )

    pod_cidr: CIDR
    """Network of the pods in the cluster that sends."""
    translated_cidr: CIDR
    """Network under which the receiving cluster sees them."""


class KVLinkSpec(Model):
    """The network from one cluster to another, in one direction."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.fromClusterRef.name != self.toClusterRef.name",
            "fromClusterRef and toClusterRef are both {self.toClusterRef.name}; a link leads to another cluster, and "
            "none is needed within one",
            lambda spec: spec.from_cluster_ref.name != spec.to_cluster_ref.name,
        ),
    )

    from_cluster_ref: Annotated[
        Reference, immutable("fromClusterRef", "make another KVLink and delete this one", shown=".name")
    ]
    """The MemberCluster that sends KV: the one that prefills. Cannot change."""
    to_cluster_ref: Annotated[
        Reference, immutable("toClusterRef", "make another KVLink and delete this one", shown=".name")
    ]
    """The MemberCluster that receives KV: the one that decodes. Cannot change."""
    capacity_gbps: Annotated[float, Field(strict=True, gt=0, le=1_000_000, allow_inf_nan=False)]
    """Capacity of the link in Gbit/s (10^9 bit/s)."""
    share: Fraction = 0.8
    """The part of the capacity that PrfaaS may use, above 0 up to 1. The rest is headroom and other traffic."""
    cost_per_gb: NonNegative = 0
    """Price of 10^9 bytes sent, in the currency of your bill."""
    address_translation: AddressTranslation | None = None
    """A 1:1 translation of pod addresses between the clusters; absent where pods reach each other by their own."""


class LinkCapacity(StatusModel):
    """What the link really carries, as routers measure it on their own transfers."""

    state: LinkState
    """Unmeasured: too little crossed it, so that the spec counts. Nominal: it carries what the spec says. Slow: it carries
    clearly less. Held: it was slow, and nothing has crossed it since. Probing: after a while of that, a little more is sent."""
    usable_bps: Measured
    """Bit/s that thresholds are planned with: at most capacity times share, and less on a slow link."""
    measured_bps: Measured | None = None
    """Bit/s that routers measured last; written again when it is clearly another."""
    message: Message = ""
    """The same for people."""


class KVLinkStatus(Status):
    """What the operator observed of a link."""

    used_bps: Measured | None = None
    """Bit/s of KV that cross the link at the moment."""
    utilisation: Measured | None = None
    """Fraction of capacity.usableBps which usedBps takes; above 1 if it is overrun."""
    capacity: LinkCapacity | None = None
    """What the link really carries."""
    bytes_total: Whole | None = None
    """Bytes of KV sent since the link object was made."""
    cost_total: Measured | None = None
    """Price of those bytes, in the currency of costPerGB."""
    bandwidth: Bandwidth | None = None
    """Scarce: each cluster's prefix cache is judged on its own. Abundant: the best cache anywhere counts."""


class KVLink(Resource):
    """The network that KV crosses from one cluster to another, in one direction."""

    definition: ClassVar[Definition] = Definition(
        plural="kvlinks",
        short_name="kvl",
        columns=(
            Column("From", ".spec.fromClusterRef.name", "The cluster that prefills."),
            Column("To", ".spec.toClusterRef.name", "The cluster that decodes."),
            Column("Gbps", ".spec.capacityGbps", "Capacity in Gbit/s.", "number"),
            Column("Share", ".spec.share", "The part of it that PrfaaS may use.", "number"),
            Column("Capacity", ".status.capacity.state", "Whether the link carries what its spec says."),
            Column("Usable", ".status.capacity.usableBps", "Bit/s that are planned with.", "number", priority=1),
            Column("Utilisation", ".status.utilisation", "Fraction of the share that is in use.", "number"),
            Column("Bandwidth", ".status.bandwidth", "Scarce or Abundant."),
            READY,
            REASON,
            AGE,
        ),
        selectable=(".spec.fromClusterRef.name", ".spec.toClusterRef.name"),
    )

    kind: Literal["KVLink"] = "KVLink"
    spec: KVLinkSpec
    """What is asked for."""
    status: KVLinkStatus = KVLinkStatus()
    """What the operator observed."""
