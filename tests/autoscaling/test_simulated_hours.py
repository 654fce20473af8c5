"""What the autoscaler does to simulated pools: steps that concern one side, and a day, beside an HPA's algorithm.

`benchmarks/autoscaling` has the same for 30 hours, more seeds and real traffic.
"""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from prfaas_core import case_study, simulation
from prfaas_core.autoscaling import PREFILL_TARGETS, PREFILL_UP, Settings, decode_targets
from prfaas_core.simulation import (
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

TRACE = Path(__file__).parents[2] / "e2e" / "traces" / "mooncake_conversation_600.jsonl"
WORKER = replace(case_study.H20, decode_slots=8)
HPAS = Settings(1, 40)
DEFAULTS = replace(HPAS, up=PREFILL_UP), HPAS
PREFILL, DECODE = (tuple(map(Metric.of, targets)) for targets in (PREFILL_TARGETS, decode_targets(WORKER.decode_slots)))


def run(arrivals, prefill, decode, workers):
    scenario = Scenario(
        decode=DecodePool("decode", WORKER, workers[1], interference=0.0, scaling=Scaling(DECODE, decode)),
        local=PrefillPool("prefill", WORKER, workers[0], scaling=Scaling(PREFILL, prefill)),
        threshold_tokens=WORKER.max_model_len_tokens,
        absorb=False,
    )
    return simulation.simulate(scenario, arrivals)


def missed(found):
    """Return the requests that wait for more than 5 s and twice their own prefill."""
    limits = (5.0 + 2 * WORKER.prefill_s(tokens) for tokens in found.tokens)
    return sum(1 for ttft_s, limit_s in zip(found.ttft_s, limits, strict=True) if not ttft_s <= limit_s)


def step(what, seed):
    """Yield 2 requests a second for an hour, whose prompts or answers are four times as long after 15 minutes."""
    random, now_s = Random(seed), 0.0
    while (now_s := now_s + random.expovariate(2.0)) < 3600:
        longer = 4 if now_s > 900 else 1
        tokens = 3000 * (longer if what == "prompts" else 1) * random.uniform(0.75, 1.25)
        answer = 300 * (longer if what == "answers" else 1) * random.uniform(0.75, 1.25)
        yield now_s, int(tokens), int(answer), ()


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("what", "side", "other"), [("prompts", "prefill", "decode"), ("answers", "decode", "prefill")]
)
def test_a_step_scales_its_own_side_without_overshoot_or_flapping(what, side, other, seed):
    prefill, decode = DEFAULTS
    found = run(step(what, seed), Core(prefill), Core(decode), (3, 3))
    before = [size for at_s, size in found.sizes(side) if at_s <= 900][-1]
    after = [(at_s, size) for at_s, size in found.sizes(side) if at_s > 900]
    most, last = max(size for _, size in after), after[-1][1]
    assert last >= 2 * before
    assert most <= last + 1
    assert results.most_within(results.turns_s(after), 3600) < 4
    # When prefill catches up, what had queued reaches decode at once; at most one worker comes for it, and goes again.
    others = [size for _, size in found.sizes(other)]
    assert max(others) <= others[0] + 1
    assert others[-1] == others[0]


def test_half_a_day_takes_fewer_workers_and_misses_less_than_with_an_hpa_and_does_not_flap():
    rows = [json.loads(line) for line in TRACE.read_text().splitlines()]

    def half_a_day():
        drawn = []

        def prompt(random):
            drawn.append(random.choice(rows))
            # A third of the prompts' tokens are cached, as in the whole trace.
            return max(1, drawn[-1]["input_length"] * 2 // 3)

        def answer(_):
            return drawn.pop()["output_length"]

        return traffic.diurnal(Random(1), 12 * 3600, 3.0, inputs=prompt, outputs=answer)

    prefill, decode = DEFAULTS
    ours = run(half_a_day(), Core(prefill), Core(decode), (3, 3))
    theirs = run(half_a_day(), Hpa(HPAS), Hpa(HPAS), (3, 3))
    assert ours.arrived_s == theirs.arrived_s
    assert missed(ours) <= missed(theirs)
    assert sum(ours.replica_s.values()) <= sum(theirs.replica_s.values())
    for pool in ("prefill", "decode"):
        sizes = [size for _, size in ours.sizes(pool)]
        assert max(sizes) >= 2 * min(sizes)
        assert results.most_within(results.turns_s(ours.sizes(pool)), 3600) < 4
