"""What a decision costs: every policy against the paper's rule, in one run.

The fleets hold their workers in a decode pool, a local prefill pool and two remote pools, a third of them with a cached prefix
for half of the requests. Rounds of the policies follow each other in turn, so that a slow moment of the machine meets all.

    python benchmarks/routing/run.py [--write]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path
from random import Random

from prfaas_core import case_study
from prfaas_core.routing import (
    Algorithm,
    Bandwidth,
    Link,
    Mode,
    Policy,
    Pool,
    Request,
    View,
    Worker,
    baselines,
    finish_time,
    paper,
)

ROUNDS, DECISIONS = 9, 4000
POLICIES: dict[str, Policy] = {
    "paper": paper.decide,
    "finish_time": finish_time.decide,
    "static threshold": baselines.StaticThreshold(19_400),
    "effective length": baselines.EffectiveLength(4000, 0.5),
    "least loaded": baselines.least_loaded,
}


def fleet(workers: int, *, warm: bool) -> View:
    random = Random(workers)

    def pool(name: str, count: int, link: Link | None = None) -> Pool:
        profile = case_study.H200 if link is not None else case_study.H20
        made = tuple(
            Worker(
                f"{name}-{index:03d}",
                random.randrange(6),
                random.randrange(1, 20) * 512 if warm and index % 3 == 0 else 0,
                busy_until_s=random.uniform(-1, 5),
                decoding=random.randrange(21),
            )
            for index in range(count)
        )
        return Pool(
            name, made, prefill_s=profile.prefill_s, price=2.0, base_price=3.0, link=link,
            slots=20 if name == "decode" else 0,
        )  # fmt: skip

    quarter = workers // 4
    kv_bytes = case_study.H200.kv_bytes
    remote = (
        pool("remote-a", quarter, Link(1e11, kv_bytes, 1e9, price=1.0)),
        pool("remote-b", quarter, Link(5e10, kv_bytes, 2e9, price=1.0)),
    )
    return View(
        19_400, Mode.ENFORCE, Bandwidth.ABUNDANT, pool("decode", quarter), pool("local", workers - 3 * quarter), remote,
        Algorithm.FINISH_TIME, decode_s=25.0,
    )  # fmt: skip


def measure(view: View) -> dict[str, float]:
    """Return the median microseconds of a decision by policy."""
    random = Random(1)
    requests = [Request(int(min(131_072, max(128, random.lognormvariate(9.9, 1.0))))) for _ in range(DECISIONS)]
    taken: dict[str, list[float]] = {name: [] for name in POLICIES}
    for _ in range(ROUNDS):
        for name, policy in POLICIES.items():
            began = time.process_time()
            for request in requests:
                policy(request, view)
            taken[name].append((time.process_time() - began) / DECISIONS * 1e6)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write REPORT.md")
    arguments = parser.parse_args()
    lines = [
        "# What a decision costs, against the paper's rule",
        "",
        (
            f"Taken with `python benchmarks/routing/run.py --write`: medians of {ROUNDS} rounds of {DECISIONS} decisions, the policies in "
            f"turn, CPU time of one process on one shared {platform.machine()} core, Python {platform.python_version()}."
        ),
        "A quarter of the workers decode, a quarter prefill locally, the rest in two remote pools; warm: a third of them hold a part",
        "of the prompt. The ratio is what counts; the bound of the design is 30 us for a decision with 64 workers.",
        "",
        "| workers | caches | policy | us a decision | against paper |",
        "| ---: | --- | --- | ---: | ---: |",
    ]
    for workers in (12, 64, 256):
        for warm in (False, True):
            found = measure(fleet(workers, warm=warm))
            lines += [
                f"| {workers} | {'warm' if warm else 'cold'} | {name} | {value:.1f} | {value / found['paper']:.2f}x |"
                for name, value in found.items()
            ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.write:
        Path(__file__).with_name("REPORT.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
