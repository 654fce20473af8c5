"""finish_time against the paper's rule where nobody has looked: random pools, links, models, lengths and loads.

Each seed draws a deployment (1 to 8 remote workers, as fast as H200, slower, or H20 like the local ones; KV up to ten times
as big; links of 2 to 100 Gbps, some of which drop for a while), lengths, a load of 30 to 110 % of the fluid capacity, and Poisson,
bursty or multi-turn traffic. The paper's rule runs with its best static threshold and with its closed loop; finish_time is held against
the better of both, known afterwards.

    python benchmarks/routing/random_scenarios.py [--seeds 120] [--write]
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from prfaas_core import case_study, planner, simulation
from prfaas_core.lengths import Lengths
from prfaas_core.model import Deployment
from prfaas_core.routing import Algorithm
from prfaas_core.simulation import Arrival, LinkChange, Summary, bounds, traffic
from prfaas_core.simulation.closed_loop import ClosedLoop

REQUESTS, WORSE = 2500, 0.03


@dataclass(frozen=True, slots=True)
class Drawn:
    deployment: Deployment
    arrivals: tuple[Arrival, ...]
    threshold: int
    changes: tuple[LinkChange, ...]
    push: bool
    cache_tokens: int
    text: str


def draw(seed: int) -> Drawn:
    random = Random(seed)
    fat, slow = random.choice([1, 1, 3, 10]), random.choice([1.0, 1.0, 1.6])
    chip = random.choice([case_study.H200, case_study.H200, case_study.H200, case_study.H20])
    remote = replace(
        chip, prefill_s=chip.prefill_s.scaled(slow), kv_bytes=chip.kv_bytes.scaled(fat),
        cache_capacity_tokens=(cache := random.choice([0, 0, 500_000])),
    )  # fmt: skip
    local = replace(case_study.H20, kv_bytes=remote.kv_bytes, cache_capacity_tokens=cache)
    inputs = traffic.log_normal(mu := random.uniform(8, 10.3), sigma := random.uniform(0.4, 1.4), 64, 131_072)
    lengths = Lengths.of(inputs(random) for _ in range(3000))
    deployment = Deployment(
        local=local, local_instances=random.choice([1, 2, 3, 6]), decode_instances=random.choice([3, 5, 8]),
        output_tokens=(output := random.choice([64, 256, 1024])), remote=remote,
        remote_instances=random.choice([1, 2, 4, 8]), link_bps=(bps := random.choice([2e9, 5e9, 1e10, 3e10, 1e11])),
    )  # fmt: skip
    rate = bounds.capacity(deployment, lengths, absorb=False)[0] * (load := random.choice([0.3, 0.6, 0.85, 0.95, 1.1]))
    span_s = REQUESTS / rate
    kind = random.choice(["poisson", "bursty", "chat" if cache else "poisson"])
    if kind == "poisson":
        arrivals = tuple(traffic.poisson(random, rate, REQUESTS, inputs, output))
    elif kind == "bursty":
        arrivals = tuple(
            traffic.varying(random, [(span_s / 12, rate * 0.7, inputs), (span_s / 48, rate * 2.2, inputs)] * 10, output)
        )
    else:
        growth = traffic.log_normal(7, 0.8, 64, 8000)
        arrivals = traffic.conversations(
            random, rate, REQUESTS, turns=6, first=inputs, growth=growth, think_s=15, output_tokens=output
        )
    drop = random.choice([0.0, 0.0, 0.1, 0.2, 0.5])
    changes = (LinkChange(span_s * 0.4, bps * drop), LinkChange(span_s * 0.6, bps)) if drop else ()
    grid = tuple(sorted({int(tokens) for tokens in lengths.sample[::12]}))
    text = (
        f"{deployment.remote_instances} {remote.accelerator} x{slow:g}, {deployment.local_instances} + {deployment.decode_instances} H20, "
        f"{bps / 1e9:g} Gbps{f' down to {drop:g}' if drop else ''}, KV x{fat}, lengths ({mu:.1f}, {sigma:.1f}), load {load:g}, {kind}"
    )
    return Drawn(
        deployment, arrivals, planner.best_threshold(deployment, lengths, grid).threshold_tokens, changes, random.random() < 0.4, cache, text
    )  # fmt: skip


def simulate(drawn: Drawn, algorithm: Algorithm, *, plan: bool) -> Summary:
    deployment = drawn.deployment
    assert deployment.remote is not None
    scenario = simulation.Scenario(
        decode=simulation.DecodePool("d", deployment.local, deployment.decode_instances),
        local=simulation.PrefillPool("l", deployment.local, deployment.local_instances),
        remote=(
            simulation.PrefillPool(
                "r", deployment.remote, deployment.remote_instances,
                link=simulation.Link(deployment.link_bps, 0.01, drawn.changes), push=drawn.push,
            ),
        ),
        threshold_tokens=drawn.threshold,
        algorithm=algorithm,
        hybrid=drawn.cache_tokens > 0,
        state_tokens=5000,
        prices={"d": 2.0, "l": 2.0, "r": 1.5},
        link_prices={"r": 1.0},
        controller=ClosedLoop(deployment, decode="d", local="l", remote=("r",), plan=plan),
        control_period_s=20.0,
    )  # fmt: skip
    return simulation.simulate(scenario, drawn.arrivals).summary(from_s=0.05 * drawn.arrivals[-1][0])


def compare(seed: int) -> tuple[str, float, float, float]:
    """Return what was drawn, and the relative changes of throughput, mean and P90 TTFT."""
    drawn = draw(seed)
    theirs = [simulate(drawn, Algorithm.PAPER, plan=plan) for plan in (False, True)]
    ours = simulate(drawn, Algorithm.FINISH_TIME, plan=True)
    return (
        f"seed {seed}: {drawn.text}",
        ours.throughput_rps / max(one.throughput_rps for one in theirs) - 1,
        ours.ttft_mean_s / min(one.ttft_mean_s for one in theirs) - 1,
        ours.ttft_p90_s / min(one.ttft_p90_s for one in theirs) - 1,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=120)
    parser.add_argument("--write", action="store_true", help="write RANDOM.md")
    arguments = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(compare, range(arguments.seeds)))
    lines = [
        "# finish_time against the paper's rule in random scenarios",
        "",
        f"Taken with `python benchmarks/routing/random_scenarios.py --seeds {arguments.seeds} --write`: {REQUESTS} requests each, against the",
        "better of the paper's best static threshold and its closed loop, chosen afterwards for each number. What is drawn is in the script.",
        "",
        f"| | median change | worst | worse by more than {100 * WORSE:.0f} % |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, index, sign in (("throughput", 1, -1), ("mean TTFT", 2, 1), ("P90 TTFT", 3, 1)):
        changes = sorted(sign * entry[index] for entry in found)
        lines.append(
            f"| {name} | {100 * sign * changes[len(changes) // 2]:+.1f} % | {100 * sign * changes[-1]:+.1f} % "
            f"| {sum(change > WORSE for change in changes)} of {len(changes)} |"
        )
    bad = [entry for entry in found if -entry[1] > WORSE or entry[2] > WORSE or entry[3] > WORSE]
    lines += ["", "Where it is worse:", ""] if bad else ["", "It is worse nowhere.", ""]
    lines += [
        f"- {text}: throughput {100 * a:+.1f} %, mean {100 * b:+.1f} %, P90 {100 * c:+.1f} %" for text, a, b, c in bad
    ]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if arguments.write:
        Path(__file__).with_name("RANDOM.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
