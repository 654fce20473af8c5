"""What a router knows of the work and the KV that it has sent."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from prfaas_core.profiles import Curve
from prfaas_core.routing import Algorithm, Bandwidth, Destination, Mode, Reason
from prfaas_router.accounts import LinkAccount, Transfer
from prfaas_router.configuration import Configuration, Endpoint, Link, Pool
from prfaas_router.fleet import Fleet
from prfaas_router.preparation import Prepared

PREFILL = Curve.through([(1000, 1.0), (10_000, 10.0)])
LINK = Link(8e9, Curve.through([(1000, 1e9), (10_000, 10e9)]), 1.0)


class Clock:
    """A clock that a test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def pool(name: str, *workers: str, link: Link | None = None, push: bool = False) -> Pool:
    endpoints = {worker: Endpoint(worker, ("192.0.2.1", 1), "", "", 5600, worker) for worker in workers}
    return Pool(name, "east", endpoints, "f", 10**6, push, PREFILL, price=1.0, decode_slots=20, link=link)


CONFIGURATION = Configuration(
    version=1, route="ns/chat", model="m", max_model_len_tokens=10_000, bytes_per_token=4.0, block_tokens=64,
    mode=Mode.ENFORCE, bandwidth=Bandwidth.SCARCE, threshold_tokens=5000, decode=pool("decode", "d"),
    local_prefill=pool("local", "l1", "l2"), remote_prefill=(pool("remote", "r", link=LINK),), max_body_bytes=1,
    prefill_timeout_s=1.0, connect_timeout_s=1.0, algorithm=Algorithm.FINISH_TIME, stale_after_s=60.0,
)  # fmt: skip


def prepared(tokens: int = 2000, stream: bool = True) -> Prepared:
    return Prepared({}, tokens, False, (), None, stream)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(clock: Callable[[], float]) -> Fleet:
    fleet = Fleet(clock)
    fleet.configure(CONFIGURATION)
    return fleet


def test_prefill_work_goes_where_there_is_least_of_it(fleet: Fleet, clock: Clock) -> None:
    assert CONFIGURATION.local_prefill is not None
    first = fleet.decide(prepared(), CONFIGURATION)
    assert (first.prefill_worker, first.first_token_s) == ("l1", 2.0)
    with fleet.prefilling(CONFIGURATION.local_prefill, "l1", prepared()) as expected_s:
        assert expected_s == 2.0
        assert fleet.decide(prepared(), CONFIGURATION).prefill_worker == "l2"
        clock.now_s += 1.5
        with fleet.prefilling(CONFIGURATION.local_prefill, "l2", prepared()):
            # 0.5 s are left on l1, 2 s on l2; two seconds across the link cost more than either.
            decision = fleet.decide(prepared(), CONFIGURATION)
            assert (decision.prefill_worker, decision.first_token_s) == ("l1", 2.5)
    # They took 1.5 s where 2 s were expected, which makes the pool a little faster than its profile.
    after = fleet.decide(prepared(), CONFIGURATION).first_token_s
    assert after is not None
    assert 1.5 < after < 2.0


def test_a_pool_that_is_slower_than_its_profile_is_found_out(fleet: Fleet, clock: Clock) -> None:
    local = CONFIGURATION.local_prefill
    assert local is not None
    for _ in range(60):
        with fleet.prefilling(local, "l1", prepared()):
            clock.now_s += 6.0
    assert fleet.view(local, ()).pace == pytest.approx(3.0, rel=0.02)
    with pytest.raises(ValueError, match="broken"), fleet.prefilling(local, "l1", prepared()):
        raise ValueError("broken")
    assert fleet.view(local, ()).pace == pytest.approx(3.0, rel=0.02)


def test_without_the_operator_for_too_long_the_paper_decides(fleet: Fleet, clock: Clock) -> None:
    fleet.contact(False)
    clock.now_s += 59.0
    fleet.contact(False)
    assert fleet.decide(prepared(), CONFIGURATION).reason is Reason.FINISHES_SOONER_LOCAL
    clock.now_s += 2.0
    assert fleet.decide(prepared(), CONFIGURATION).reason is Reason.SIGNALS_STALE_WITHIN_THRESHOLD
    fleet.contact(True)
    assert fleet.decide(prepared(), CONFIGURATION).reason is Reason.FINISHES_SOONER_LOCAL


def test_without_prices_the_paper_decides(fleet: Fleet) -> None:
    remote = replace(CONFIGURATION.remote_prefill[0], price=None)
    decision = fleet.decide(prepared(9000), replace(CONFIGURATION, remote_prefill=(remote,)))
    assert (decision.destination, decision.reason) == (
        Destination.REMOTE_PREFILL,
        Reason.SIGNALS_MISSING_ABOVE_THRESHOLD,
    )


def test_the_link_knows_what_is_on_its_way(fleet: Fleet, clock: Clock) -> None:
    remote = CONFIGURATION.remote_prefill[0]

    def backlog_bytes() -> float:
        link = fleet.view(remote, ()).link
        assert link is not None
        return link.backlog_bytes

    transfer = fleet.transfer(remote, prepared())
    assert transfer is not None
    assert backlog_bytes() == 2e9
    transfer.prefilling(clock(), 2.0)
    clock.now_s += 2.0
    transfer.prefilled(clock())
    clock.now_s += 2.0
    transfer.end(clock(), moved=True)
    transfer.end(clock(), moved=False)
    assert backlog_bytes() == 0
    assert fleet.transfer(CONFIGURATION.decode, prepared()) is None


def test_a_slow_link_is_measured(clock: Clock) -> None:
    account = LinkAccount(LINK)
    for _ in range(12):
        transfer = Transfer(account, 1e9, push=False, seen=True)
        transfer.prefilling(clock(), 1.0)
        transfer.prefilled(clock())
        clock.now_s += 5.0
        transfer.end(clock(), moved=True)
    assert account.meter.capacity_bps(clock()) == pytest.approx(8e9 / 5, rel=0.2)


def test_an_arrival_that_cannot_be_seen_counts_as_long_as_the_link_needs(clock: Clock) -> None:
    account = LinkAccount(LINK)
    transfer = Transfer(account, 3e9, push=False, seen=False)
    transfer.prefilling(clock(), 1.0)
    assert account.backlog_bytes(clock() + 1000) == 3e9
    transfer.prefilled(clock())
    assert account.backlog_bytes(clock() + 2.9) == 3e9
    assert account.backlog_bytes(clock() + 3.1) == 0
    transfer.end(clock() + 50, moved=True)
    assert account.backlog_bytes(clock() + 50) == 0


def test_a_decode_worker_that_absorbs_is_busy_until_its_first_token(fleet: Fleet, clock: Clock) -> None:
    for stream in (True, False):
        ended = fleet.absorbs(CONFIGURATION.decode, "d", prepared(stream=stream))
        (seen,) = fleet.view(CONFIGURATION.decode, ()).workers
        assert seen.busy_until_s == clock() + 2.0
        clock.now_s += 3.0
        ended()
        ended()
        assert seen.busy_until_s <= clock()
        assert seen.pending_s == 0


def test_a_link_is_measured_without_what_a_hand_over_takes(fleet: Fleet, clock: Clock) -> None:
    """Hand-overs within the cluster take half a second; with the link a transfer of 2 GB takes 4.5 s, so that it carries 4 Gbit/s."""
    local = replace(pool("local", "l1", "l2"), decode_slots=0)
    remote = replace(CONFIGURATION.remote_prefill[0], link=replace(LINK, name="west-to-east"))
    fleet.configure(replace(CONFIGURATION, local_prefill=local, remote_prefill=(remote,)))
    assert list(fleet.links()) == []
    for source, elapsed_s in ((local, 0.5), (remote, 4.5), (remote, 4.5)):
        transfer = fleet.transfer(source, prepared(2000))
        assert transfer is not None
        transfer.prefilled(clock.now_s)
        clock.now_s += elapsed_s
        transfer.end(clock.now_s, moved=True)
    ((name, report),) = fleet.links()
    assert (name, report.age_s) == ("west-to-east", 0)
    assert report.moved_bits / report.moving_s == pytest.approx(4e9)


def test_pools_behind_one_link_share_what_is_on_it(fleet: Fleet, clock: Clock) -> None:
    link = replace(LINK, name="west-to-east")
    one, other, apart = (pool("one", "a", link=link), pool("other", "b", link=link), pool("apart", "c", link=LINK))
    fleet.configure(replace(CONFIGURATION, remote_prefill=(one, other, apart)))
    fleet.transfer(one, prepared())
    seen = [fleet.view(found, ()).link for found in (one, other, apart)]
    assert [found.backlog_bytes for found in seen if found is not None] == [2e9, 2e9, 0]
