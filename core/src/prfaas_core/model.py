"""The paper's steady-state model: equations (1) to (8) of sections 2 and 3.4.

Symbols, each with its name here: Lambda `rate`, t `threshold_tokens`, p `remote_share`, l_long and l_short
`long_tokens` and `short_tokens`, Theta of the three stages `remote_rps`, `local_rps`, `decode_rps`, N_prfaas, N_p, N_d
`remote_instances`, `local_instances`, `decode_instances`, B_out `link_bps`, BS_max and T_decode the profile's
`decode_slots` and `step_s`, L_out `output_tokens`.

Two averages, see `Averaging`: the paper replaces every remote request by one of length l_long and every local one by
l_short, so it computes T(E[L]); prefill time is convex in length, so E[T(L)] is larger, and the rates with it are what a
queue can carry without growing for ever, 3 to 4 % below the paper's in the case study. Both let transfer and prefill
overlap completely and know no queue: their rates are bounds that a real system stays below.
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


class Averaging(enum.StrEnum):
    """How the time and the size of a mix of lengths are averaged."""

    AT_MEAN_LENGTH = "at_mean_length"
    """T(E[L]): the paper's equations (3) to (5)."""
    TRUE_MEAN = "true_mean"
    """E[T(L)]: the limit of stability."""


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


def throughput(
    deployment: Deployment,
    lengths: Lengths,
    threshold_tokens: float,
    averaging: Averaging = Averaging.AT_MEAN_LENGTH,
) -> Throughput:
    """Return what `deployment` carries when prompts longer than the threshold go remote.

    Zero instances or a link of zero carry nothing: the rate is 0 if any request needs them, and `bound` names them.
    """
    share = lengths.above(threshold_tokens)
    long_tokens, short_tokens = lengths.mean_above(threshold_tokens), lengths.mean_up_to(threshold_tokens)
    compute_rps = link_rps = local_rps = 0.0
    kv_bits = 0.0
    at_mean = averaging is Averaging.AT_MEAN_LENGTH
    if deployment.remote is not None and share > 0:
        prefill_s, kv_bytes = deployment.remote.prefill_s, deployment.remote.kv_bytes
        mean_s = prefill_s(long_tokens) if at_mean else lengths.mean_of(prefill_s, above=threshold_tokens)
        kv_bits = 8 * (kv_bytes(long_tokens) if at_mean else lengths.mean_of(kv_bytes, above=threshold_tokens))
        compute_rps, link_rps = deployment.remote_instances / mean_s, deployment.link_bps / kv_bits
    remote_rps = min(compute_rps, link_rps)
    if share < 1:
        prefill_s = deployment.local.prefill_s
        mean_s = prefill_s(short_tokens) if at_mean else lengths.mean_of(prefill_s, up_to=threshold_tokens)
        local_rps = deployment.local_instances / mean_s
    decode_rps = deployment.decode_instances * deployment.local.decode_rps(deployment.output_tokens)
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


def egress_bps(
    profile: Profile, instances: float, lengths: Lengths, averaging: Averaging = Averaging.AT_MEAN_LENGTH
) -> float:
    """Return what busy prefill instances send, bit/s: equation (2), with N / P instances.

    `AT_MEAN_LENGTH` gives the right-hand side, (N / P) Phi_kv(L_avg); `TRUE_MEAN` the left, (N / P) E[S_kv] / E[T_prefill].
    """
    if averaging is Averaging.AT_MEAN_LENGTH:
        return instances * profile.kv_rate_bps(lengths.mean)
    return instances * 8 * lengths.mean_of(profile.kv_bytes) / lengths.mean_of(profile.prefill_s)


def mean_ttft_s(deployment: Deployment, lengths: Lengths, threshold_tokens: float) -> float:
    """Return E[T_prefill(L)] over the mix: the paper's TTFT, without queue or transfer (its Table 6)."""
    share = lengths.above(threshold_tokens)
    remote_s = local_s = 0.0
    if deployment.remote is None:
        return lengths.mean_of(deployment.local.prefill_s)
    if share > 0:
        remote_s = share * lengths.mean_of(deployment.remote.prefill_s, above=threshold_tokens)
    if share < 1:
        local_s = (1 - share) * lengths.mean_of(deployment.local.prefill_s, up_to=threshold_tokens)
    return remote_s + local_s


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
