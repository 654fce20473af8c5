"""Figure 5, and what follows from the model that the paper does not show."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prfaas_core import model, planner
from prfaas_core.case_study import HOMOGENEOUS, LENGTHS, NAIVE, PRFAAS
from prfaas_core.model import Averaging
from prfaas_core.reproduction.case_study_tables import GRID_TOKENS, THRESHOLD_TOKENS
from prfaas_core.reproduction.cells import Cell, Origin, Table

LINKS_GBPS = (100, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)
_SLOW_LINK_GRID = range(2_000, 131_001, 200)
_THOUSANDS = (2, 5, 10, 15, 17, 19.4, 22, 25, 30, 40, 60)
_CURVE_NOTE = "drawn in the paper without numbers"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a figure: `y` over `x`."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


def roles() -> tuple[Line, ...]:
    """Figure 5a: rates over N_p at t = 19.4K, requests/s."""
    counts = tuple(range(1, PRFAAS.local_instances + PRFAAS.decode_instances))
    found = [_with_prefill(count) for count in counts]
    return (
        Line("Lambda_max", counts, tuple(at.rate for at in found)),
        Line("Theta_prfaas + Theta_pd-p", counts, tuple(at.remote_rps + at.local_rps for at in found)),
        Line("Theta_pd-d", counts, tuple(at.decode_rps for at in found)),
    )


def thresholds(thousands: Sequence[float] = tuple(range(1, 61))) -> tuple[Line, ...]:
    """Figure 5b: rates over t in thousands of tokens at (3, 5), requests/s."""
    found = [model.throughput(PRFAAS, LENGTHS, 1000 * t) for t in thousands]
    x = tuple(float(t) for t in thousands)
    return (
        Line("Theta_prfaas / p", x, tuple(at.remote_rps / at.remote_share for at in found)),
        Line("Theta_pd-p / (1 - p)", x, tuple(at.local_rps / (1 - at.remote_share) for at in found)),
        Line("Lambda_max", x, tuple(at.rate for at in found)),
    )


@functools.lru_cache(maxsize=4)
def slow_links(gbps: tuple[float, ...] = LINKS_GBPS) -> tuple[Line, ...]:
    """Lambda_max over the link in Gbit/s: as published, with t searched again, and with roles too."""
    deployments = [replace(PRFAAS, link_bps=value * 1e9) for value in gbps]
    x = tuple(float(value) for value in gbps)

    def roles_too(deployment: model.Deployment) -> float:
        return planner.best_roles(deployment, LENGTHS, _SLOW_LINK_GRID).throughput.rate

    def threshold_only(deployment: model.Deployment) -> float:
        return planner.best_threshold(deployment, LENGTHS, _SLOW_LINK_GRID).throughput.rate

    static = (model.throughput(deployment, LENGTHS, THRESHOLD_TOKENS).rate for deployment in deployments)
    return (
        Line("static t = 19.4K, (3, 5)", x, tuple(static)),
        Line("t searched again, (3, 5)", x, tuple(map(threshold_only, deployments))),
        Line("t and N_p searched again", x, tuple(map(roles_too, deployments))),
    )


def figure_5() -> Table:
    """Figure 5 as numbers."""
    cells = []
    for count, rate in zip(roles()[0].x, roles()[0].y, strict=True):
        published = 3.24 if count == 3 else None
        note = "3.248, see Table 6" if count == 3 else _CURVE_NOTE
        cells.append(Cell(f"N_p = {count:g}", "Lambda_max", published, rate, Origin.DERIVED, 0.005, note))
    remote, local, _ = thresholds(_THOUSANDS)
    for t, left, right in zip(remote.x, remote.y, local.y, strict=True):
        row = f"t = {t:g}K"
        cells.append(Cell(row, remote.label, None, left, Origin.DERIVED, note=_CURVE_NOTE))
        cells.append(Cell(row, local.label, None, right, Origin.DERIVED, note=_CURVE_NOTE))
    crossing = min(GRID_TOKENS, key=_imbalance)
    cells.append(Cell("crossing", "t K", 19.4, crossing / 1000, Origin.DERIVED, 0.05))
    return Table("Figure 5", "rates over the roles and over the threshold", tuple(cells))


def beyond() -> Table:
    """What the same model says and the paper does not: slow links, stability limits, fractional roles."""
    cells = [
        Cell(f"{gbps:g} Gbps", line.label, None, rate, Origin.DERIVED)
        for line in slow_links()
        for gbps, rate in zip(line.x, line.y, strict=True)
    ]
    best = planner.best_roles(PRFAAS, LENGTHS, GRID_TOKENS, Averaging.TRUE_MEAN)
    at_paper = model.throughput(PRFAAS, LENGTHS, THRESHOLD_TOKENS, Averaging.TRUE_MEAN)
    true = "Lambda_max, true means"
    cells += [
        Cell("PrfaaS-PD, t = 19.4K", true, None, at_paper.rate, Origin.DERIVED),
        Cell(f"PrfaaS-PD, t = {best.threshold_tokens / 1000:g}K", true, None, best.throughput.rate, Origin.DERIVED),
        Cell("Homogeneous PD", true, None, _true_rate(HOMOGENEOUS, math.inf), Origin.DERIVED),
        Cell("Naive heterogeneous", true, None, _true_rate(NAIVE, 0), Origin.DERIVED),
    ]
    for averaging, label in ((Averaging.AT_MEAN_LENGTH, "T(E[L])"), (Averaging.TRUE_MEAN, "E[T(L)]")):
        bound = planner.fractional_roles(PRFAAS, LENGTHS, GRID_TOKENS, averaging)
        row = f"fractional roles, {label}"
        cells += [
            Cell(row, "Lambda_max", None, bound.rate, Origin.DERIVED),
            Cell(row, "N_p", None, bound.local_instances, Origin.DERIVED),
            Cell(row, "t K", None, bound.threshold_tokens / 1000, Origin.DERIVED),
        ]
    return Table("Beyond the paper", "slow links, stability limits, fractional roles", tuple(cells))


def _with_prefill(count: int) -> model.Throughput:
    total = PRFAAS.local_instances + PRFAAS.decode_instances
    return model.throughput(
        replace(PRFAAS, local_instances=count, decode_instances=total - count), LENGTHS, THRESHOLD_TOKENS
    )


def _imbalance(threshold: int) -> float:
    at = model.throughput(PRFAAS, LENGTHS, threshold)
    return abs(at.remote_rps / at.remote_share - at.local_rps / (1 - at.remote_share))


def _true_rate(deployment: model.Deployment, threshold: float) -> float:
    return model.throughput(deployment, LENGTHS, threshold, Averaging.TRUE_MEAN).rate
