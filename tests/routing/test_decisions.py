"""The per-request decision: the paper's rule, its edges, and its invariants."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core import routing
from prfaas_core.routing import Bandwidth, Destination, Mode, Pool, Reason, Request, View, Worker


def worker(name: str = "w", load: int = 0, cached: int = 0, usable: bool = True) -> Worker:
    return Worker(name, load, cached, usable)


def view(**changes: object) -> View:
    base = View(
        threshold_tokens=1000,
        mode=Mode.ENFORCE,
        bandwidth=Bandwidth.SCARCE,
        decode=Pool("decode", (worker("d"),)),
        local_prefill=Pool("local", (worker("l"),)),
        remote_prefill=(Pool("remote", (worker("r"),)),),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


LOCAL, REMOTE, DECODE = Destination.LOCAL_PREFILL, Destination.REMOTE_PREFILL, Destination.DECODE

CASES = {
    "at the threshold it stays": (1000, {}, LOCAL, Reason.UNCACHED_WITHIN_THRESHOLD),
    "above the threshold it goes": (1001, {}, REMOTE, Reason.UNCACHED_ABOVE_THRESHOLD),
    "a local hit keeps it": (
        1500, {"local_prefill": Pool("local", (worker("l", cached=500),))}, LOCAL, Reason.UNCACHED_WITHIN_THRESHOLD,
    ),
    "scarce: a remote hit does not count": (
        1500, {"remote_prefill": (Pool("remote", (worker("r", cached=1500),)),)}, REMOTE, Reason.UNCACHED_ABOVE_THRESHOLD,
    ),
    "abundant: a remote hit counts": (
        1500,
        {"bandwidth": Bandwidth.ABUNDANT, "remote_prefill": (Pool("remote", (worker("r", cached=1500),)),)},
        LOCAL,
        Reason.UNCACHED_WITHIN_THRESHOLD,
    ),
    "local only": (9999, {"mode": Mode.LOCAL_ONLY}, LOCAL, Reason.MODE_LOCAL_ONLY),
    "shadow records and stays": (9999, {"mode": Mode.SHADOW}, LOCAL, Reason.SHADOW_WOULD_BE_REMOTE),
    "shadow below the threshold": (10, {"mode": Mode.SHADOW}, LOCAL, Reason.UNCACHED_WITHIN_THRESHOLD),
    "no remote pool": (9999, {"remote_prefill": ()}, LOCAL, Reason.NO_REMOTE_POOL),
    "remote pool without workers": (9999, {"remote_prefill": (Pool("remote", ()),)}, LOCAL, Reason.REMOTE_UNAVAILABLE),
    "remote workers set aside": (
        9999, {"remote_prefill": (Pool("remote", (worker("r", usable=False),)),)}, LOCAL, Reason.REMOTE_UNAVAILABLE,
    ),
    "no local pool: decode prefills short prompts": (
        10, {"local_prefill": None}, DECODE, Reason.UNCACHED_WITHIN_THRESHOLD,
    ),
    "local pool without workers": (
        10, {"local_prefill": Pool("local", ())}, DECODE, Reason.LOCAL_PREFILL_UNAVAILABLE,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tokens", "changes", "destination", "reason"), CASES.values(), ids=CASES.keys())
def test_a_case(tokens: int, changes: dict[str, object], destination: Destination, reason: Reason) -> None:
    decision = routing.decide(Request(tokens), view(**changes))
    assert (decision.destination, decision.reason) == (destination, reason)


@pytest.mark.parametrize("trait", [reason for reason in Reason if reason.kind is routing.ReasonKind.REQUEST])
def test_a_request_that_cannot_be_split_stays_on_the_decode_worker(trait: Reason) -> None:
    decision = routing.decide(Request(9999, ineligible=trait), view())
    assert (decision.destination, decision.reason, decision.prefill_worker) == (DECODE, trait, None)


def test_without_a_decode_worker_there_is_no_decision() -> None:
    with pytest.raises(routing.NoDecodeWorkerError, match="decode pool decode"):
        routing.decide(Request(1), view(decode=Pool("decode", (worker("d", usable=False),))))


def test_a_cache_affine_worker_is_taken_until_it_is_much_busier() -> None:
    slack = routing.AFFINITY_SLACK
    for load, expected in ((slack, "warm"), (slack + 1, "cold")):
        pool = Pool("p", (worker("cold", load=0), worker("warm", load=load, cached=512)))
        chosen = routing.choose_worker(pool)
        assert chosen is not None
        assert chosen.name == expected


def test_excluded_workers_are_not_taken() -> None:
    pool = Pool("p", (worker("a"), worker("b", load=9)))
    chosen = routing.choose_worker(pool, exclude=frozenset({"a"}))
    assert chosen is not None
    assert chosen.name == "b"
    assert routing.choose_worker(pool, exclude=frozenset({"a", "b"})) is None


def test_of_several_remote_pools_the_least_loaded_is_taken_when_the_link_is_scarce() -> None:
    pools = (Pool("x", (worker("x1", load=3, cached=900),)), Pool("y", (worker("y1", load=1),)))
    scarce = routing.decide(Request(9999), view(remote_prefill=pools))
    abundant = routing.decide(Request(9999), view(remote_prefill=pools, bandwidth=Bandwidth.ABUNDANT))
    assert (scarce.prefill_pool, abundant.prefill_pool) == ("y", "x")


WORKERS = st.lists(
    st.builds(Worker, st.sampled_from("abcdef"), st.integers(0, 20), st.integers(0, 5000), st.booleans()),
    max_size=5,
    unique_by=lambda item: item.name,
).map(tuple)
VIEWS = st.builds(
    View,
    st.integers(0, 5000),
    st.sampled_from(Mode),
    st.sampled_from(Bandwidth),
    WORKERS.map(lambda workers: Pool("decode", workers)),
    st.none() | WORKERS.map(lambda workers: Pool("local", workers)),
    st.lists(st.builds(Pool, st.sampled_from("xyz"), WORKERS), max_size=3, unique_by=lambda pool: pool.name).map(tuple),
)
REQUESTS = st.builds(
    Request,
    st.integers(0, 10_000),
    st.none() | st.sampled_from([reason for reason in Reason if reason.kind is routing.ReasonKind.REQUEST]),
)


@given(REQUESTS, VIEWS)
def test_every_decision_names_usable_workers_and_a_fitting_reason(request: Request, seen: View) -> None:
    if not seen.decode.usable():
        with pytest.raises(routing.NoDecodeWorkerError):
            routing.decide(request, seen)
        return
    decision = routing.decide(request, seen)
    assert decision.decode_worker in {item.name for item in seen.decode.usable()}
    pools = {Destination.LOCAL_PREFILL: [seen.local_prefill] if seen.local_prefill else [],
             Destination.REMOTE_PREFILL: list(seen.remote_prefill)}  # fmt: skip
    if decision.destination is DECODE:
        assert decision.prefill_pool is None
        assert decision.prefill_worker is None
    else:
        (pool,) = [item for item in pools[decision.destination] if item.name == decision.prefill_pool]
        assert decision.prefill_worker in {item.name for item in pool.usable()}
    if decision.destination is REMOTE:
        assert request.ineligible is None
        assert seen.mode is Mode.ENFORCE
        assert decision.uncached_tokens > seen.threshold_tokens
        assert decision.reason is Reason.UNCACHED_ABOVE_THRESHOLD
    assert 0 <= decision.uncached_tokens <= request.total_tokens


@given(REQUESTS, VIEWS, st.randoms(use_true_random=False))
def test_the_order_of_pools_and_workers_does_not_matter(request: Request, seen: View, random: object) -> None:
    def shuffled(pool: Pool) -> Pool:
        return replace(pool, workers=tuple(random.sample(pool.workers, len(pool.workers))))  # type: ignore[attr-defined]

    other = replace(
        seen,
        decode=shuffled(seen.decode),
        local_prefill=shuffled(seen.local_prefill) if seen.local_prefill else None,
        remote_prefill=tuple(shuffled(pool) for pool in reversed(seen.remote_prefill)),
    )
    if seen.decode.usable():
        assert routing.decide(request, seen) == routing.decide(request, other)
