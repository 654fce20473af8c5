"""PrefillPool: workers that read prompts and hand over their KV."""

from __future__ import annotations

from typing import ClassVar, Literal

from prfaas_core.autoscaling import PREFILL_SIGNALS
from prfaas_operator.api.pool import REPLICAS_XOR_SCALING, Pool, PoolSpec, pool_definition, signal_rule
from prfaas_operator.api.resource import Definition
from prfaas_operator.api.rules import Rule


class PrefillPoolSpec(PoolSpec):
    """Prefill workers of one model in one member cluster."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *REPLICAS_XOR_SCALING,
        signal_rule("PrefillPool", PREFILL_SIGNALS),
    )


class PrefillPool(Pool):
    """Prefill workers of one model in one member cluster. Beside a route's decode pool it is the local pool; in another
    cluster it is a remote one, which long prompts are sent to."""

    definition: ClassVar[Definition] = pool_definition("prefillpools", "pfp")

    kind: Literal["PrefillPool"] = "PrefillPool"
    spec: PrefillPoolSpec
    """What is asked for."""
