"""The paper's steady-state model: equations (1) to (8) of sections 2 and 3.4.

Symbols, each with its name here: Lambda `rate`, t `threshold_tokens`, p `remote_share`, l_long and l_short
`long_tokens` and `short_tokens`, Theta of the three stages `remote_rps`, `local_rps`, `decode_rps`, N_prfaas, N_p, N_d
`remote_instances`, `local_instances`, `decode_instances`, B_out `link_bps`, BS_max and T_decode the profile's
`decode_slots` and `step_s`, L_out `output_tokens`.

The model replaces every remote request by one of length l_long and every local one by l_short, lets transfer and prefill
overlap completely, and knows no queue: its rates are bounds that a real system stays below.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from prfaas_core import errors
from prfaas_core.lengths import Lengths
from prfaas_core.profiles import Profile


class Bound(enum.StrEnum):
    """What limits a deployment."""

    REMOTE_PREFILL = "remote_prefill"
    LINK = "link"
    LOCAL_PREFILL = "local_prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What there is to serve with.

    Attributes:
        remote, local: profiles of the two sides; `remote` may be None when there is no remote pool.
        remote_instances, local_instances, decode_instances: how many of each.
        link_bps: what the transfers may use, bit/s.
        output_tokens: mean length of answers.
    """

    local: Profile
    local_instances: int
    decode_instances: int
    output_tokens: float
    remote: Profile | None = None
    remote_instances: int = 0
    link_bps: float = 0.0

    def __post_init__(self) -> None:
        errors.count("local_instances", self.local_instances)
        errors.count("decode_instances", self.decode_instances)
        errors.count("remote_instances", self.remote_instances)
        errors.positive("output_tokens", self.output_tokens)
        errors.non_negative("link_bps", self.link_bps)
        if self.remote_instances and self.remote is None:
            raise errors.InvalidValueError("remote", None, "give the profile of the remote instances")


@dataclass(frozen=True, slots=True)
class Throughput:
    """What a deployment can carry at a threshold; rates in requests a second.

    Attributes:
        rate: Lambda_max, equation (6).
        remote_rps, local_rps, decode_rps: Theta of the stages, equations (3) to (5).
        remote_share: p.
        long_tokens, short_tokens: l_long and l_short; NaN when no request is on that side.
        egress_bps: mean use of the link at `rate`.
        bound: what limits `rate`.
    """

    rate: float
    remote_rps: float
    local_rps: float
    decode_rps: float
    remote_share: float
    long_tokens: float
    short_tokens: float
    egress_bps: float
    bound: Bound


def throughput(deployment: Deployment, lengths: Lengths, threshold_tokens: float) -> Throughput:
    """Return what `deployment` carries when prompts longer than the threshold go remote."""
    share = lengths.above(threshold_tokens)
    long_tokens, short_tokens = lengths.mean_above(threshold_tokens), lengths.mean_up_to(threshold_tokens)
    compute_rps = link_rps = 0.0
    kv_bits = 0.0
    if deployment.remote is not None and share > 0:
        compute_rps = deployment.remote_instances / deployment.remote.prefill_s(long_tokens)
        kv_bits = 8 * deployment.remote.kv_bytes(long_tokens)
        link_rps = deployment.link_bps / kv_bits
    remote_rps = min(compute_rps, link_rps)
    local_rps = deployment.local_instances / deployment.local.prefill_s(short_tokens) if share < 1 else 0.0
    slots = deployment.decode_instances * deployment.local.decode_slots
    decode_rps = slots / (deployment.local.step_s * deployment.output_tokens)
    remote_bound = Bound.LINK if link_rps < compute_rps else Bound.REMOTE_PREFILL
    candidates = [
        (remote_rps / share if share > 0 else math.inf, remote_bound),
        (local_rps / (1 - share) if share < 1 else math.inf, Bound.LOCAL_PREFILL),
        (decode_rps, Bound.DECODE),
    ]
    rate, bound = min(candidates)
    return Throughput(
        rate, remote_rps, local_rps, decode_rps, share, long_tokens, short_tokens, rate * share * kv_bits, bound
    )


def mean_ttft_s(deployment: Deployment, lengths: Lengths, threshold_tokens: float) -> float:
    """Return E[T_prefill(L)] over the mix: the paper's TTFT, without queue or transfer (its Table 6)."""
    remote = deployment.remote
    return lengths.expectation(
        lambda tokens: (
            remote.prefill_s(tokens)
            if remote is not None and tokens > threshold_tokens
            else deployment.local.prefill_s(tokens)
        )
    )


def quantile_ttft_s(deployment: Deployment, lengths: Lengths, threshold_tokens: float, q: float) -> float:
    """Return the q-quantile of T_prefill(L) over the mix."""
    remote = deployment.remote
    times = Lengths.of(
        remote.prefill_s(tokens)
        if remote is not None and tokens > threshold_tokens
        else deployment.local.prefill_s(tokens)
        for tokens in lengths.sample
    )
    return times.quantile(q)
