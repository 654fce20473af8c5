"""What a second of shared capacity costs the requests that come later.

A request that adds T seconds of work to a queue with a backlog of W seconds delays everybody who arrives before that queue
is empty again. For a queue with Poisson arrivals at rate lambda and utilisation rho, kept in order of arrival, the sum of
those delays is exactly

    lambda / (1 - rho) * (W * T + T^2 / 2)

(the relative value function of the M/G/1 queue: Krishnan 1987; Ott and Krishnan 1992; Hyytia, Aalto and Penttinen 2012).
When c workers share a pool and each request goes to the one with the least work, the workers that are free take what comes
next, and T^2 / 2 is divided by c (the pool as one worker of c times the speed). `lambda / (1 - rho)` is the `price` here, in requests a second: what the planner knows. W and T are of the moment. The
bigger the backlog gets, the more the product W * T outweighs a request's own delay, and choosing the least of W * T over
the candidates keeps every queue bounded whenever any policy can (MaxWeight): with a wrong price the waits are longer, and
the throughput is still the best. There a request goes remote when T_local / T_remote exceeds the ratio of the backlogs,
which is a length threshold, because that quotient grows with length: the paper's partition, found without a search.
"""

from __future__ import annotations

import math

from prfaas_core import errors

MOST_LOADED = 0.75
"""Utilisation above which prices do not rise further: estimates of 1 - rho are not worth much there, and what a long queue
costs is in the backlogs already. Between 0.7 and 0.95 the case study hardly changes."""

BASE_LOADED = 0.9
"""Utilisation above which base prices do not rise further."""


def price(rate_rps: float, workers: float, utilisation: float) -> float:
    """Return the price of a pool's work, requests a second for each worker over its free share.

    Args:
        rate_rps: requests a second that the pool serves.
        workers: how many share them, above 0; 1 for a link.
        utilisation: share of the time that each is busy, 0 or more.
    """
    errors.non_negative("rate_rps", rate_rps)
    errors.positive("workers", workers)
    errors.non_negative("utilisation", utilisation)
    return rate_rps / workers / (1 - min(utilisation, MOST_LOADED))


def prior(service_s: float) -> float:
    """Return the price to assume where no rates are measured: that of a worker or link at utilisation `MOST_LOADED`.

    rho / s requests a second of `service_s` each keep a server busy for a share rho of the time, which makes the price
    rho / (1 - rho) / s.
    """
    return MOST_LOADED / (1 - MOST_LOADED) / errors.positive("service_s", service_s)


def base_price(price: float, service_s: float, workers: float, utilisation: float) -> float:
    """Return the base price of local prefill work: its price at the backlog that this utilisation has on average.

    The mean wait is that of M/M/c in Sakasegawa's approximation (1977), s * rho^(sqrt(2 (c + 1)) - 1) / (c (1 - rho)), up to
    `BASE_LOADED`. The backlogs of the moment waver around it; with it, they shift the planner's partition instead of making
    one, and near saturation the partition hardly wavers at all.
    """
    errors.positive("workers", workers)
    rho = min(errors.non_negative("utilisation", utilisation), BASE_LOADED)
    wait_s = service_s * math.pow(rho, math.sqrt(2 * (workers + 1)) - 1) / (workers * (1 - rho))
    return price * wait_s


def across(base: float, local_s: float, remote_s: float, link_s: float, *, link_binds: bool) -> tuple[float, float]:
    """Return the base prices of remote prefill work and of the link that belong to the `base` of local work.

    With them a request of the threshold's length costs the same on both sides, longer ones less on the remote side. The one
    of the two remote resources that binds carries it all.

    Args:
        base: base price of local prefill work.
        local_s, remote_s, link_s: times of a request of the threshold's length: prefill on either side, and transfer.
        link_binds: whether the link is full before the remote workers are busy.
    """
    if link_binds:
        return 0.0, base * local_s / errors.positive("link_s", link_s)
    return base * local_s / errors.positive("remote_s", remote_s), 0.0
