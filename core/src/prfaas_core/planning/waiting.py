"""How long requests wait for one of several servers: M/M/c exactly, G/G/c by Allen and Cunneen.

- Erlang's C formula for the probability of waiting, by the recursion of his B formula.
- Mean wait: Allen and Cunneen (A. O. Allen, Probability, Statistics and Queueing Theory, 2nd ed. 1990, section 5.3):
  `Wq = (ca^2 + cs^2) / 2 * Wq(M/M/c)`. Exact for M/M/c and M/G/1; within a few percent for M/G/c near saturation and for
  cs^2 up to about 1. It errs high for cs^2 < 1 at low load with many servers, and low for bursty arrivals whose bursts are longer than a
  busy period: ca^2 says nothing of correlation.
- Distribution: a wait above zero is taken as exponential (exact for M/M/c, the limit in heavy traffic for G/G/c), so
  `P(W > x) = C exp(-x C / Wq)`. For cs^2 < 1 this errs high far out in the tail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prfaas_core import errors

_FULL = 1e-9
"""Fraction of the servers left that counts as none: rounding must not make an endless wait a very long one."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A waiting time: zero with probability `1 - probability`, else exponential; `mean_s` over all requests."""

    probability: float
    mean_s: float

    def exceeds(self, seconds: float) -> float:
        """Return P(W > seconds); 1 for a negative time."""
        if seconds < 0:
            return 1.0
        if self.mean_s == math.inf:
            return 1.0
        if self.mean_s == 0:
            return 0.0
        return self.probability * math.exp(-seconds * self.probability / self.mean_s)


NO_WAIT = Wait(0.0, 0.0)
ENDLESS = Wait(1.0, math.inf)


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability of waiting in M/M/c; `offered` is arrival rate times mean service time. 1 when overloaded."""
    errors.count("servers", servers, minimum=1)
    errors.non_negative("offered", offered)
    return _erlang_c(servers, offered) if offered < servers else 1.0


def _erlang_c(servers: int, offered: float) -> float:
    blocked = 1.0
    for server in range(1, servers + 1):
        blocked = offered * blocked / (server + offered * blocked)
    utilisation = offered / servers
    return blocked / (1 - utilisation * (1 - blocked))


def waiting(servers: int, rate: float, mean_s: float, *, service_scv: float = 1.0, arrival_scv: float = 1.0) -> Wait:
    """Return the wait for one of `servers`.

    Args:
        rate: arrivals a second.
        mean_s: mean time of service.
        service_scv, arrival_scv: squared coefficients of variation, cs^2 and ca^2; 1 is exponential, Poisson.
    """
    if rate == 0 or mean_s == 0:
        return NO_WAIT
    offered = rate * mean_s
    if servers - offered <= _FULL * servers:
        return ENDLESS
    probability = erlang_c(servers, offered)
    return Wait(probability, (arrival_scv + service_scv) / 2 * probability * mean_s / (servers - offered))


def queued(servers: int, offered: float) -> float:
    """Return the mean number that wait in M/M/c; convex in `offered`, infinite when overloaded."""
    if offered >= servers:
        return math.inf if offered > 0 else 0.0
    return _erlang_c(servers, offered) * offered / (servers - offered)


def queued_slope(servers: int, offered: float) -> float:
    """Return the derivative of `queued` by `offered`: what one more busy server of demand adds to the queue."""
    if servers - offered <= _FULL * servers:
        return math.inf
    step = min(1e-4 * servers, (servers - offered) / 4)
    low = max(0.0, offered - step)
    return (queued(servers, offered + step) - queued(servers, low)) / (offered + step - low)
