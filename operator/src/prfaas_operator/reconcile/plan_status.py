"""What `status.plan` of a route says, as a function of what it said before and what is known now.

It is written when it says something new: when threshold or roles change, when what is expected, or asked for, is clearly
another, and once more when the effect of a change can be read off.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from prfaas_core.traffic import HALF_LIFE_S
from prfaas_operator import api
from prfaas_operator.api.route_plan import RoutePlan
from prfaas_operator.configuration.threshold import Threshold

_NOTABLE_EXPECTED = 0.1
_NOTABLE_RATE = 0.25
# By then the requests of before the change are less than a quarter of what routers report.
_EFFECT_AFTER = timedelta(seconds=2 * HALF_LIFE_S)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Instances that are asked for in the decode cluster; `wanted_local` of them together should prefill, if that is known."""

    local: int | None
    decode: int
    wanted_local: int | None


def plan(
    before: RoutePlan | None, threshold: Threshold, sizes: Sizes, rate_rps: float | None, now: datetime
) -> RoutePlan:
    """Return the plan; `rate_rps` is what routers are asked for, None when it is not known."""
    what = (threshold.tokens, sizes.local, sizes.decode)
    same = before if before is not None and what == _what(before) else None
    rate = before.measured_requests_per_second if before is not None else None
    rate = _kept(rate if same is not None or rate_rps is None else None, rate_rps, _NOTABLE_RATE)
    changed_time: datetime | None = now.replace(microsecond=0)
    gain, effect, rate_before = threshold.gain, None, rate
    if same is not None:
        changed_time, gain, rate_before = same.changed_time, same.expected_gain, same.requests_per_second_before
        effect = same.measured_gain
        due = changed_time is not None and now - changed_time >= _EFFECT_AFTER
        if effect is None and due and rate_before and rate_rps is not None:
            effect = float(f"{rate_rps / rate_before - 1:.3f}")
    carried_rps = threshold.carried_rps if threshold.carried_rps is not None else threshold.requests_per_second
    expected = _kept(same.expected_requests_per_second if same is not None else None, carried_rps, _NOTABLE_EXPECTED)
    bound_by = threshold.bound_by or (same.bound_by if same is not None else "")
    wanted_local = sizes.wanted_local if sizes.local is not None else None
    wanted_decode = None if wanted_local is None or sizes.local is None else sizes.local + sizes.decode - wanted_local
    return RoutePlan(
        threshold_tokens=threshold.tokens,
        local_prefill=sizes.local,
        decode=sizes.decode,
        wanted_local_prefill=wanted_local,
        wanted_decode=wanted_decode,
        bound_by=bound_by,
        expected_requests_per_second=expected,
        expected_gain=None if gain is None else float(f"{gain:.3f}"),
        measured_requests_per_second=rate,
        measured_gain=effect,
        requests_per_second_before=rate_before,
        changed_time=changed_time,
        source=threshold.source,
        message=_message(threshold.tokens, sizes, wanted_decode, expected, bound_by),
    )


def prediction(before: api.InferenceRouteStatus, threshold: Threshold) -> tuple[float | None, str]:
    """Return what the status says the ready workers carry, and why the threshold is as it is.

    Measured lengths are never twice the same; as long as they only waver, both stay as they are.
    """
    known, now = before.predicted_requests_per_second, threshold.requests_per_second
    same = (before.threshold_tokens, before.threshold_source) == (threshold.tokens, threshold.source)
    steady = (known is None) == (now is None) and _kept(known, now, _NOTABLE_EXPECTED) == known
    if same and steady and before.threshold_why is not None and _gist(before.threshold_why) == _gist(threshold.why):
        return known, before.threshold_why
    return now, threshold.why


def _gist(why: str) -> str:
    """Return a reason without its figures: what is before the workers, and the threshold that was not worth it."""
    return why.partition(" requests/s ")[2].partition(";")[0] or why


def _what(plan: RoutePlan) -> tuple[int, int | None, int | None]:
    return plan.threshold_tokens, plan.local_prefill, plan.decode


def _message(tokens: int, sizes: Sizes, wanted_decode: int | None, expected: float | None, bound_by: str) -> str:
    text = f"above {tokens} tokens remote"
    if sizes.local is not None:
        text += f", {sizes.local} prefill and {sizes.decode} decode"
    if wanted_decode is not None and wanted_decode != sizes.decode:
        text += f" (wanted {sizes.wanted_local} and {wanted_decode})"
    if expected is not None:
        text += f": {expected:g} requests/s"
        if bound_by:
            text += f", {bound_by} binds"
    return text


def _kept(before: float | None, now: float | None, notable: float) -> float | None:
    """Return the figure of before, unless the one of now is clearly another."""
    if now is None or (before is not None and abs(now - before) <= notable * max(now, before)):
        return before
    return float(f"{now:.3g}")
