"""Say a plan to people, as tables, and to programs, as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from prfaas_core.planning.demand import Demand
from prfaas_core.planning.explanation import Kind
from prfaas_core.planning.fleet import Fleet
from prfaas_core.planning.plan import Plan
from prfaas_core.planning.sizing import link_cost_per_hour

_QUANTILES = (0.5, 0.9, 0.99)
_SHARE_STEP = 0.05
_WORTH_SAYING = 0.05


def as_json(fleet: Fleet, plan: Plan, notes: tuple[str, ...]) -> dict[str, Any]:
    """Return the plan as JSON values; infinite times are null."""
    resources = {resource.name: resource for resource in plan.explanation.resources}
    prices = {pool.name: pool.price_per_hour for pool in fleet.instance_pools()}
    return {
        "goal": type(plan.goal).__name__,
        "rateRps": plan.rate,
        "capacityRps": plan.capacity,
        "ttftSeconds": {
            "mean": _finite(plan.latency.mean_s),
            **{f"p{100 * q:g}": _finite(plan.latency.quantile(q)) for q in _QUANTILES},
        },
        "costPerHour": plan.cost_per_hour,
        "costLowerBound": plan.cost_bound or None,
        "linkCostPerHour": link_cost_per_hour(Demand.of(fleet), plan.assignment, plan.rate),
        "pools": [
            {
                "name": name,
                "replicas": plan.counts[name],
                "utilisation": resources[name].utilisation,
                "rpsPerInstance": resources[name].rps_per_unit,
                "costPerHour": prices[name] * plan.counts[name],
            }
            for name in plan.counts
        ],
        "links": [
            {
                "name": link.name,
                "usedGbps": resources[link.name].used,
                "usableGbps": resources[link.name].capacity,
                "share": link.share,
                "shareNeeded": needed_share(link.capacity_bps, resources[link.name].used * 1e9),
                "rpsPerGbps": resources[link.name].rps_per_unit,
            }
            for link in fleet.lines()
        ],
        "routes": [
            {
                "name": cluster.name,
                "thresholdTokens": cluster.threshold_tokens,
                "offThreshold": cluster.off_threshold,
                "intervals": [{"from": low, "to": high, "pool": pool} for low, high, pool in cluster.intervals],
            }
            for cluster in plan.clusters
        ],
        "binding": [resource.name for resource in plan.explanation.binding],
        "nextMoves": [
            {"what": move.what, "rateRps": move.rate, "gainRps": move.gain, "costPerHour": move.cost_per_hour}
            for move in plan.moves
        ],
        "notes": list(notes),
    }


def print_tables(console: Console, fleet: Fleet, plan: Plan, now: Mapping[str, str], notes: tuple[str, ...]) -> None:
    """Print pools, links, routes, and what binds."""
    resources = {resource.name: resource for resource in plan.explanation.resources}
    pools = Table("pool", "role", "on", title="Pools", title_justify="left")
    for name in ("now", "plan", "in use", "one more gives", "cost/h"):
        pools.add_column(name, justify="right")
    for pool in fleet.instance_pools():
        resource = resources[pool.name]
        pools.add_row(
            pool.name,
            resource.kind.value if pool not in fleet.pools else f"remote {resource.kind.value}",
            pool.profile.accelerator,
            now.get(pool.name, "-"),
            str(plan.counts[pool.name]),
            f"{resource.utilisation:.0%}",
            f"+{resource.rps_per_unit:.3g} req/s" if resource.rps_per_unit else "-",
            f"{pool.price_per_hour * plan.counts[pool.name]:.2f}" if pool.price_per_hour else "-",
        )
    console.print(pools)
    if fleet.links:
        links = Table("link", title="Links", title_justify="left")
        for name in ("used Gbit/s", "usable", "share", "share needed", "one Gbit/s more gives"):
            links.add_column(name, justify="right")
        for link in fleet.lines():
            resource = resources[link.name]
            links.add_row(
                link.name,
                f"{resource.used:.3g}",
                f"{resource.capacity:.3g}",
                f"{link.share:g}",
                f"{needed_share(link.capacity_bps, resource.used * 1e9):g}",
                f"+{resource.rps_per_unit:.3g} req/s" if resource.rps_per_unit else "-",
            )
        console.print(links)
    routes = Table("route", "now", "threshold", "lengths go to", title="Routes", title_justify="left")
    for cluster in plan.clusters:
        shown = ", ".join(f"{pool} {low}-{high}" for low, high, pool in cluster.intervals[:6])
        more = len(cluster.intervals) - 6
        routes.add_row(
            cluster.name,
            now.get(cluster.name, "-"),
            str(cluster.threshold_tokens),
            shown + (f", and {more} more intervals" if more > 0 else ""),
        )
    console.print(routes)
    for line in _conclusions(plan, notes):
        console.print(line)


def _conclusions(plan: Plan, notes: tuple[str, ...]) -> list[str]:
    lines = [f"{plan.rate:.4g} requests/s planned, {plan.capacity:.4g} carried at most"]
    quantiles = ", ".join(f"P{100 * q:g} {_seconds(plan.latency.quantile(q))}" for q in _QUANTILES)
    lines.append(f"TTFT at the planned rate: mean {_seconds(plan.latency.mean_s)}, {quantiles}")
    if plan.cost_per_hour:
        each = plan.cost_per_hour / (3.6e3 * plan.rate) * 1000
        bound = f"; no plan costs less than {plan.cost_bound:.2f}" if plan.cost_bound else ""
        lines.append(f"costs {plan.cost_per_hour:.2f} an hour, {each:.3f} for 1000 requests{bound}")
    binding = plan.explanation.binding
    lines.append(
        "binds: "
        + (
            ", ".join(
                f"{one.name} ({one.kind.value}, +{one.rps_per_unit:.3g} req/s for "
                f"{'1 Gbit/s' if one.kind is Kind.LINK else 'an instance'})"
                for one in binding[:4]
            )
            or "several limits at once, no single one more helps"
        )
    )
    spare = [one for one in plan.explanation.resources if not one.rps_per_unit and one.capacity]
    if spare:
        slack = ", ".join(
            f"{one.name} {one.slack:.3g} {'Gbit/s' if one.kind is Kind.LINK else 'instances'}" for one in spare[:4]
        )
        lines.append(f"to spare: {slack}")
    for move in plan.moves:
        cost = f", {move.cost_per_hour:.2f} an hour" if move.cost_per_hour else ""
        lines.append(f"next: {move.what}: {move.rate:.4g} requests/s (+{move.gain:.3g}{cost})")
    lines += [
        f"note: {cluster.name}: {cluster.off_threshold:.0%} of the requests go another way than one threshold sends them; "
        "a router with a threshold alone carries less"
        for cluster in plan.clusters
        if cluster.off_threshold > _WORTH_SAYING
    ]
    return [*lines, *(f"note: {note}" for note in notes)]


def needed_share(capacity_bps: float, used_bps: float) -> float:
    """Return the smallest share of a link, in steps of 0.05, that carries what the plan sends."""
    if capacity_bps == 0:
        return 0.0
    steps = math.ceil(used_bps / capacity_bps / _SHARE_STEP - 1e-9)
    return round(min(1.0, steps * _SHARE_STEP), 2)


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if math.isfinite(value) else "endless"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
