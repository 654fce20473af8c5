"""The planner against the searches that it replaces, in one run.

Baselines, by name:
- `paper-grid`: the paper's exhaustive grid over threshold and roles (section 3.4.2), with true means; one remote pool.
- `interval-grid`: brute force over one boundary for each remote pool, on the planner's own bins, in every order; two remote pools.
- `one-kind`: all remote pools counted as so many instances of one kind behind one link, then the paper's threshold; what
  is possible without a model of several pools. Its threshold is rated with the true pools.

Fleets are drawn with fixed seeds. Times are CPU times of this process, medians of rounds in which planner and baseline take turns.

    python benchmarks/planner/run.py [--write]
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

from prfaas_core import planner
from prfaas_core.case_study import H20, H200, LENGTHS, PRFAAS
from prfaas_core.model import Averaging, Deployment
from prfaas_core.planning import assignment, sizing
from prfaas_core.planning.demand import Demand
from prfaas_core.planning.fleet import Bounds, DecodeCluster, Fleet, InstancePool, Link
from prfaas_core.planning.plan import MaximiseRate, MinimiseCost, MinimiseTtft, ServiceLevel, plan
from prfaas_core.profiles import Curve, Profile

ROUNDS = 3
ANCHORS = (500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 131_072)
HEADER = "| fleet | question | baseline | rate against it | its CPU s | planner CPU s | times faster |"


@dataclass(frozen=True)
class Row:
    fleet: str
    question: str
    baseline: str
    rate_ratio: float | None
    baseline_s: float | None
    planner_s: float

    def line(self) -> str:
        def number(value: float | None, digits: str) -> str:
            return "" if value is None else format(value, digits)

        faster = self.baseline_s / self.planner_s if self.baseline_s is not None else None
        return (
            f"| {self.fleet} | {self.question} | {self.baseline} | {number(self.rate_ratio, '.4f')} | "
            f"{number(self.baseline_s, '.3f')} | {self.planner_s:.3f} | {number(faster, '.1f')} |"
        )


def seconds(work: Callable[[], float]) -> tuple[float, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def compare(fleet: str, question: str, name: str, ours: Callable[[], float], theirs: Callable[[], float]) -> Row:
    """Run both in turn; the rates do not depend on the round."""
    rounds = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    rate, other = rounds[0][0][0], rounds[0][1][0]
    return Row(
        fleet,
        question,
        name,
        rate / other,
        statistics.median(spent for _, (_, spent) in rounds),
        statistics.median(spent for (_, spent), _ in rounds),
    )


def alone(fleet: str, question: str, ours: Callable[[], float]) -> Row:
    return Row(fleet, question, "none", None, None, statistics.median(seconds(ours)[1] for _ in range(ROUNDS)))


def drawn_profile(rng: random.Random) -> Profile:
    base, slope, curvature = rng.uniform(0.2, 0.6), rng.uniform(0.03, 0.15), rng.uniform(1e-5, 6e-4)
    points = [(n, base + slope * n / 1000 + curvature * (n / 1000) ** 2) for n in ANCHORS]
    return replace(H200, prefill_s=Curve.through(points, "prefill"))


def drawn_fleet(pools: int, clusters: int, seed: int, *, fixed: bool) -> Fleet:
    rng = random.Random(seed)
    own = tuple(
        DecodeCluster(
            f"c{i}",
            LENGTHS,
            1024,
            InstancePool(f"decode {i}", H20, Bounds.exactly(120), 16),
            InstancePool(f"local {i}", H20, Bounds.exactly(5), 16),
        )
        for i in range(clusters)
    )
    remote = []
    for i in range(pools):
        most = rng.randint(1, 6)
        bounds = Bounds.exactly(most) if fixed else Bounds(0, most)
        remote.append(InstancePool(f"p{i}", drawn_profile(rng), bounds, rng.uniform(10, 40)))
    links = tuple(
        Link(pool.name, cluster.name, rng.uniform(1, 30) * 1e9, cost_per_gb=0.01) for pool in remote for cluster in own
    )
    return Fleet(own, tuple(remote), links)


def paper_grid() -> Row:
    cluster = DecodeCluster(
        "east",
        LENGTHS,
        1024,
        InstancePool("decode", H20, Bounds.exactly(5)),
        InstancePool("local", H20, Bounds.exactly(3)),
        role_total=8,
    )
    fleet = Fleet((cluster,), (InstancePool("west", H200, Bounds.exactly(4)),), (Link("west", "east", 100e9),))
    return compare(
        "case study",
        "t, roles",
        "paper-grid",
        lambda: plan(fleet, MaximiseRate(), moves=0).rate,
        lambda: planner.best_roles(PRFAAS, LENGTHS, averaging=Averaging.TRUE_MEAN).throughput.rate,
    )


def interval_grid(seed: int) -> Row:
    fleet = drawn_fleet(2, 1, seed, fixed=True)
    demand, counts = Demand.of(fleet, 128), fleet.most()
    (cluster,) = demand.clusters
    usable = {link.name: link.usable_bps for link in fleet.links}

    def rate(parts: assignment.Parts) -> float:
        asked = assignment.loads(demand, (parts,))
        pools = max(busy / counts[name] for name, busy in asked.busy_s.items())
        return 1 / max(pools, *(bits / usable[name] for name, bits in asked.bits.items()))

    def grid() -> float:
        size, best = len(cluster.weights), 0.0
        for first in range(0, size + 1, 2):
            for second in range(first, size + 1, 2):
                for ways in permutations(range(3)):
                    sides = zip(ways, (first, second - first, size - second), strict=True)
                    best = max(best, rate(tuple(((way, 1.0),) for way, count in sides for _ in range(count))))
        return best

    return compare(
        f"2 pools, seed {seed}", "intervals", "interval-grid", lambda: assignment.fastest(demand, counts).rate, grid
    )


def one_kind(pools: int, seed: int) -> Row:
    fleet = drawn_fleet(pools, 1, seed, fixed=True)
    counts = fleet.most()
    demand = Demand.of(fleet)

    def baseline() -> float:
        kind = max(fleet.pools, key=lambda pool: counts[pool.name]).profile
        mean_s = kind.prefill_s(LENGTHS.mean)
        instances = sum(counts[p.name] * mean_s / p.profile.prefill_s(LENGTHS.mean) for p in fleet.pools)
        deployment = Deployment(
            local=H20,
            local_instances=5,
            decode_instances=120,
            output_tokens=1024,
            remote=kind,
            remote_instances=round(instances),
            link_bps=sum(link.usable_bps for link in fleet.links),
        )
        return float(planner.best_threshold(deployment, LENGTHS).threshold_tokens)

    def ours() -> float:
        return sizing.carried(demand, counts).rate

    row = compare(f"{pools} pools, seed {seed}", "threshold", "one-kind", ours, baseline)
    # `baseline` finds a threshold; what it carries is what the true pools do with it, spread as well as can be.
    return replace(row, rate_ratio=ours() / sizing.at_thresholds(fleet, counts, {"c0": int(baseline())}))


def goals(pools: int, clusters: int, seed: int) -> list[Row]:
    name = f"{pools} pools, {clusters} cluster{'s' if clusters > 1 else ''}, seed {seed}"
    fixed, free = (drawn_fleet(pools, clusters, seed, fixed=choice) for choice in (True, False))
    half = 0.5 * plan(fixed, MaximiseRate(), moves=0).rate
    slo = ServiceLevel(12.0)
    return [
        alone(name, "highest rate", lambda: plan(fixed, MaximiseRate()).rate),
        alone(name, "highest rate, sizes free", lambda: plan(free, MaximiseRate()).rate),
        alone(name, "highest rate under an SLO", lambda: plan(fixed, MaximiseRate(slo)).rate),
        alone(name, "shortest TTFT", lambda: plan(fixed, MinimiseTtft(half)).rate),
        alone(name, "least cost", lambda: plan(free, MinimiseCost(half, 0.9)).rate),
        alone(name, "least cost under an SLO", lambda: plan(free, MinimiseCost(half, 0.9, slo)).rate),
    ]


INTRODUCTION = """# The planner against the searches that it replaces

Taken with `python benchmarks/planner/run.py --write`: CPU seconds of one process, medians of {rounds} rounds in which both take turns,
on a shared {machine} core, Python {python}. The baselines are named in `run.py`. Absolute times are of that machine and of what
else ran on it; the ratios are what counts.

A rate above 1 means that the planner's assignment carries more. `one-kind` is rated generously: its threshold, but requests spread
over the true pools as well as can be. `highest rate` and the rows below are whole plans, with what binds and the next-best moves.

{header}
| --- | --- | --- | ---: | ---: | ---: | ---: |
"""


def report(rows: list[Row]) -> str:
    head = INTRODUCTION.format(
        rounds=ROUNDS, machine=platform.machine(), python=platform.python_version(), header=HEADER
    )
    return head + "".join(f"{row.line()}\n" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write REPORT.md beside this file")
    arguments = parser.parse_args()
    rows = [paper_grid(), *(interval_grid(seed) for seed in (1, 2, 3))]
    rows += [one_kind(pools, seed) for pools in (2, 8, 50) for seed in (1, 2)]
    rows += [*goals(8, 1, 1), *goals(50, 1, 1), *goals(12, 4, 1)]
    text = report(rows)
    print(text)
    if arguments.write:
        (Path(__file__).parent / "REPORT.md").write_text(text)


if __name__ == "__main__":
    main()
