"""Runs scenarios by arms over seeds; the same seed is the same traffic for every arm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from prfaas_cli.evaluation.arms import ARMS, Arm, build
from prfaas_cli.evaluation.scenarios import SCENARIOS, Scenario, from_trace
from prfaas_core import case_study, simulation
from prfaas_core.simulation import bounds


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
        oracle_s: what no policy can beat in mean TTFT, without prefix caches; 0 with them.
        flaps: changes of the threshold.
        conversions: of workers.
    """

    scenario: str
    arm: str
    seed: int
    throughput_rps: float
    goodput_rps: float
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    itl_mean_s: float
    itl_p99_s: float
    remote_share: float
    decode_share: float
    failed: int
    link_gb: float
    link_cost: float
    flaps: int
    conversions: int
    oracle_s: float


def run(scenario: Scenario, arm: Arm, seed: int) -> Row:
    """Simulate one scenario by one arm."""
    arrivals = scenario.traffic(Random(seed))  # noqa: S311 - repeatable on purpose
    result = simulation.simulate(build(scenario, arm), arrivals)
    found = asdict(
        result.summary(from_s=scenario.warm_up_s, slo_ttft_s=scenario.slo_ttft_s, slo_itl_s=scenario.slo_itl_s)
    )
    for key in ("requests", "finished"):
        del found[key]
    kinds = [what for _, what, _ in result.history]
    return Row(
        scenario=scenario.name,
        arm=arm.name,
        seed=seed,
        flaps=kinds.count("threshold"),
        conversions=sum(kind.startswith("workers") for kind in kinds) if not scenario.failures else 0,
        oracle_s=_oracle_s(scenario, arrivals),
        **found,
    )


def _oracle_s(scenario: Scenario, arrivals: Iterable[simulation.Arrival]) -> float:
    if scenario.cache_tokens:
        return 0.0
    offered = [(at_s, tokens) for at_s, tokens, _, _ in arrivals]
    sides = [
        (case_study.H200.prefill_s, float(sum(scenario.remote))),
        (case_study.H20.prefill_s, float(scenario.local + scenario.decode)),
    ]
    return max(bounds.alone_s([tokens for _, tokens in offered], sides), bounds.pooled_s(offered, sides))


def _job(job: tuple[str, str, int, Path | None]) -> Row:
    # Traffic is made by closures, which do not pickle; names do.
    name, arm, seed, trace = job
    known = (*SCENARIOS, *((from_trace(trace),) if trace is not None else ()))
    scenarios, arms = {item.name: item for item in known}, {item.name: item for item in ARMS}
    return run(scenarios[name], arms[arm], seed)


def run_all(
    scenarios: Iterable[Scenario],
    arms: Iterable[Arm],
    seeds: Iterable[int],
    workers: int,
    done: Callable[[Row], None],
    trace: Path | None = None,
) -> Iterator[Row]:
    """Yield a row for each scenario, arm and seed, in that order; `done` hears of each, `trace` is what one replays."""
    seeds = tuple(seeds)
    arms = tuple(arms)
    jobs = [(scenario.name, arm.name, seed, trace) for scenario in scenarios for arm in arms for seed in seeds]
    with ProcessPoolExecutor(max_workers=workers) as pool:
        for row in pool.map(_job, jobs, chunksize=1):
            done(row)
            yield row
