"""Prefix caches in the simulator: whole blocks, and recurrent state that fits one length only."""

import itertools
from random import Random

from prfaas_core import simulation
from prfaas_core.profiles import Curve, Profile
from prfaas_core.simulation import DecodePool, PrefillPool, Scenario, traffic
from prfaas_core.simulation.cache import PoolCache

PROFILE = Profile(
    model="m", max_model_len_tokens=10**6, bytes_per_token=4.0, accelerator="X", accelerators_per_instance=1,
    prefill_s=Curve.through([(1, 1e-3), (1e6, 1e3)]), kv_bytes=Curve.through([(1, 1e3), (1e6, 1e9)]),
    decode_slots=100, step_s=0.001, cache_capacity_tokens=1000, block_tokens=100,
)  # fmt: skip


def keys(text: str) -> tuple[bytes, ...]:
    return tuple(text[: end + 1].encode() for end in range(len(text)))


def test_whole_blocks_match_up_to_where_prompts_part() -> None:
    cache = PoolCache(1000, 100, hybrid=False, state_tokens=0)
    cache.insert("w", keys("abcd"))
    assert cache.match(keys("abxy")) == {"w": 200}
    assert cache.match(keys("abcdef")) == {"w": 400}
    assert cache.match(keys("xbcd")) == {}


def test_recurrent_state_fits_only_where_a_prompt_ended() -> None:
    cache = PoolCache(1000, 100, hybrid=True, state_tokens=0)
    cache.insert("w", keys("abcd"))
    assert cache.match(keys("abxy")) == {}
    assert cache.match(keys("abcdef")) == {"w": 400}
    cache.insert("w", keys("ab"))
    assert cache.match(keys("abxy")) == {"w": 200}


def test_the_least_recently_used_goes_first() -> None:
    cache = PoolCache(400, 100, hybrid=False, state_tokens=0)
    cache.insert("w", keys("ab"))
    cache.insert("w", keys("xy"))
    cache.insert("w", keys("ab"))
    cache.insert("w", keys("st"))
    assert cache.match(keys("ab")) == {"w": 200}
    assert cache.match(keys("xy")) == {}
    assert cache.held_tokens(["w"]) == 400
    states = PoolCache(400, 100, hybrid=True, state_tokens=200)
    states.insert("w", keys("a"))
    states.insert("w", keys("b"))
    assert (states.match(keys("a")), states.match(keys("b"))) == ({}, {"w": 100})


def test_a_prompt_seen_before_computes_its_tail_only() -> None:
    scenario = Scenario(
        decode=DecodePool("d", PROFILE, 1), local=PrefillPool("l", PROFILE, 1), threshold_tokens=10**6, hybrid=True
    )
    arrivals = [(0.0, 450, 1, keys("abcd")), (10.0, 450, 1, keys("abcd")), (20.0, 400, 1, keys("abcd"))]
    result = simulation.simulate(scenario, arrivals)
    # The last token is computed in any case.
    assert [round(ttft, 6) for ttft in result.ttft_s] == [0.45, 0.05, 0.001]


def test_a_trace_keeps_prefixes_apart_that_only_share_later_blocks() -> None:
    rows = [(0.0, 1024, 5, (1, 2)), (3.0, 1100, 5, (1, 2, 3)), (4.0, 1024, 5, (9, 2))]
    first, second, third = traffic.trace(rows, 512, speed=2.0)
    assert [row[0] for row in (first, second, third)] == [0.0, 1.5, 2.0]
    assert first[3] == second[3]
    assert len(set(first[3]) & set(third[3])) == 0


def test_conversations_repeat_what_was_said() -> None:
    made = traffic.conversations(
        Random(1), 1.0, 20, turns=4, first=traffic.fixed(2000), growth=traffic.fixed(600), think_s=5.0, shared_blocks=1
    )
    assert len(made) == 20
    assert [row[0] for row in made] == sorted(row[0] for row in made)
    by_length = sorted((row for row in made if row[3][-1][:6] == (1).to_bytes(6, "big")), key=lambda row: row[1])
    for shorter, longer in itertools.pairwise(by_length):
        assert longer[3][: len(shorter[3])] == shorter[3]
    assert len({row[3][0] for row in made}) == 1
