"""Tables 1 to 4: facts about models, and the link rates that follow from them.

Tables 1 and 2 describe architectures and are inputs. Table 3 is a result whose inputs, S_kv and T_prefill of six open models,
the paper does not print; what can be checked is that the cluster bandwidths of its section 2.3 follow from it by
equation (2). Table 4 defines symbols; it is shown with the values of the case study.
"""

from __future__ import annotations

from prfaas_core import model
from prfaas_core.case_study import H20, H200, LENGTHS, PRFAAS
from prfaas_core.reproduction.cells import Cell, Origin, Table

_MODELS = (
    ("Kimi Linear", "KDA", "MLA", "3:1", "48B"),
    ("MiMo-V2-Flash", "SWA", "GQA", "5:1", "309B"),
    ("Qwen3.5-397B", "GDN", "GQA", "3:1", "397B"),
    ("Ring-2.5-1T", "Lightning", "MLA", "7:1", "1T"),
    ("MiniMax-M2.5", "-", "GQA", "-", "229B"),
    ("Qwen3-235B", "-", "GQA", "-", "235B"),
)
_MECHANISMS = (
    ("GQA", "high", "high"),
    ("MLA", "high", "low"),
    ("sparse", "low", "high"),
    ("SWA", "low", "low"),
    ("linear", "low", "low"),
)
_PHI_GBPS = {
    "Kimi Linear": {1: 1.19, 8: 2.29, 32: 3.87, 128: 4.88},
    "MiMo-V2-Flash": {1: 0.82, 8: 2.85, 32: 4.66, 128: 4.71},
    "Qwen3.5-397B": {1: 4.13, 8: 6.28, 32: 8.25, 128: 7.47},
    "Ring-2.5-1T": {1: 7.27, 8: 4.47, 32: 2.59, 128: 1.46},
    "MiniMax-M2.5": {1: 4.94, 8: 32.87, 32: 59.93, 128: 47.82},
    "Qwen3-235B": {1: 4.12, 8: 22.42, 32: 33.35, 128: 21.50},
}
"""Phi_kv in Gbit/s by thousands (1024) of tokens, on 8x H200 with SGLang v0.5.9."""
_NO_INPUTS = "S_kv and T_prefill of this model are not printed, only their quotient"

_CLAIMS = (
    # (claim, model, length in 1024s, GPUs, published Gbit/s, half a unit of its last digit, note)
    ("512 H200, 32K, MiniMax-M2.5", "MiniMax-M2.5", 32, 512, 3800.0, 50.0, ""),
    ("512 H200, 32K, Qwen3-235B", "Qwen3-235B", 32, 512, 2100.0, 50.0, ""),
    ("512 H200, 32K, Ring-2.5-1T", "Ring-2.5-1T", 32, 512, 170.0, 5.0, ""),
    ("512 H200, 128K, Ring-2.5-1T", "Ring-2.5-1T", 128, 512, 100.0, 10.0, "the paper says below 100"),
    (
        "10,000 GPUs, Ring-2.5-1T",
        "Ring-2.5-1T",
        128,
        10_000,
        1800.0,
        50.0,
        "follows at 128K; at the 32K of its context it would be 3238",
    ),
)
_RATIOS = (
    ("MiMo-V2-Flash against MiniMax-M2.5, 32K", "MiniMax-M2.5", "MiMo-V2-Flash", 13.0, 0.5),
    ("Qwen3.5-397B against Qwen3-235B, 32K", "Qwen3-235B", "Qwen3.5-397B", 4.0, 0.5),
)


def table_1() -> Table:
    """Models and their attention."""
    columns = ("linear part", "full part", "ratio", "parameters")
    cells = tuple(
        Cell(name, column, value, value, Origin.PUBLISHED)
        for name, *values in _MODELS
        for column, value in zip(columns, values, strict=True)
    )
    return Table("Table 1", "structure of the models", cells)


def table_2() -> Table:
    """Classes of mechanisms."""
    cells = tuple(
        Cell(name, column, value, value, Origin.PUBLISHED)
        for name, *values in _MECHANISMS
        for column, value in zip(("prefill latency", "KV throughput"), values, strict=True)
    )
    return Table("Table 2", "what each attention mechanism costs", cells)


def table_3() -> Table:
    """Phi_kv of open models, and the bandwidth of clusters that follows from it by equation (2)."""
    cells = [
        Cell(name, f"Phi_kv({thousands}K) Gbps", gbps, None, Origin.NOT_REPRODUCIBLE, note=_NO_INPUTS)
        for name, by_length in _PHI_GBPS.items()
        for thousands, gbps in by_length.items()
    ]
    for claim, name, thousands, gpus, gbps, half_unit, note in _CLAIMS:
        ours = gpus / 8 * _PHI_GBPS[name][thousands]
        cells.append(Cell(claim, "B_out Gbps (section 2.3)", gbps, ours, Origin.DERIVED, half_unit, note))
    for claim, dense, hybrid, ratio, half_unit in _RATIOS:
        ours = _PHI_GBPS[dense][32] / _PHI_GBPS[hybrid][32]
        cells.append(Cell(claim, "ratio of Phi_kv", ratio, ours, Origin.DERIVED, half_unit))
    return Table("Table 3", "KV rate of open models, and of clusters of them", tuple(cells))


def table_4() -> Table:
    """Symbols, with what they are in the case study."""
    at = model.throughput(PRFAAS, LENGTHS, 19_400)
    rows: tuple[tuple[str, float, Origin, str], ...] = (
        ("L_out", PRFAAS.output_tokens, Origin.PUBLISHED, "tokens, mean output length"),
        ("N_prfaas", PRFAAS.remote_instances, Origin.PUBLISHED, "instances of the remote cluster"),
        ("B_out", PRFAAS.link_bps / 1e9, Origin.PUBLISHED, "Gbit/s of egress"),
        ("N_p", PRFAAS.local_instances, Origin.DERIVED, "local prefill instances"),
        ("N_d", PRFAAS.decode_instances, Origin.DERIVED, "decode instances"),
        ("t", 19_400, Origin.DERIVED, "tokens, routing threshold"),
        ("p", at.remote_share, Origin.DERIVED, "fraction sent to the remote cluster"),
        ("l_long", at.long_tokens, Origin.DERIVED, "tokens, E[L | L > t]"),
        ("l_short", at.short_tokens, Origin.DERIVED, "tokens, E[L | L <= t]"),
        ("S_kv(l_long)", H200.kv_bytes(at.long_tokens) / 2**20, Origin.DERIVED, "MiB"),
        ("T_prefill(l_long), H200", H200.prefill_s(at.long_tokens), Origin.FIT, "seconds"),
        ("T_prefill(l_short), H20", H20.prefill_s(at.short_tokens), Origin.FIT, "seconds"),
        ("BS_max", H20.decode_slots, Origin.FIT, "only BS_max / T_decode = 800 tokens/s is identified"),
        ("T_decode", H20.step_s, Origin.FIT, "seconds a step; 25 ms is the SLO of 40 tokens/s"),
        ("Theta_prfaas", at.remote_rps, Origin.FIT, "requests/s, equation (3)"),
        ("Theta_pd-p", at.local_rps, Origin.FIT, "requests/s, equation (4)"),
        ("Theta_pd-d", at.decode_rps, Origin.FIT, "requests/s, equation (5)"),
        ("Lambda_max", at.rate, Origin.DERIVED, "requests/s, equation (6)"),
    )
    cells = tuple(Cell(symbol, "case study", None, value, origin, note=note) for symbol, value, origin, note in rows)
    return Table("Table 4", "symbols, with their values in the case study", cells)
