"""Shadow mode: nothing leaves the cluster, and every decision says what that costs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core import routing
from prfaas_core.profiles import Curve
from prfaas_core.routing import Algorithm, Bandwidth, Destination, Link, Mode, Pool, Reason, Request, View, Worker

SLOW = Curve.through([(1000, 1.0), (100_000, 100.0)])
FAST = Curve.through([(1000, 0.25), (100_000, 25.0)])
KV = Curve.through([(1000, 1e6), (100_000, 1e8)])


def view(**changes):
    """A view at 100 s in shadow mode: local prefill takes 1 ms a token, remote a quarter, the link 1 us a byte."""
    base = View(
        threshold_tokens=1000,
        mode=Mode.SHADOW,
        bandwidth=Bandwidth.SCARCE,
        decode=Pool("decode", (Worker("d", 0, 0),), prefill_s=SLOW, price=0.0, slots=8),
        local_prefill=Pool("local", (Worker("l", 0, 0),), prefill_s=SLOW, price=0.0),
        remote_prefill=(
            Pool("remote", (Worker("r", 0, 0),), prefill_s=FAST, price=0.0, link=Link(8e6, KV, price=0.0)),
        ),
        now_s=100.0,
        absorb=False,
    )
    return replace(base, **changes)


@pytest.fixture(params=Algorithm)
def algorithm(request):
    return request.param


def test_the_regret_is_the_time_that_the_remote_pool_would_have_saved(algorithm):
    decision = routing.decide(Request(10_000), view(algorithm=algorithm, threshold_tokens=1000))
    if algorithm is Algorithm.FINISH_TIME:
        # 2.5 s of prefill and 10 s for 10 MB: here it is sooner, so that nothing is regretted.
        assert (decision.reason, decision.regret_s) == (Reason.FINISHES_SOONER_LOCAL, None)
    else:
        assert decision.reason is Reason.SHADOW_WOULD_BE_REMOTE
        assert decision.regret_s == pytest.approx(10.0 - 12.5)
    remote = view().remote_prefill[0]
    quick = (replace(remote, link=Link(8e7, KV, price=0.0)),)
    decision = routing.decide(Request(10_000), view(algorithm=algorithm, remote_prefill=quick))
    assert decision.reason is Reason.SHADOW_WOULD_BE_REMOTE
    assert (decision.destination, decision.prefill_worker) == (Destination.LOCAL_PREFILL, "l")
    assert decision.regret_s == pytest.approx(10.0 - 3.5)


def test_queues_backlogs_and_caches_count():
    remote = view().remote_prefill[0]
    link = Link(8e7, KV, backlog_bytes=5e7, price=0.0)
    busy = view(
        local_prefill=replace(view().local_prefill, workers=(Worker("l", 0, 4000, busy_until_s=103.0),)),
        remote_prefill=(replace(remote, workers=(Worker("r", 0, 0, busy_until_s=101.0),), link=link),),
    )
    # Here 3 s of queue and 6 s of work; there 1 s, 2.5 s, and 1.5 s of the backlog that is then left before 1 s of its own.
    assert routing.decide(Request(10_000), busy).regret_s == pytest.approx(9.0 - 6.0)


def test_without_a_local_pool_the_decode_worker_is_compared():
    decision = routing.decide(Request(10_000), view(local_prefill=None))
    assert decision.destination is Destination.DECODE
    assert decision.regret_s == pytest.approx(10.0 - 12.5)


def test_without_a_link_the_curves_are_compared_and_without_curves_nothing(algorithm):
    remote = view().remote_prefill[0]
    no_link = view(algorithm=algorithm, remote_prefill=(replace(remote, link=None),))
    assert routing.decide(Request(10_000), no_link).regret_s == pytest.approx(10.0 - 2.5)
    for changes in (
        {"remote_prefill": (replace(remote, prefill_s=None),)},
        {"local_prefill": replace(view().local_prefill, prefill_s=None)},
    ):
        decision = routing.decide(Request(10_000), view(algorithm=algorithm, **changes))
        assert (decision.reason, decision.regret_s) == (Reason.SHADOW_WOULD_BE_REMOTE, None)


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.LOCAL_ONLY])
def test_only_shadow_mode_has_regrets(algorithm, mode):
    assert routing.decide(Request(10_000), view(algorithm=algorithm, mode=mode)).regret_s is None


def test_what_stays_anyway_is_not_regretted():
    assert routing.decide(Request(900), view()).regret_s is None


@given(
    tokens=st.integers(1, 200_000),
    link_bps=st.floats(1e5, 1e12),
    backlog_bytes=st.floats(0, 1e9),
    local_s=st.floats(90, 200),
    remote_s=st.floats(90, 200),
    push=st.booleans(),
)
def test_finish_time_without_prices_never_regrets_to_have_gone(
    tokens, link_bps, backlog_bytes, local_s, remote_s, push
):
    """Where nothing has a price, it goes remote only where that is sooner; so the regret of not going is above 0, and says
    how much later than the estimate of Enforce the first token comes."""
    remote = Pool(
        "remote",
        (Worker("r", 0, 0, busy_until_s=remote_s),),
        prefill_s=FAST,
        price=0.0,
        link=Link(link_bps, KV, backlog_bytes, price=0.0),
        push=push,
    )
    local = Pool("local", (Worker("l", 0, 0, busy_until_s=local_s),), prefill_s=SLOW, price=0.0)
    seen = view(algorithm=Algorithm.FINISH_TIME, local_prefill=local, remote_prefill=(remote,))
    shadow = routing.decide(Request(tokens), seen)
    enforced = routing.decide(Request(tokens), replace(seen, mode=Mode.ENFORCE))
    if enforced.destination is Destination.REMOTE_PREFILL:
        assert shadow.regret_s is not None
        assert shadow.regret_s > 0
        here_s = max(0.0, local_s - 100.0) + SLOW(tokens)
        assert enforced.first_token_s + shadow.regret_s == pytest.approx(here_s)
    else:
        assert shadow == enforced
