"""The simulator against what queueing theory says in closed form."""

import math
from random import Random

import pytest

from prfaas_core import routing, simulation
from prfaas_core.profiles import Curve, Profile
from prfaas_core.routing import Algorithm
from prfaas_core.simulation import DecodePool, Link, PrefillPool, Scenario

MANY_SLOTS = 100_000


def profile(
    slots: int = MANY_SLOTS, step_s: float = 1e-6, kv_bytes_per_token: float = 1e3, token_s: float = 1e-3
) -> Profile:
    """A millisecond a token, so that lengths are times."""
    return Profile(
        model="m", max_model_len_tokens=10**9, bytes_per_token=4.0, accelerator="X", accelerators_per_instance=1,
        prefill_s=Curve.through([(1, token_s), (1e9, token_s * 1e9)]), kv_bytes=Curve.through([(1, kv_bytes_per_token), (1e9, kv_bytes_per_token * 1e9)]),
        decode_slots=slots, step_s=step_s, cache_capacity_tokens=0, block_tokens=64,
    )  # fmt: skip


def poisson(seed: int, rate: float, count: int, service_s, output=lambda _random: 1):
    random, now_s = Random(seed), 0.0
    for _ in range(count):
        now_s += random.expovariate(rate)
        yield now_s, max(1, round(1000 * service_s(random))), output(random), ()


def erlang_c(servers: int, offered: float) -> float:
    """Probability of having to wait in M/M/c."""
    below = sum(offered**k / math.factorial(k) for k in range(servers))
    at = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return at / (below + at)


def waits(scenario: Scenario, arrivals) -> tuple[float, simulation.Result]:
    """Return the mean wait before service; the first fifth is warm-up."""
    result = simulation.simulate(scenario, arrivals)
    first = len(result.ttft_s) // 5
    kept = range(first, len(result.ttft_s))
    return sum(result.ttft_s[i] - result.tokens[i] / 1000 for i in kept) / len(kept), result


@pytest.mark.parametrize(("servers", "load"), [(1, 0.6), (3, 0.8), (8, 0.7)])
def test_prefill_with_exponential_work_waits_as_long_as_erlang_says(servers: int, load: float) -> None:
    """Sending each request where there is least work is one queue for all: M/M/c."""
    scenario = Scenario(
        decode=DecodePool("d", profile(), 1),
        local=PrefillPool("l", profile(), servers),
        algorithm=Algorithm.FINISH_TIME,
        prices={"l": 0.0},
        absorb=False,
    )
    rate = load * servers
    mean_s, _ = waits(scenario, poisson(1, rate, 250_000, lambda random: random.expovariate(1.0)))
    expected_s = erlang_c(servers, rate) / (servers - rate)
    assert mean_s == pytest.approx(expected_s, rel=0.06)


@pytest.mark.parametrize(("name", "service_s", "square"), [
    ("fixed", lambda _random: 1.0, 1.0),
    ("two lengths", lambda random: 0.5 if random.random() < 0.75 else 2.5, 0.75 * 0.25 + 0.25 * 6.25),
])  # fmt: skip
def test_one_prefill_worker_waits_as_long_as_pollaczek_and_khinchine_say(name, service_s, square: float) -> None:
    """M/G/1: lambda E[S^2] / (2 (1 - rho))."""
    scenario = Scenario(
        decode=DecodePool("d", profile(), 1), local=PrefillPool("l", profile(), 1), threshold_tokens=10**9
    )
    mean_s, _ = waits(scenario, poisson(2, 0.7, 80_000, service_s))
    assert mean_s == pytest.approx(0.7 * square / (2 * 0.3), rel=0.08), name


def test_decode_slots_wait_as_long_as_erlang_says() -> None:
    """One decode worker with c slots and exponential answers is M/M/c."""
    slots, rate = 4, 3.2
    scenario = Scenario(
        decode=DecodePool("d", profile(slots=slots, step_s=1e-4), 1),
        local=PrefillPool("l", profile(token_s=1e-9), 1),
        threshold_tokens=10**9,
    )
    arrivals = poisson(3, rate, 200_000, lambda _r: 0.001, lambda random: 1 + round(random.expovariate(1.0) / 1e-4))
    mean_s, result = waits(scenario, arrivals)
    assert mean_s == pytest.approx(erlang_c(slots, rate) / (slots - rate), rel=0.1)
    assert result.finished == 200_000


def test_requests_in_the_system_are_rate_times_time_in_it() -> None:
    """Little's law on TTFT: the time integral of requests before their first token equals the sum of their times."""
    scenario = Scenario(
        decode=DecodePool("d", profile(slots=3, step_s=1e-3), 2),
        local=PrefillPool("l", profile(), 2),
        remote=(PrefillPool("r", profile(), 2, link=Link(8e6)),),
        threshold_tokens=800,
    )
    arrivals = list(
        poisson(4, 1.5, 4000, lambda random: random.expovariate(1.0), lambda random: random.randint(1, 1500))
    )
    result = simulation.simulate(scenario, arrivals)
    events = [(at, 1) for at in result.arrived_s]
    events += [(at + wait, -1) for at, wait in zip(result.arrived_s, result.ttft_s, strict=True)]
    inside, area, before = 0, 0.0, 0.0
    for at, step in sorted(events):
        area += inside * (at - before)
        inside, before = inside + step, at
    assert inside == 0
    rate, mean_s = len(result.arrived_s) / before, sum(result.ttft_s) / len(result.ttft_s)
    assert area / before == pytest.approx(rate * mean_s, rel=1e-6)
    # The controller's averages come from the same account: what is in flight is never negative, and ends at nothing.
    assert result.finished == len(arrivals)


def test_a_shared_link_is_processor_sharing() -> None:
    """M/M/1-PS has the mean time of M/M/1: s / (1 - rho)."""
    fast = profile(kv_bytes_per_token=1e6 / 8, token_s=1e-9)
    scenario = Scenario(
        decode=DecodePool("d", profile(), 1),
        local=None,
        remote=(PrefillPool("r", fast, 1, link=Link(1e9)),),
        threshold_tokens=0,
    )
    # A token is a millisecond of the link, and next to nothing of prefill.
    result = simulation.simulate(scenario, poisson(5, 0.6, 100_000, lambda random: random.expovariate(1.0)))
    times = result.ttft_s[5000:]
    assert sum(times) / len(times) == pytest.approx(1 / 0.4, rel=0.06)
    assert routing.Reason.UNCACHED_ABOVE_THRESHOLD in result.reasons
