"""What no policy can beat, for a deployment or for one sequence of requests known beforehand.

| function | bounds | how |
| --- | --- | --- |
| `capacity` | the rate that any policy can carry for ever | a fluid: every queue gets exactly what it can do, with true means E[T(L)] |
| `alone_s` | mean TTFT of given requests | each is served at once by whatever is fastest for it |
| `pooled_s` | mean TTFT of given requests | all prefill workers as one preemptive server that always goes on with the shortest rest |

`pooled_s` is an offline oracle's bound. With weights y of the sides, a request needs min over the sides of y * T units,
and all workers together deliver at most the sum of y units a second: whatever a real schedule does in an interval, the
pooled server can do too, and shortest-rest-first has the least mean time of all schedules of one server. Each y gives a
valid bound; the best of a few is taken. Transfers, decode slots and indivisible workers are left out, so both bounds lie
below what is possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from prfaas_core import errors
from prfaas_core.lengths import Lengths
from prfaas_core.model import Deployment
from prfaas_core.profiles import Curve

Side = tuple[Curve, float]
"""T_prefill of the workers of a side, and how many they are."""


def capacity(deployment: Deployment, lengths: Lengths, *, absorb: bool) -> tuple[float, int]:
    """Return the highest rate, requests a second, and the threshold that gives it, when means are true means.

    Args:
        deployment: what there is.
        lengths: of the uncached parts.
        absorb: whether decode workers may give time that decoding leaves over to prefill, in any fraction.
    """
    if deployment.local_instances + deployment.decode_instances == 0:
        raise errors.InvalidValueError("local_instances + decode_instances", 0, "give at least one")
    sample, remote = lengths.sample, deployment.remote
    count = len(sample)
    local_s = [deployment.local.prefill_s(tokens) / count for tokens in sample]
    remote_s = [remote.prefill_s(tokens) / count for tokens in sample] if remote is not None else []
    kv_bits = [8 * remote.kv_bytes(tokens) / count for tokens in sample] if remote is not None else []
    hold = deployment.output_tokens * deployment.local.step_s / deployment.local.decode_slots
    local_sum, remote_sum, bits_sum = sum(local_s), 0.0, 0.0
    best = (0.0, int(sample[-1]) + 1)
    for index in range(count, -1, -1):
        if index < count:
            if not deployment.remote_instances or not deployment.link_bps:
                break
            local_sum -= local_s[index]
            remote_sum += remote_s[index]
            bits_sum += kv_bits[index]
        limits = [deployment.decode_instances / hold]
        if absorb:
            limits = [(deployment.decode_instances + deployment.local_instances) / (hold + local_sum), *limits]
        elif local_sum > 1e-12:
            limits.append(deployment.local_instances / local_sum)
        if remote_sum > 0:
            limits += [deployment.remote_instances / remote_sum, deployment.link_bps / bits_sum]
        rate = min(limits)
        if rate > best[0]:
            best = (rate, int(sample[index - 1]) if index else 0)
    return best


def alone_s(tokens: Iterable[int], sides: Sequence[Side]) -> float:
    """Return the mean of the shortest service times, seconds."""
    times = [min(curve(length) for curve, workers in sides if workers > 0) for length in tokens]
    if not times:
        raise errors.InvalidValueError("tokens", times, "give at least one request")
    return sum(times) / len(times)


def pooled_s(
    arrivals: Sequence[tuple[float, int]], sides: Sequence[Side], ratios: Sequence[float] = (1, 2, 2.5, 3)
) -> float:
    """Return the best bound over weights of the first side against the others, seconds.

    Args:
        arrivals: `(arrival_s, uncached tokens)` in order of time.
        sides: remote first.
        ratios: weights of the first side to try; the others count 1.
    """
    if not arrivals:
        raise errors.InvalidValueError("arrivals", arrivals, "give at least one request")
    return max(_pooled_s(arrivals, sides, ratio) for ratio in ratios)


def _pooled_s(arrivals: Sequence[tuple[float, int]], sides: Sequence[Side], ratio: float) -> float:
    weights = [ratio if index == 0 else 1.0 for index in range(len(sides))]
    speed = sum(weight * workers for weight, (_, workers) in zip(weights, sides, strict=True))
    open_: list[tuple[float, float]] = []  # units left, arrival
    now_s = total_s = 0.0
    for arrival_s, tokens in (*arrivals, (float("inf"), 0)):
        while open_ and now_s < arrival_s:
            left, began_s = heappop(open_)
            end_s = now_s + left / speed
            if end_s > arrival_s:
                heappush(open_, (left - (arrival_s - now_s) * speed, began_s))
                break
            now_s = end_s
            total_s += now_s - began_s
        now_s = arrival_s
        if tokens:
            units = min(w * curve(tokens) for w, (curve, workers) in zip(weights, sides, strict=True) if workers > 0)
            heappush(open_, (units, arrival_s))
    return total_s / len(arrivals)
