"""DecodePool: workers that take over KV and write the answer."""

from __future__ import annotations

from typing import ClassVar, Literal

from prfaas_core.autoscaling import DECODE_SIGNALS
from prfaas_operator.api.pool import REPLICAS_XOR_SCALING, Pool, PoolSpec, pool_definition, signal_rule
from prfaas_operator.api.resource import Definition
from prfaas_operator.api.rules import Rule


class DecodePoolSpec(PoolSpec):
    """Decode workers of one model in one member cluster."""

    rules: ClassVar[tuple[Rule, ...]] = (*REPLICAS_XOR_SCALING, signal_rule("DecodePool", DECODE_SIGNALS))


class DecodePool(Pool):
    """Decode workers of one model in one member cluster, the one in which requests arrive."""

    definition: ClassVar[Definition] = pool_definition("decodepools", "dcp")

    kind: Literal["DecodePool"] = "DecodePool"
    spec: DecodePoolSpec
    """What is asked for."""
