"""The finish-time policy: what it weighs, how it degrades, and its invariants."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core import routing
from prfaas_core.profiles import Curve
from prfaas_core.routing import Algorithm, Bandwidth, Destination, Link, Mode, Pool, Reason, Request, View, Worker

LOCAL, REMOTE, DECODE = Destination.LOCAL_PREFILL, Destination.REMOTE_PREFILL, Destination.DECODE
SLOW = Curve.through([(1000, 1.0), (10_000, 10.0)])
FAST = Curve.through([(1000, 0.8), (10_000, 3.0)])
KV = Curve.through([(1000, 1e8), (10_000, 1e9)])


def worker(name: str = "w", **changes: object) -> Worker:
    return replace(Worker(name, 0, 0), **changes)  # type: ignore[arg-type]


def view(**changes: object) -> View:
    base = View(
        threshold_tokens=4000,
        mode=Mode.ENFORCE,
        bandwidth=Bandwidth.SCARCE,
        decode=Pool("decode", (worker("d"),), prefill_s=SLOW, price=0.0, slots=20),
        local_prefill=Pool("local", (worker("l"),), prefill_s=SLOW, price=0.0),
        remote_prefill=(Pool("remote", (worker("r"),), prefill_s=FAST, price=0.0, link=Link(1e10, KV, price=0.0)),),
        algorithm=Algorithm.FINISH_TIME,
        absorb=False,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def remote(**changes: object) -> tuple[Pool, ...]:
    return (replace(view().remote_prefill[0], **changes),)  # type: ignore[arg-type]


def local(**changes: object) -> Pool:
    pool = view().local_prefill
    assert pool is not None
    return replace(pool, **changes)  # type: ignore[arg-type]


# 2,000 tokens: 2.0 s here; 1.04 s there and 0.16 s over the link.
CASES = {
    "soonest is remote": (2000, {}, REMOTE, Reason.FINISHES_SOONER_REMOTE, 1.2044),
    "short is the same for both but for the link": (
        1000, {"remote_prefill": remote(prefill_s=SLOW)}, LOCAL, Reason.FINISHES_SOONER_LOCAL, 1.0,
    ),
    "work in front of it": (
        2000, {"remote_prefill": remote(workers=(worker("r", busy_until_s=1.0),))}, LOCAL, Reason.FINISHES_SOONER_LOCAL, 2.0,
    ),
    "work that should be done by now does not count": (
        2000, {"remote_prefill": remote(workers=(worker("r", busy_until_s=9.0),)), "now_s": 9.5},
        REMOTE, Reason.FINISHES_SOONER_REMOTE, 1.2044,
    ),
    "what is on the link already": (
        2000, {"remote_prefill": remote(link=Link(1e10, KV, backlog_bytes=2.5e9, price=0.0))},
        LOCAL, Reason.FINISHES_SOONER_LOCAL, 2.0,
    ),
    "pushed KV overlaps with the prefill": (
        2000, {"remote_prefill": remote(push=True)}, REMOTE, Reason.FINISHES_SOONER_REMOTE, 1.0444,
    ),
    "pushed KV is not there before the link could carry it": (
        2000, {"remote_prefill": remote(push=True, link=Link(1e9, KV, price=0.0))},
        REMOTE, Reason.FINISHES_SOONER_REMOTE, 1.6,
    ),
    "a cached prefix here": (
        8000, {"local_prefill": local(workers=(worker("l", cached_tokens=7000),))}, LOCAL, Reason.FINISHES_SOONER_LOCAL, 1.0,
    ),
    "a slower pool than its profile": (
        2000, {"remote_prefill": remote(pace=2.0)}, LOCAL, Reason.FINISHES_SOONER_LOCAL, 2.0,
    ),
    "the base price of remote work": (
        2000, {"remote_prefill": remote(base_price=1.0)}, LOCAL, Reason.PRICE_LOCAL, 2.0,
    ),
    "the base price of the link": (
        2000, {"remote_prefill": remote(link=Link(1e10, KV, price=0.0, base_price=6.0))}, LOCAL, Reason.PRICE_LOCAL, 2.0,
    ),
    "the price of a backlog": (
        2000, {"remote_prefill": remote(workers=(worker("r", busy_until_s=0.5),), price=1.0)},
        LOCAL, Reason.PRICE_LOCAL, 2.0,
    ),
    "the price of local work": (
        1200, {"remote_prefill": remote(link=Link(1e9, KV, price=0.0)), "local_prefill": local(base_price=1.0)},
        REMOTE, Reason.PRICE_REMOTE, 1.8089,
    ),
    "slots that are full make both sides as late": (
        2000,
        {"decode": replace(view().decode, workers=(worker("d", decoding=20),)), "decode_s": 100.0},
        LOCAL, Reason.FINISHES_SOONER_LOCAL, 5.0,
    ),
    "a decode worker absorbs": (
        1000,
        {"absorb": True, "local_prefill": local(workers=(worker("l", busy_until_s=9.0),)),
         "remote_prefill": remote(workers=(worker("r", busy_until_s=9.0),))},
        DECODE, Reason.FINISHES_SOONER_DECODE, 1.0,
    ),
    "no local worker": (1000, {"local_prefill": local(workers=()), "remote_prefill": remote(prefill_s=SLOW)},
                        DECODE, Reason.LOCAL_PREFILL_UNAVAILABLE, 1.0),
    "no remote worker, short": (1000, {"remote_prefill": remote(workers=())}, LOCAL, Reason.FINISHES_SOONER_LOCAL, 1.0),
    "no remote worker, long": (9000, {"remote_prefill": remote(workers=())}, LOCAL, Reason.REMOTE_UNAVAILABLE, 9.0),
    "shadow": (2000, {"mode": Mode.SHADOW}, LOCAL, Reason.SHADOW_WOULD_BE_REMOTE, None),
    "local only": (2000, {"mode": Mode.LOCAL_ONLY}, LOCAL, Reason.MODE_LOCAL_ONLY, None),
    "no profile, short": (
        2000, {"remote_prefill": remote(prefill_s=None)}, LOCAL, Reason.SIGNALS_MISSING_WITHIN_THRESHOLD, None,
    ),
    "no price, long": (5000, {"remote_prefill": remote(price=None)}, REMOTE, Reason.SIGNALS_MISSING_ABOVE_THRESHOLD, None),
    "no link": (5000, {"remote_prefill": remote(link=None)}, REMOTE, Reason.SIGNALS_MISSING_ABOVE_THRESHOLD, None),
    "stale, short": (
        2000, {"signals_age_s": 61, "stale_after_s": 60}, LOCAL, Reason.SIGNALS_STALE_WITHIN_THRESHOLD, None,
    ),
    "stale, long": (5000, {"signals_age_s": 61, "stale_after_s": 60}, REMOTE, Reason.SIGNALS_STALE_ABOVE_THRESHOLD, None),
    "not yet stale": (2000, {"signals_age_s": 60, "stale_after_s": 60}, REMOTE, Reason.FINISHES_SOONER_REMOTE, 1.2044),
}  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "changes", "destination", "reason", "first_token_s"), CASES.values(), ids=CASES.keys()
)
def test_a_case(
    tokens: int, changes: dict[str, object], destination: Destination, reason: Reason, first_token_s: float | None
) -> None:
    decision = routing.decide(Request(tokens), view(**changes))
    assert (decision.destination, decision.reason) == (destination, reason)
    if first_token_s is None:
        assert decision.first_token_s is None
    else:
        assert decision.first_token_s == pytest.approx(first_token_s, abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{"decoding": 18}, {"busy_until_s": 0.1}, {"usable": False}],
    ids=["few slots left", "prefills already", "set aside"],
)
def test_a_decode_worker_that_cannot_spare_the_time_does_not_absorb(changes: dict[str, object]) -> None:
    busy = {"workers": (worker("x", busy_until_s=50.0),)}
    decode = replace(view().decode, workers=(worker("a", **changes), worker("z", decoding=20)))
    seen = view(absorb=True, decode=decode, local_prefill=local(**busy), remote_prefill=remote(**busy))
    assert routing.decide(Request(1000), seen).destination is not DECODE
    free = replace(seen, decode=replace(decode, workers=(*decode.workers, worker("b"))))
    decision = routing.decide(Request(1000), free)
    assert (decision.destination, decision.decode_worker) == (DECODE, "b")


def test_at_long_queues_the_choice_is_a_length_threshold() -> None:
    """With backlogs in the ratio of the service times at a length, longer prompts go remote and shorter ones stay."""
    at = 5000
    ratio = SLOW(at) / FAST(at)
    seen = view(
        local_prefill=local(workers=(worker("l", busy_until_s=1e5),), price=100.0),
        remote_prefill=remote(workers=(worker("r", busy_until_s=1e5 * ratio),), price=100.0),
    )
    went = [routing.decide(Request(tokens), seen).destination is REMOTE for tokens in range(1000, 10_000, 250)]
    assert went == sorted(went)
    lengths = [tokens for tokens, gone in zip(range(1000, 10_000, 250), went, strict=True) if gone]
    assert lengths[0] == pytest.approx(at, rel=0.15)


WORKERS = st.lists(
    st.builds(
        Worker,
        st.sampled_from("abcdef"),
        st.integers(0, 20),
        st.integers(0, 5000),
        st.booleans(),
        busy_until_s=st.sampled_from([-1.0, 0.0, 1.5, 30.0]),
        decoding=st.integers(0, 25),
    ),
    max_size=5,
    unique_by=lambda item: item.name,
).map(tuple)
POOLS = st.builds(
    Pool,
    st.just("pool"),
    WORKERS,
    prefill_s=st.sampled_from([FAST, SLOW]) | st.none(),
    price=st.sampled_from([0.5, 3.0]) | st.none(),
    base_price=st.sampled_from([0.0, 4.0]),
    link=st.builds(Link, st.sampled_from([1e9, 1e11]), st.just(KV), st.sampled_from([0.0, 1e9]), st.just(1.0)),
    push=st.booleans(),
    slots=st.sampled_from([0, 20]),
)
VIEWS = st.builds(
    View,
    st.integers(0, 5000),
    st.sampled_from(Mode),
    st.sampled_from(Bandwidth),
    POOLS.map(lambda pool: replace(pool, name="decode")),
    st.none() | POOLS.map(lambda pool: replace(pool, name="local")),
    st.lists(POOLS, max_size=3).map(lambda pools: tuple(replace(p, name=f"r{i}") for i, p in enumerate(pools))),
    algorithm=st.just(Algorithm.FINISH_TIME),
    now_s=st.just(1.0),
    absorb=st.booleans(),
)


@given(st.integers(1, 12_000), VIEWS, st.randoms(use_true_random=False))
def test_every_decision_is_usable_and_the_order_does_not_matter(tokens: int, seen: View, random: object) -> None:
    if not seen.decode.usable():
        with pytest.raises(routing.NoDecodeWorkerError):
            routing.decide(Request(tokens), seen)
        return
    decision = routing.decide(Request(tokens), seen)
    pools = {
        pool.name: pool
        for pool in (seen.decode, *((seen.local_prefill,) if seen.local_prefill else ()), *seen.remote_prefill)
    }
    assert decision.decode_worker in {item.name for item in seen.decode.usable()}
    if decision.prefill_pool is not None:
        assert decision.prefill_worker in {item.name for item in pools[decision.prefill_pool].usable()}
    if decision.destination is REMOTE:
        assert seen.mode is Mode.ENFORCE

    def shuffled(pool: Pool) -> Pool:
        return replace(pool, workers=tuple(random.sample(pool.workers, len(pool.workers))))  # type: ignore[attr-defined]

    turned = replace(
        seen,
        decode=shuffled(seen.decode),
        local_prefill=shuffled(seen.local_prefill) if seen.local_prefill else None,
        remote_prefill=tuple(shuffled(pool) for pool in reversed(seen.remote_prefill)),
    )
    assert routing.decide(Request(tokens), turned) == decision


@given(st.integers(1, 12_000), VIEWS)
def test_deciding_changes_nothing(tokens: int, seen: View) -> None:
    before = repr(seen)
    if seen.decode.usable():
        routing.decide(Request(tokens), seen)
    assert repr(seen) == before
