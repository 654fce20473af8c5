"""The paper's case study (sections 4 and 5) as values: what is published, and our fit where it is not.

Published: S_kv and T_prefill on 8x H200 (Table 5), the length distribution, instances, link. Not published, so fitted to
Table 6: the H20 curve (a quadratic through three inverted points, here at anchors), BS_max = 20 at 25 ms a step, and three
further points of the H200 curve.
"""

from __future__ import annotations

from prfaas_core.lengths import CASE_STUDY as LENGTHS
from prfaas_core.model import Deployment
from prfaas_core.profiles import Curve, Profile

__all__ = ["H20", "H200", "HOMOGENEOUS", "LENGTHS", "NAIVE", "PRFAAS"]

_MIB = 2**20
_KV_BYTES = Curve.through(
    [(1024, 190.8 * _MIB), (8192, 308.9 * _MIB), (32768, 701.3 * _MIB), (131072, 2316.3 * _MIB)], "kvSize"
)
_H200_S = Curve.through(
    [(1024, 0.44), (8192, 0.72), (27486, 1.633), (32768, 1.84), (45046, 2.484), (62410, 3.51), (131072, 7.40)],
    "prefill",
)


def h20_prefill_s(tokens: float) -> float:
    """Return our fit of T_prefill on 8x H20, seconds: a quadratic through the points that Table 6 implies."""
    thousands = tokens / 1000
    return 0.469012 + 0.130039 * thousands + 0.000294027 * thousands**2


_H20_S = Curve.through([(tokens, h20_prefill_s(tokens)) for tokens in (*range(500, 131_001, 500), 131_072)], "prefill")


def _profile(accelerator: str, prefill_s: Curve) -> Profile:
    return Profile(
        model="prfaas-1t",
        max_model_len_tokens=131_072,
        bytes_per_token=4.0,
        accelerator=accelerator,
        accelerators_per_instance=8,
        prefill_s=prefill_s,
        kv_bytes=_KV_BYTES,
        decode_slots=20,
        step_s=0.025,
        cache_capacity_tokens=0,
        block_tokens=512,
    )


H200 = _profile("H200", _H200_S)
H20 = _profile("H20", _H20_S)

PRFAAS = Deployment(
    local=H20,
    local_instances=3,
    decode_instances=5,
    output_tokens=1024,
    remote=H200,
    remote_instances=4,
    link_bps=100e9,
)
"""32 H200 that only prefill, 64 H20 that do both, 100 Gbit/s between them."""
HOMOGENEOUS = Deployment(local=H20, local_instances=9, decode_instances=3, output_tokens=1024)
"""96 H20."""
NAIVE = Deployment(
    local=H20,
    local_instances=0,
    decode_instances=8,
    output_tokens=1024,
    remote=H200,
    remote_instances=4,
    link_bps=100e9,
)
"""The instances of `PRFAAS` with every prefill on H200 and every decode on H20."""
