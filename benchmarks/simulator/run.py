"""How fast the simulator is: the paper's case study by policy, against the paper's rule, in one run.

python benchmarks/simulator/run.py [--requests 1000000] [--write]
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from random import Random

from prfaas_core import case_study, simulation
from prfaas_core.routing import Algorithm
from prfaas_core.simulation import DecodePool, Link, PrefillPool, Scenario, traffic
from prfaas_core.simulation.closed_loop import ClosedLoop

RATE_RPS = 2.8


def case(algorithm: Algorithm, *, loop: bool = False, push: bool = False) -> Scenario:
    controller = ClosedLoop(case_study.PRFAAS, decode="d", local="l", remote=("r",)) if loop else None
    return Scenario(
        decode=DecodePool("d", case_study.H20, 5),
        local=PrefillPool("l", case_study.H20, 3),
        remote=(PrefillPool("r", case_study.H200, 4, link=Link(1e11), push=push),),
        threshold_tokens=19_400,
        algorithm=algorithm,
        prices={"d": 2.0, "l": 2.0, "r": 1.5},
        link_prices={"r": 1.0},
        controller=controller,
        control_period_s=30.0,
    )


CASES = {
    "paper": case(Algorithm.PAPER),
    "paper, pushed KV": case(Algorithm.PAPER, push=True),
    "finish_time": case(Algorithm.FINISH_TIME),
    "finish_time, closed loop every 30 s": case(Algorithm.FINISH_TIME, loop=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="of the first case; the others run a tenth")
    parser.add_argument("--write", action="store_true", help="write REPORT.md")
    arguments = parser.parse_args()
    lines = [
        "# How fast the simulator is",
        "",
        f"Taken with `python benchmarks/simulator/run.py --write`: the paper's case study at {RATE_RPS:g} requests a second, CPU time",
        f"of one process on one shared {platform.machine()} core, Python {platform.python_version()}, drawing the requests included.",
        "The aim is 1,000,000 requests in 60 s.",
        "",
        "| case | requests | CPU s | us a request | against paper |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    first = 0.0
    for index, (name, scenario) in enumerate(CASES.items()):
        count = arguments.requests if index == 0 else arguments.requests // 10
        began = time.process_time()
        result = simulation.simulate(scenario, traffic.poisson(Random(1), RATE_RPS, count))
        taken_s = time.process_time() - began
        if result.finished != count:
            raise SystemExit(f"{name}: {result.finished} of {count} requests finished")
        each = taken_s / count * 1e6
        first = first or each
        lines.append(f"| {name} | {count:,} | {taken_s:.1f} | {each:.1f} | {each / first:.2f}x |")
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.write:
        Path(__file__).with_name("REPORT.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
