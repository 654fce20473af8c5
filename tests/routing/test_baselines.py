"""The policies of other systems, as baselines."""

from dataclasses import replace

import pytest

from prfaas_core import errors, routing
from prfaas_core.routing import Bandwidth, Destination, Mode, Pool, Reason, Request, View, Worker, baselines

LOCAL, REMOTE, DECODE = Destination.LOCAL_PREFILL, Destination.REMOTE_PREFILL, Destination.DECODE
VIEW = View(
    threshold_tokens=1000,
    mode=Mode.ENFORCE,
    bandwidth=Bandwidth.SCARCE,
    decode=Pool("decode", (Worker("d", 0, 0),)),
    local_prefill=Pool("local", (Worker("l", 2, 0),)),
    remote_prefill=(Pool("remote", (Worker("r", 1, 0),)),),
)

CASES = {
    "always": (baselines.always_remote, 1, REMOTE, Reason.UNCACHED_ABOVE_THRESHOLD),
    "never": (baselines.never_remote, 10**6, LOCAL, Reason.UNCACHED_WITHIN_THRESHOLD),
    "static, from its number on": (baselines.StaticThreshold(50), 50, REMOTE, Reason.UNCACHED_ABOVE_THRESHOLD),
    "static, below it": (baselines.StaticThreshold(50), 49, LOCAL, Reason.UNCACHED_WITHIN_THRESHOLD),
    "effective length within both": (
        baselines.EffectiveLength(500, 1.0), 500, DECODE, Reason.EFFECTIVE_LENGTH_WITHIN_BOUND,
    ),
    "effective length above the bound": (baselines.EffectiveLength(500, 1.0), 501, REMOTE, Reason.LEAST_LOADED),
    "effective length above the ratio": (baselines.EffectiveLength(500, 0.9), 400, REMOTE, Reason.LEAST_LOADED),
    "least loaded": (baselines.least_loaded, 5, REMOTE, Reason.LEAST_LOADED),
}  # fmt: skip


@pytest.mark.parametrize(("policy", "tokens", "destination", "reason"), CASES.values(), ids=CASES.keys())
def test_a_case(policy: routing.Policy, tokens: int, destination: Destination, reason: Reason) -> None:
    decision = policy(Request(tokens), VIEW)
    assert (decision.destination, decision.reason) == (destination, reason)


@pytest.mark.parametrize("policy", [case[0] for case in CASES.values()])
def test_what_cannot_be_split_stays_on_the_decode_worker(policy: routing.Policy) -> None:
    decision = policy(Request(5, ineligible=Reason.ECHO), VIEW)
    assert (decision.destination, decision.reason) == (DECODE, Reason.ECHO)


def test_equal_loads_stay_local() -> None:
    even = replace(VIEW, local_prefill=Pool("local", (Worker("l", 1, 0),)))
    assert baselines.least_loaded(Request(5), even).destination is LOCAL


def test_bad_bounds_are_refused() -> None:
    for make in (lambda: baselines.StaticThreshold(-1), lambda: baselines.EffectiveLength(1, float("nan"))):
        with pytest.raises(errors.InvalidValueError):
            make()
