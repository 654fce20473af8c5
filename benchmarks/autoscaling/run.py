"""The autoscaler against a HorizontalPodAutoscaler's algorithm on simulated hours: requests that wait too long, and replica-hours.

python benchmarks/autoscaling/run.py --trace PATH/mooncake_conversation.jsonl [--hours 30] [--write]
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from prfaas_core import case_study, simulation
from prfaas_core.autoscaling import (
    DOWN,
    PREFILL_TARGETS,
    PREFILL_UP,
    Policy,
    PolicyType,
    Settings,
    SignalName,
    decode_targets,
)
from prfaas_core.simulation import (
    Arrival,
    Core,
    DecodePool,
    Hpa,
    Metric,
    PrefillPool,
    Scaling,
    Scenario,
    results,
    traffic,
)
from prfaas_core.simulation.scalers import Scaler

WORKER = replace(case_study.H20, decode_slots=8)
TRACE_BLOCK_TOKENS = 512
HOUR_S = 3600.0
MEAN_RPS = 3.4
START_UP_S = 60.0
SLO_S, SLO_PREFILLS = 5.0, 2.0
"""A request may take 5 s to its first token, and twice the time of its own prefill."""

Row = tuple[float, int, int]
"""Arrival in seconds, tokens of the prompt that no cache holds, tokens of the answer."""

PREFILL = {"defaults": tuple(map(Metric.of, PREFILL_TARGETS)), "load alone": (Metric(SignalName.PREFILL_LOAD, 0.7),)}
DECODE = {
    "defaults": tuple(map(Metric.of, decode_targets(WORKER.decode_slots))),
    "load alone": (Metric(SignalName.DECODE_REQUESTS, 6.0),),
}
DECODE_SETTINGS = Settings(1, 60, startup_s=START_UP_S)
"""HPA's default behavior, which a decode pool has too."""
PREFILL_SETTINGS = replace(DECODE_SETTINGS, up=PREFILL_UP)
TUNED = replace(DECODE_SETTINGS, down=replace(DOWN, policies=(Policy(PolicyType.PERCENT, 10, 60.0),)))


@dataclass(frozen=True)
class Autoscaler:
    """Who decides: makes the scaler of the prefill pool and that of the decode pool."""

    prefill: Callable[[], Scaler]
    decode: Callable[[], Scaler]


AUTOSCALERS = {
    "PrfaaS": Autoscaler(lambda: Core(PREFILL_SETTINGS), lambda: Core(DECODE_SETTINGS)),
    "PrfaaS, HPA's behavior": Autoscaler(lambda: Core(DECODE_SETTINGS), lambda: Core(DECODE_SETTINGS)),
    "HPA": Autoscaler(lambda: Hpa(DECODE_SETTINGS), lambda: Hpa(DECODE_SETTINGS)),
    "HPA, no behavior set": Autoscaler(
        lambda: Hpa(DECODE_SETTINGS, behavior=False), lambda: Hpa(DECODE_SETTINGS, behavior=False)
    ),
    "HPA, tuned: 10 % a minute down": Autoscaler(lambda: Hpa(TUNED), lambda: Hpa(TUNED)),
    "HPA, PrfaaS's behavior": Autoscaler(lambda: Hpa(PREFILL_SETTINGS), lambda: Hpa(DECODE_SETTINGS)),
}


def read(path: Path) -> tuple[Row, ...]:
    """Return a trace's requests; the blocks that a prompt begins with and that came before count as cached."""
    seen: set[int] = set()
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        ids = row["hash_ids"]
        hits = next((index for index, block in enumerate(ids) if block not in seen), len(ids))
        seen.update(ids)
        uncached = max(1, row["input_length"] - TRACE_BLOCK_TOKENS * hits)
        rows.append((row["timestamp"] / 1000, uncached, row["output_length"]))
    return tuple(rows)


def over_and_over(rows: Sequence[Row], hours: float, _seed: int) -> Iterator[Arrival]:
    """Yield the trace's hour, again and again."""
    once = [(at_s, tokens, answer, ()) for at_s, tokens, answer in rows]
    return traffic.repeated(once, rows[-1][0], hours * HOUR_S)


def stretched(rows: Sequence[Row], hours: float, seed: int) -> Iterable[Arrival]:
    """Return the trace's hour stretched over the whole time: each request comes once an hour of it, within a minute stretched alike."""
    random, span_s = Random(seed), rows[-1][0]
    factor = hours * HOUR_S / span_s
    return sorted(
        ((at_s + random.uniform(0.0, 60.0)) * factor % (hours * HOUR_S), tokens, answer, ())
        for at_s, tokens, answer in rows
        for _ in range(round(factor))
    )


def diurnal(rows: Sequence[Row], hours: float, seed: int) -> Iterator[Arrival]:
    """Yield a day's ups and downs with noise, of requests drawn from the trace."""
    random = Random(seed)
    lengths = [(tokens, answer) for _, tokens, answer in rows]
    drawn: list[tuple[int, int]] = []

    def prompt(source: Random) -> int:
        drawn.append(source.choice(lengths))
        return drawn[-1][0]

    return traffic.diurnal(random, hours * HOUR_S, MEAN_RPS, inputs=prompt, outputs=lambda _: drawn.pop()[1])


def step(what: str, rps: float = 2.0) -> Callable[[Sequence[Row], float, int], Iterator[Arrival]]:
    """Return a load whose prompts or answers become four times as long after a quarter of an hour."""

    def arrivals(_rows: Sequence[Row], hours: float, seed: int) -> Iterator[Arrival]:
        random, now_s = Random(seed), 0.0
        while (now_s := now_s + random.expovariate(rps)) < hours * HOUR_S:
            longer = 4 if now_s > 0.25 * HOUR_S else 1
            tokens = 3000 * (longer if what == "prompts" else 1) * random.uniform(0.75, 1.25)
            answer = 300 * (longer if what == "answers" else 1) * random.uniform(0.75, 1.25)
            yield now_s, int(tokens), int(answer), ()

    return arrivals


SERIES = {
    "Mooncake, its hour over and over": (over_and_over, (0,)),
    "Mooncake, its hour stretched": (stretched, (0, 1, 2)),
    "a day with noise": (diurnal, (0, 1, 2, 3, 4)),
}
STEP_SEEDS = tuple(range(1, 9))
STEPS = {
    "prompts x 4": (step("prompts"), STEP_SEEDS),
    "answers x 4": (step("answers"), STEP_SEEDS),
    "prompts x 4, 12 requests/s": (step("prompts", 12.0), STEP_SEEDS),
}
STEP_WORKERS = {"prompts x 4, 12 requests/s": (17, 20)}
STEP_HOURS = 1.5


@dataclass(frozen=True)
class Run:
    """What came of one run; `turns` are the most within any hour, `last` the replicas in the end."""

    missed: float
    prefill_h: float
    decode_h: float
    prefill_turns: int
    decode_turns: int
    prefill_peak: int
    decode_peak: int
    prefill_last: int
    decode_last: int

    @property
    def hours(self) -> float:
        return self.prefill_h + self.decode_h


def run(arrivals: Iterable[Arrival], name: str, signals: str, workers: tuple[int, int]) -> Run:
    """Simulate a prefill pool and a decode pool that one autoscaler sizes."""
    by = AUTOSCALERS[name]
    scenario = Scenario(
        decode=DecodePool(
            "decode",
            WORKER,
            workers[1],
            interference=0.0,
            scaling=Scaling(DECODE[signals], by.decode(), START_UP_S),
        ),
        local=PrefillPool("prefill", WORKER, workers[0], scaling=Scaling(PREFILL[signals], by.prefill(), START_UP_S)),
        threshold_tokens=WORKER.max_model_len_tokens,
        absorb=False,
    )
    found = simulation.simulate(scenario, arrivals)
    missed = sum(
        1
        for ttft_s, tokens in zip(found.ttft_s, found.tokens, strict=True)
        if not ttft_s <= SLO_S + SLO_PREFILLS * WORKER.prefill_s(tokens)
    )
    prefill, decode = found.sizes("prefill"), found.sizes("decode")
    return Run(
        missed / len(found.ttft_s),
        found.replica_s["prefill"] / HOUR_S,
        found.replica_s["decode"] / HOUR_S,
        results.most_within(results.turns_s(prefill), HOUR_S),
        results.most_within(results.turns_s(decode), HOUR_S),
        max(size for _, size in prefill),
        max(size for _, size in decode),
        prefill[-1][1],
        decode[-1][1],
    )


Job = tuple[str, int, str, str]
"""Series, seed, autoscaler, signals."""


def work(job: Job, rows: Sequence[Row], hours: float) -> Run:
    series, seed, name, signals = job
    if series in STEPS:
        return run(STEPS[series][0](rows, STEP_HOURS, seed), name, signals, STEP_WORKERS.get(series, (3, 4)))
    return run(SERIES[series][0](rows, hours, seed), name, signals, (8, 6))


def spread(values: Sequence[float], digits: int, scale: float = 1.0) -> str:
    """Return a mean, and the range of several."""
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({scale * min(values):.{digits}f} to {scale * max(values):.{digits}f})"


def compared(done: dict[Job, Run], series: str, seeds: Sequence[int], name: str, signals: str, other: str) -> str:
    """Say in how many runs an autoscaler is no worse than another in both respects, and better in one."""
    better = 0
    for seed in seeds:
        ours, theirs = done[series, seed, name, signals], done[series, seed, other, signals]
        at_least = ours.missed <= theirs.missed and ours.hours <= theirs.hours
        better += at_least and (ours.missed < theirs.missed or ours.hours < theirs.hours)
    return f"{better} of {len(seeds)}"


def hours_table(done: dict[Job, Run], signals: str) -> list[str]:
    lines = [
        "| series | autoscaler | TTFT missed, % | replica-hours | prefill | decode | most turns in an hour, prefill / decode | most replicas | runs in which both PrfaaS's are no worse |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    ours, with_theirs, *_ = AUTOSCALERS
    for series, (_, seeds) in SERIES.items():
        for name in AUTOSCALERS:
            runs = [done[series, seed, name, signals] for seed in seeds]
            against = ""
            if name.startswith("HPA"):
                against = "; ".join(
                    f"{who}: {compared(done, series, seeds, by, signals, name)}"
                    for who, by in (("PrfaaS", ours), ("with HPA's behavior", with_theirs))
                )
            lines.append(
                f"| {series} | {name} | {spread([r.missed for r in runs], 2, 100)} | {spread([r.hours for r in runs], 0)} "
                f"| {spread([r.prefill_h for r in runs], 0)} | {spread([r.decode_h for r in runs], 0)} "
                f"| {max(r.prefill_turns for r in runs)} / {max(r.decode_turns for r in runs)} "
                f"| {max(r.prefill_peak for r in runs)} / {max(r.decode_peak for r in runs)} | {against} |"
            )
    return lines


def steps_table(done: dict[Job, Run], signals: str) -> list[str]:
    lines = [
        "| step | autoscaler | TTFT missed, % | replica-hours | prefill: most, in the end | decode: most, in the end |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    for series, (_, seeds) in STEPS.items():
        for name in AUTOSCALERS:
            runs = [done[series, seed, name, signals] for seed in seeds]
            prefill = ", ".join(f"{r.prefill_peak} to {r.prefill_last}" for r in runs)
            decode = ", ".join(f"{r.decode_peak} to {r.decode_last}" for r in runs)
            lines.append(
                f"| {series} | {name} | {spread([r.missed for r in runs], 2, 100)} | {spread([r.hours for r in runs], 1)} "
                f"| {prefill} | {decode} |"
            )
    return lines


def report(done: dict[Job, Run], hours: float, processes: int, taken_s: float) -> str:
    return "\n".join(
        [
            "# The autoscaler on simulated hours, and a HorizontalPodAutoscaler's algorithm beside it",
            "",
            "Taken with `python benchmarks/autoscaling/run.py --trace mooncake_conversation.jsonl --write`.",
            f"{hours:g} simulated hours a run, in {taken_s:.0f} s with {processes} processes on {platform.machine()}, Python {platform.python_version()}.",
            "What is compared and how is said in [docs/autoscaling-evaluation.md](../../docs/autoscaling-evaluation.md). Several seeds: mean (range).",
            "",
            "## The default signals: `PrefillLoad` 0.7 over 300 s and 0.9 over 60 s, `PrefillQueueWait` 2 s; `DecodeRequests` 6 of 8 slots over 90 s",
            "",
            *hours_table(done, "defaults"),
            "",
            "## Load alone: `PrefillLoad` 0.7 and `DecodeRequests` 6 of 8 slots, over 60 s",
            "",
            *hours_table(done, "load alone"),
            "",
            "## Steps: prompts or answers of 2 requests/s become four times as long after 15 of 90 minutes; eight seeds",
            "",
            "The default signals:",
            "",
            *steps_table(done, "defaults"),
            "",
            "Load alone:",
            "",
            *steps_table(done, "load alone"),
            "",
        ]
    )


def _work(arguments: tuple[Job, Sequence[Row], float]) -> Run:
    return work(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, required=True, help="the Mooncake conversation trace")
    parser.add_argument("--hours", type=float, default=30.0)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--write", action="store_true", help="write REPORT.md")
    arguments = parser.parse_args()
    if arguments.hours < 1:
        parser.error(f"--hours {arguments.hours:g}: give at least 1, which is what the trace holds")
    rows = read(arguments.trace)
    jobs = [
        (series, seed, name, signals)
        for signals in PREFILL
        for series, (_, seeds) in (*SERIES.items(), *STEPS.items())
        for seed in seeds
        for name in AUTOSCALERS
    ]
    began = time.monotonic()
    with multiprocessing.Pool(arguments.processes) as pool:
        runs = pool.map(_work, [(job, rows, arguments.hours) for job in jobs], chunksize=1)
    done = dict(zip(jobs, runs, strict=True))
    text = report(done, arguments.hours, arguments.processes, math.ceil(time.monotonic() - began))
    print(text)
    if arguments.write:
        Path(__file__).with_name("REPORT.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
