"""What is evaluated: the paper's case study under loads, links, prefixes and accidents that the paper does not show.

Every scenario starts with the threshold that the planner finds for its first link and its roles, so that the paper's rule
begins at its best. Times are seconds, rates requests a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from prfaas_cli import trace
from prfaas_core.simulation import Arrival, Failure, LinkChange, traffic

Source = Callable[[Random], tuple[Arrival, ...]]
CASE_STUDY = traffic.CASE_STUDY_INPUT
GBPS = 1e9
COST_PER_GB = 0.02


@dataclass(frozen=True, slots=True)
class Scenario:
    """One situation.

    Attributes:
        group: heading in the report.
        traffic: makes the requests of a seed.
        local, decode: H20 instances of each role.
        remote: H200 instances of each remote pool.
        link_bps: of each remote pool.
        changes: of the first remote pool's link.
        cache_tokens: prefix cache of one instance; 0: none.
        slo_ttft_s, slo_itl_s: for goodput.
        warm_up_s: arrivals before are not counted.
    """

    name: str
    group: str
    traffic: Source
    local: int = 3
    decode: int = 5
    remote: tuple[int, ...] = (4,)
    link_bps: tuple[float, ...] = (100 * GBPS,)
    changes: tuple[LinkChange, ...] = ()
    failures: tuple[Failure, ...] = ()
    cache_tokens: int = 0
    slo_ttft_s: float = 10.0
    slo_itl_s: float = 0.04
    warm_up_s: float = 150.0


def steady(rate_rps: float, count: int = 4000) -> Source:
    """Return Poisson arrivals of the case study."""
    return lambda random: tuple(traffic.poisson(random, rate_rps, count))


def phases(*parts: tuple[float, float, traffic.Sampler], times: int = 1) -> Source:
    """Return Poisson arrivals in phases of `(seconds, rate, lengths)`, all of them `times` times."""
    return lambda random: tuple(traffic.varying(random, parts * times))


def chats(rate_rps: float, *, turns: int, first: float, growth: float, think_s: float, shared_blocks: int) -> Source:
    """Return conversations: medians of the first prompt and of what each turn adds."""
    return lambda random: traffic.conversations(
        random, rate_rps, 4000, turns=turns, first=traffic.log_normal(math.log(first), 0.9, 256, 100_000),
        growth=traffic.log_normal(math.log(growth), 0.8, 64, 30_000), think_s=think_s, shared_blocks=shared_blocks,
        output_tokens=512,
    )  # fmt: skip


def flapping(high_bps: float, low_bps: float, period_s: float, until_s: float) -> tuple[LinkChange, ...]:
    """Return a link that is low in every second period."""
    count = int(until_s / period_s)
    return tuple(LinkChange(period_s * i, low_bps if i % 2 else high_bps) for i in range(1, count + 1))


_SHORT, _LONG = traffic.log_normal(9.0, 1.0, 128, 131_072), traffic.log_normal(10.4, 0.8, 128, 131_072)
# True-mean capacity of the best threshold for these roles: 3.16 at 100 Gbps, 2.64, 2.04 and 1.60 at 8, 4 and 2 Gbps.
SCENARIOS: tuple[Scenario, ...] = (
    *(
        Scenario(f"case study, {share} % of capacity", "Load", steady(3.156 * share / 100))
        for share in (50, 80, 95, 100)
    ),
    Scenario("13 Gbps, 95 %", "Links", steady(3.0), link_bps=(13 * GBPS,)),
    Scenario("8 Gbps, 97 % of the re-optimised bound", "Links", steady(2.565), 4, 4, link_bps=(8 * GBPS,)),
    Scenario("4 Gbps, 97 % of the re-optimised bound", "Links", steady(1.981), 5, 3, link_bps=(4 * GBPS,)),
    Scenario("2 Gbps, 95 %", "Links", steady(1.52), 5, 3, link_bps=(2 * GBPS,)),
    Scenario("8 Gbps, roles of a fast link", "Links", steady(2.2), link_bps=(8 * GBPS,)),
    Scenario(
        "drop to a fifth for 10 min", "Changing links", steady(1.9), 4, 4, link_bps=(20 * GBPS,),
        changes=(LinkChange(600, 4 * GBPS), LinkChange(1200, 20 * GBPS)),
    ),
    Scenario(
        "drop to a fifth for 10 min, overloaded meanwhile", "Changing links", steady(2.6), link_bps=(20 * GBPS,),
        changes=(LinkChange(600, 4 * GBPS), LinkChange(1200, 20 * GBPS)),
    ),
    Scenario(
        "flaps between 20 and 4 Gbps every minute", "Changing links", steady(2.2), link_bps=(20 * GBPS,),
        changes=flapping(20 * GBPS, 4 * GBPS, 60, 1800),
    ),
    Scenario(
        "outage of a minute", "Changing links", steady(2.2), link_bps=(20 * GBPS,),
        changes=(LinkChange(600, 0.0), LinkChange(660, 20 * GBPS)),
    ),
    Scenario(
        "shared with foreign traffic", "Changing links", steady(2.4), link_bps=(20 * GBPS,),
        changes=(LinkChange(400, 20 * GBPS, 8 * GBPS, 2), LinkChange(1200, 20 * GBPS, 0.0, 1)),
    ),
    Scenario(
        "surge to twice the rate, a minute in six", "Traffic", phases((300, 2.0, CASE_STUDY), (60, 4.5, CASE_STUDY), times=5)
    ),
    Scenario(
        "flash crowds, 10 a second for 20 s", "Traffic", phases((300, 2.0, CASE_STUDY), (20, 10.0, CASE_STUDY), times=5)
    ),
    Scenario(
        "shifting lengths", "Traffic", phases((500, 2.6, CASE_STUDY), (500, 3.2, _SHORT), (500, 1.7, _LONG))
    ),
    Scenario(
        "chats of 8 turns", "Prefix hits", chats(3.2, turns=8, first=6000, growth=1500, think_s=30, shared_blocks=2),
        cache_tokens=1_500_000,
    ),
    Scenario(
        "agents of 30 turns", "Prefix hits", chats(3.2, turns=30, first=12_000, growth=2500, think_s=4, shared_blocks=8),
        cache_tokens=1_500_000,
    ),
    Scenario(
        "chats on 4 Gbps", "Prefix hits", chats(3.0, turns=8, first=6000, growth=1500, think_s=30, shared_blocks=2), 5, 3,
        link_bps=(4 * GBPS,), cache_tokens=1_500_000,
    ),
    Scenario("two remote clusters", "Clusters", steady(2.9), remote=(2, 2), link_bps=(50 * GBPS, 10 * GBPS)),
    Scenario(
        "two remote clusters, one lost for 5 min", "Clusters", steady(2.3), remote=(2, 2), link_bps=(50 * GBPS, 50 * GBPS),
        failures=(Failure(600, "remote-2", 2, 300.0),),
    ),
    Scenario(
        "a local prefill worker lost for 5 min", "Clusters", steady(2.3), failures=(Failure(600, "local", 1, 300.0),)
    ),
)  # fmt: skip


def from_trace(path: Path) -> Scenario:
    """Return the replay of a trace at 2.8 requests a second; a seed makes it up to 5 % faster or slower.

    Raises:
        TraceError: the trace cannot be read.
    """
    rows = trace.load(path)
    span_s = max(1e-3, rows[-1].arrival_s - rows[0].arrival_s)

    def requests(random: Random) -> tuple[Arrival, ...]:
        speed = 2.8 * span_s / len(rows) * random.uniform(0.95, 1.05)
        found = ((row.arrival_s, row.input_tokens, row.output_tokens, row.block_ids) for row in rows)
        return tuple(traffic.trace(found, trace.BLOCK_TOKENS, speed))

    return Scenario(f"trace {path.stem}", "Prefix hits", requests, cache_tokens=1_500_000, warm_up_s=0.0)
