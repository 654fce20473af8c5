"""Pools that are scaled to zero: where their requests go meanwhile, and which of them count as demand."""

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
LINK = Link(1e10, Curve.through([(1000, 1e8), (10_000, 1e9)]), price=0.0)


def remote(name: str = "remote", *workers: Worker) -> Pool:
    return Pool(name, workers, prefill_s=FAST, price=0.0, link=LINK)


def local(*workers: Worker) -> Pool:
    return Pool("local", workers, prefill_s=SLOW, price=0.0)


def view(*asleep: str, **changes: object) -> View:
    base = View(
        threshold_tokens=4000,
        mode=Mode.ENFORCE,
        bandwidth=Bandwidth.SCARCE,
        decode=Pool("decode", (Worker("d", 0, 0),), prefill_s=SLOW, price=0.0, slots=20),
        local_prefill=local(Worker("l", 0, 0)),
        remote_prefill=(remote("remote", Worker("r", 0, 0)),),
        absorb=False,
        asleep=frozenset(asleep),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


NO_LOCAL, NO_REMOTE = {"local_prefill": local()}, {"remote_prefill": (remote(),)}
FINISH = {"algorithm": Algorithm.FINISH_TIME}
EJECTED = Worker("r", 0, 0, usable=False)

CASES = {
    "above the threshold a sleeping remote pool is wanted": (
        5000, view("remote", **NO_REMOTE), LOCAL, Reason.REMOTE_ASLEEP, "remote",
    ),
    "within it, it is not": (1000, view("remote", **NO_REMOTE), LOCAL, Reason.UNCACHED_WITHIN_THRESHOLD, None),
    "a sleeping local pool is wanted": (
        1000, view("local", **NO_LOCAL), DECODE, Reason.LOCAL_PREFILL_ASLEEP, "local",
    ),
    "not by what goes across": (5000, view("local", **NO_LOCAL), REMOTE, Reason.UNCACHED_ABOVE_THRESHOLD, None),
    "with both asleep a long one wants the remote pool": (
        5000, view("local", "remote", **NO_LOCAL, **NO_REMOTE), DECODE, Reason.REMOTE_ASLEEP, "remote",
    ),
    "and a short one the local pool": (
        1000, view("local", "remote", **NO_LOCAL, **NO_REMOTE), DECODE, Reason.LOCAL_PREFILL_ASLEEP, "local",
    ),
    "local only wants no remote pool": (
        5000, view("remote", **NO_REMOTE, mode=Mode.LOCAL_ONLY), LOCAL, Reason.MODE_LOCAL_ONLY, None,
    ),
    "shadow says what it would do, and wakes nothing across the link": (
        5000, view("remote", **NO_REMOTE, mode=Mode.SHADOW), LOCAL, Reason.SHADOW_WOULD_BE_REMOTE, None,
    ),
    "a fault stays one, and the other pool is wanted": (
        5000, view("other", remote_prefill=(remote("other"), remote("remote", EJECTED))),
        LOCAL, Reason.REMOTE_UNAVAILABLE, "other",
    ),
    "a second remote pool is wanted when the first is busy": (
        5000, view("other", remote_prefill=(remote("other"), remote("remote", Worker("r", 3, 0)))),
        REMOTE, Reason.UNCACHED_ABOVE_THRESHOLD, "other",
    ),
    "and is not when the first holds more of the prompt": (
        5000, view("other", remote_prefill=(remote("other"), remote("remote", Worker("r", 0, 512)))),
        REMOTE, Reason.UNCACHED_ABOVE_THRESHOLD, None,
    ),
    "finish_time: a remote pool that would be sooner is wanted, whatever the threshold": (
        2000, view("remote", **NO_REMOTE, **FINISH), LOCAL, Reason.REMOTE_ASLEEP, "remote",
    ),
    "finish_time: one that would not be sooner is not, and is no fault above the threshold": (
        5000, view("remote", remote_prefill=(replace(remote(), prefill_s=SLOW),), **FINISH),
        LOCAL, Reason.FINISHES_SOONER_LOCAL, None,
    ),
    "finish_time: a sleeping local pool is wanted": (
        900, view("local", **NO_LOCAL, **FINISH, remote_prefill=()), DECODE, Reason.LOCAL_PREFILL_ASLEEP, "local",
    ),
    "finish_time: a remote pool does instead of a sleeping local one": (
        2000, view("local", local_prefill=replace(local(), prefill_s=Curve.through([(1000, 0.1), (10_000, 1.0)])), **FINISH),
        REMOTE, Reason.FINISHES_SOONER_REMOTE, "local",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "seen", "destination", "reason", "wanted"), CASES.values(), ids=[name.replace(":", "") for name in CASES]
)
def test_a_case(tokens: int, seen: View, destination: Destination, reason: Reason, wanted: str | None) -> None:
    decision = routing.decide(Request(tokens), seen)
    assert (decision.destination, decision.reason, decision.wanted) == (destination, reason, wanted)


def test_shadow_says_what_an_idle_worker_would_have_been_worth() -> None:
    asleep = routing.decide(Request(5000), view("remote", **NO_REMOTE, mode=Mode.SHADOW))
    awake = routing.decide(Request(5000), view(mode=Mode.SHADOW))
    assert asleep.regret_s == awake.regret_s
    assert asleep.regret_s is not None


def test_while_a_request_waits_for_decode_it_is_known_which_prefill_pool_it_will_want() -> None:
    """So that both wake at the same time, and not one after the other."""
    everything = view("decode", "local", "remote", decode=Pool("decode", (), prefill_s=SLOW), **NO_LOCAL, **NO_REMOTE)
    assert routing.wanted(Request(5000), everything) == "remote"
    assert routing.wanted(Request(1000), everything) == "local"
    assert routing.wanted(Request(5000), view("decode", decode=Pool("decode", (), prefill_s=SLOW))) is None
    with pytest.raises(routing.NoDecodeWorkerError):
        routing.decide(Request(5000), everything)


@given(
    tokens=st.integers(1, 20_000),
    load=st.integers(0, 9),
    cached=st.integers(0, 30).map(lambda blocks: 64 * blocks),
    asleep=st.sets(st.sampled_from(["local", "remote", "other"])),
    algorithm=st.sampled_from(Algorithm),
    mode=st.sampled_from(Mode),
    bandwidth=st.sampled_from(Bandwidth),
    threshold=st.integers(0, 10_000),
)
def test_a_sleeping_pool_changes_nothing_but_the_reason(
    tokens: int, load: int, cached: int, asleep: set[str], algorithm: Algorithm, mode: Mode, bandwidth: Bandwidth,
    threshold: int,
) -> None:  # fmt: skip
    """Requests go where they would without it; and only a sleeping pool is ever wanted."""
    workers = {name: () if name in asleep else (Worker(name, load, cached),) for name in ("local", "remote", "other")}
    seen = view(
        *asleep, local_prefill=local(*workers["local"]), algorithm=algorithm, mode=mode, bandwidth=bandwidth,
        remote_prefill=tuple(remote(name, *workers[name]) for name in ("remote", "other")), threshold_tokens=threshold,
    )  # fmt: skip
    without = replace(
        seen,
        local_prefill=None if "local" in asleep else seen.local_prefill,
        remote_prefill=tuple(pool for pool in seen.remote_prefill if pool.name not in asleep),
        asleep=frozenset(),
    )
    found, expected = routing.decide(Request(tokens), seen), routing.decide(Request(tokens), without)
    same = {"reason": expected.reason, "wanted": None, "regret_s": expected.regret_s}
    assert replace(found, **same) == expected
    assert found.wanted is None or found.wanted in asleep
    assert found.reason.kind is not routing.ReasonKind.FAULT
    assert (found.prefill_pool or "decode") not in asleep
