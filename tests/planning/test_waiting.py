"""Waiting times against what theory knows exactly."""

import math
import random
from heapq import heapreplace

import pytest

from prfaas_core import errors
from prfaas_core.planning.waiting import Wait, erlang_c, queued, queued_slope, waiting


@pytest.mark.parametrize(
    ("servers", "offered", "expected"),
    # Erlang's C: closed forms for one and two servers, and a table value for ten.
    [(1, 0.7, 0.7), (2, 1.0, 1 / 3), (2, 1.6, 2 * 0.8**2 / 1.8), (10, 8.0, 0.4092)],
)
def test_erlangs_formula(servers, offered, expected):
    assert erlang_c(servers, offered) == pytest.approx(expected, abs=5e-5)


def test_one_server_waits_as_pollaczek_and_khinchin_say():
    # M/D/1 at 80 %: half of M/M/1, which is rho / (1 - rho) service times.
    assert waiting(1, 0.8, 1.0, service_scv=0.0).mean_s == pytest.approx(2.0)
    assert waiting(1, 0.8, 1.0).mean_s == pytest.approx(4.0)


@pytest.mark.parametrize("scv", [0.25, 1.0, 2.0])
def test_several_servers_wait_as_simulated(scv):
    """Gamma service in a queue of four: within a tenth of a simulation of 200,000 requests."""
    rng, servers, rate, mean_s = random.Random(7), 4, 3.2, 1.0
    free, now, total = [0.0] * servers, 0.0, 0.0
    for _ in range(200_000):
        now += rng.expovariate(rate)
        start = max(now, free[0])
        total += start - now
        heapreplace(free, start + rng.gammavariate(1 / scv, mean_s * scv))
    assert waiting(servers, rate, mean_s, service_scv=scv).mean_s == pytest.approx(total / 200_000, rel=0.1)


def test_an_overloaded_queue_is_endless_and_an_idle_one_nothing():
    assert waiting(2, 3.0, 1.0).mean_s == math.inf
    assert waiting(0, 1.0, 1.0).exceeds(1e9) == 1.0
    assert waiting(2, 0.0, 1.0).mean_s == 0.0
    assert queued(2, 2.0) == math.inf
    assert queued_slope(2, 2.0) == math.inf


def test_the_distribution_has_the_mean():
    wait = Wait(0.4, 2.0)
    steps = [wait.exceeds(index * 0.01) for index in range(20_000)]
    assert sum(steps) * 0.01 == pytest.approx(2.0, rel=0.01)
    assert wait.exceeds(-1) == 1.0


def test_the_slope_is_the_derivative():
    for offered in (0.5, 2.0, 3.9):
        step = 1e-5
        assert queued_slope(4, offered) == pytest.approx(
            (queued(4, offered + step) - queued(4, offered - step)) / (2 * step), rel=1e-2
        )


@pytest.mark.parametrize(
    ("servers", "offered", "field"), [(0, 1.0, "servers"), (2, -1.0, "offered"), (2, math.nan, "offered")]
)
def test_what_is_no_queue_is_refused(servers, offered, field):
    with pytest.raises(errors.InvalidValueError, match=field):
        erlang_c(servers, offered)
