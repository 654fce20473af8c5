"""Versions of snapshots, and who waits for them."""

import asyncio

import pytest

from prfaas_core.demand import PRESSING_S, Demand
from prfaas_core.traffic import Bucket
from prfaas_operator.configuration.publisher import LEAST_REQUESTS, Publisher, RouterReport
from prfaas_operator.objects import Ref
from prfaas_protocol import configuration_pb2 as pb

ROUTE = Ref("InferenceRoute", "t", "chat")


def snapshot(tokens, version=0):
    return pb.Snapshot(policy=pb.Policy(threshold_tokens=tokens), version=version)


@pytest.fixture
def kept():
    return []


@pytest.fixture
def reported():
    return []


@pytest.fixture
def demanded():
    return []


@pytest.fixture
def publisher(kept, reported, demanded):
    async def keep(_, found):
        kept.append(found.version)

    return Publisher(keep=keep, on_report=reported.append, on_demand=demanded.append)


async def test_only_news_get_a_version(publisher, kept):
    """The same content again is not published; other content gets the next version, and is kept first."""
    assert await publisher.publish(ROUTE, snapshot(1))
    assert not await publisher.publish(ROUTE, snapshot(1))
    assert await publisher.publish(ROUTE, snapshot(2))
    assert await publisher.publish(ROUTE, snapshot(1))
    assert kept == [1, 2, 3]
    assert publisher.version(ROUTE) == 3
    assert publisher.newest(ROUTE).created_unix_ms > 0


async def test_what_cannot_be_kept_is_not_published(reported):
    """A snapshot that the hub did not store would be forgotten by a restart; no router sees it."""

    async def fail(*_):
        raise OSError("the hub is away")

    publisher = Publisher(keep=fail, on_report=reported.append)
    with pytest.raises(OSError, match="away"):
        await publisher.publish(ROUTE, snapshot(1))
    assert publisher.newest(ROUTE) is None


@pytest.mark.parametrize(
    ("kept_version", "status_version", "next_version"), [(7, 7, 8), (7, 9, 10), (None, 9, 10), (None, 0, 1)]
)
async def test_versions_go_on_after_a_restart(publisher, kept_version, status_version, next_version):
    """Whatever remembers a version, the next is above it."""
    kept = snapshot(1, kept_version) if kept_version is not None else None
    publisher.restore(ROUTE, kept, status_version, ())
    await publisher.publish(ROUTE, snapshot(2))
    assert publisher.version(ROUTE) == next_version


async def test_an_unchanged_configuration_keeps_its_version(publisher):
    """A restart alone is no news."""
    publisher.restore(ROUTE, snapshot(1, 7), 7, ())
    assert not await publisher.publish(ROUTE, snapshot(1))
    assert publisher.version(ROUTE) == 7


async def test_a_router_ahead_lifts_the_version(publisher):
    """Content that did not change is published again, above what a router has from another life of the hub."""
    await publisher.publish(ROUTE, snapshot(1))
    with publisher.subscribe(ROUTE, RouterReport("r", "east", 500)):
        assert await publisher.publish(ROUTE, snapshot(1))
    assert publisher.version(ROUTE) == 501


async def test_a_slow_router_finds_the_newest(publisher):
    """Several changes while a router is busy wake it once."""
    with publisher.subscribe(ROUTE, RouterReport("r", "east", 0)) as subscription:
        await subscription.changed()
        for tokens in range(5):
            await publisher.publish(ROUTE, snapshot(tokens))
        await subscription.changed()
        assert publisher.newest(ROUTE).policy.threshold_tokens == 4
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await subscription.changed()


async def test_reports(publisher, reported):
    """What each connected router said last, by name; it goes with the stream."""
    with publisher.subscribe(ROUTE, RouterReport("b", "east", 0)) as b:
        with publisher.subscribe(ROUTE, RouterReport("a", "east", 1)) as a:
            publisher.acknowledged(ROUTE, a, 2)
            publisher.refused(ROUTE, b, 2, "no")
            assert publisher.reports(ROUTE) == (RouterReport("a", "east", 2), RouterReport("b", "east", 0, 2, "no"))
        assert [report.name for report in publisher.reports(ROUTE)] == ["b"]
    assert publisher.reports(ROUTE) == ()
    assert set(reported) == {ROUTE}
    assert len(reported) == 6


async def test_routers_are_remembered_over_a_restart(publisher):
    """Until they have had time to come back, what they said last still counts."""
    publisher.restore(ROUTE, snapshot(1, 7), 7, [RouterReport("a", "east", 7), RouterReport("b", "east", 7)])
    assert [report.name for report in publisher.reports(ROUTE)] == ["a", "b"]
    with publisher.subscribe(ROUTE, RouterReport("a", "east", 7)):
        pass
    assert [report.name for report in publisher.reports(ROUTE)] == ["b"]


async def test_forgetting_a_route_closes_its_streams(publisher):
    """Each router of a deleted route is woken to be told."""
    with publisher.subscribe(ROUTE, RouterReport("r", "east", 0)) as subscription:
        publisher.forget(ROUTE)
        await subscription.changed()
        assert subscription.closed


async def test_the_traffic_of_all_routers_counts_and_stays_when_it_ebbs(publisher, reported):
    """The first report that makes a distribution is heard at once; an idle hour does not take it away."""
    half = (Bucket(10, LEAST_REQUESTS / 2, 100 * LEAST_REQUESTS / 2),)
    with (
        publisher.subscribe(ROUTE, RouterReport("a", "east", 0)) as first,
        publisher.subscribe(ROUTE, RouterReport("b", "east", 0)) as second,
    ):
        reported.clear()
        publisher.saw(ROUTE, first, half)
        assert publisher.traffic(ROUTE) is None
        assert reported == []
        publisher.saw(ROUTE, second, half)
        assert reported == [ROUTE]
        assert publisher.traffic(ROUTE).lengths.mean == pytest.approx(100)
        publisher.saw(ROUTE, first, ())
        publisher.saw(ROUTE, second, (Bucket(10, 1.0, 300.0),))
        assert publisher.traffic(ROUTE).lengths.mean == pytest.approx(100)
        assert reported == [ROUTE]


DECODE, PREFILL = Ref("DecodePool", "t", "big"), Ref("PrefillPool", "t", "big")
NOBODY, SOMEBODY = Demand(), Demand(waiting=2, wanted_rps=0.5, since_last_s=0.0)


def with_pools(*workers, decode="big", prefill="far", namespace="t"):
    """A snapshot whose decode pool has these workers, and whose prefill pool has none."""
    return pb.Snapshot(
        route_namespace=namespace, decode=pb.Pool(name=decode, endpoints=[pb.Endpoint(name=name) for name in workers]),
        remote_prefill=[pb.RemotePool(pool=pb.Pool(name=prefill))],
    )  # fmt: skip


async def test_demand_is_unknown_until_a_router_says_something(publisher):
    """No router is not no demand, and a router that was just connected says nothing either."""
    assert publisher.demand(DECODE) is None
    await publisher.publish(ROUTE, with_pools())
    assert publisher.demand(DECODE) is None
    with publisher.subscribe(ROUTE, RouterReport("a", "east", 0)) as subscription:
        assert publisher.demand(DECODE) is None
        publisher.saw_demand(ROUTE, subscription, {DECODE: NOBODY})
        assert publisher.demand(DECODE) == NOBODY
    assert publisher.demand(DECODE) is None


async def test_demand_adds_up_over_routers_and_routes(publisher):
    """A pool may serve several routes; pools of the other kind or of other namespaces may have the same name."""
    second, foreign = Ref("InferenceRoute", "t", "batch"), Ref("InferenceRoute", "other", "chat")
    await publisher.publish(ROUTE, with_pools())
    await publisher.publish(second, with_pools(decode="small", prefill="big"))
    await publisher.publish(foreign, with_pools(namespace="other"))
    with (
        publisher.subscribe(ROUTE, RouterReport("a", "east", 0)) as a,
        publisher.subscribe(ROUTE, RouterReport("b", "east", 0)) as b,
        publisher.subscribe(second, RouterReport("c", "east", 0)) as c,
        publisher.subscribe(foreign, RouterReport("d", "east", 0)) as d,
    ):
        publisher.saw_demand(ROUTE, a, {DECODE: SOMEBODY})
        publisher.saw_demand(ROUTE, b, {DECODE: Demand(1, 1.0, 0.0)})
        publisher.saw_demand(second, c, {PREFILL: Demand(0, 4.0, 3.0)})
        publisher.saw_demand(foreign, d, {Ref("DecodePool", "other", "big"): Demand(100, 100.0, 0.0)})
        found = publisher.demand(DECODE)
        assert (found.waiting, found.since_last_s) == (3, 0.0)
        assert found.wanted_rps == pytest.approx(1.5, rel=0.01)
        prefill = publisher.demand(PREFILL)
        assert (prefill.waiting, prefill.wanted_rps) == (0, pytest.approx(4.0, rel=0.01))
        assert prefill.since_last_s == pytest.approx(3.0, abs=1.0)


async def test_a_stream_that_ends_takes_its_demand_along(publisher):
    """What a router wanted that is gone is not wanted any more."""
    await publisher.publish(ROUTE, with_pools())
    with publisher.subscribe(ROUTE, RouterReport("a", "east", 0)) as stays:
        publisher.saw_demand(ROUTE, stays, {DECODE: NOBODY})
        with publisher.subscribe(ROUTE, RouterReport("b", "east", 0)) as goes:
            publisher.saw_demand(ROUTE, goes, {DECODE: SOMEBODY})
            assert publisher.demand(DECODE).waiting == 2
        assert publisher.demand(DECODE) == NOBODY


async def test_a_router_that_came_back_counts_once(publisher):
    """After a cut the new stream may be there before the old one is noticed to be dead."""
    await publisher.publish(ROUTE, with_pools())
    with (
        publisher.subscribe(ROUTE, RouterReport("a", "east", 0)) as old,
        publisher.subscribe(ROUTE, RouterReport("a", "east", 0)) as new,
    ):
        publisher.saw_demand(ROUTE, old, {DECODE: SOMEBODY})
        assert publisher.demand(DECODE).waiting == 2
        publisher.saw_demand(ROUTE, new, {DECODE: Demand(3, 0.5, 0.0)})
        assert publisher.demand(DECODE).waiting == 3


async def test_a_route_without_routers_leaves_it_open_unless_another_wants_the_pool(publisher):
    """So that a pool which somebody may want neither sleeps in, nor sleeps on while somebody wants it."""
    await publisher.publish(ROUTE, with_pools())
    await publisher.publish(Ref("InferenceRoute", "t", "batch"), with_pools())
    with publisher.subscribe(ROUTE, RouterReport("a", "east", 0)) as subscription:
        publisher.saw_demand(ROUTE, subscription, {DECODE: Demand(0, 0.1, PRESSING_S + 60)})
        assert publisher.demand(DECODE) is None
        publisher.saw_demand(ROUTE, subscription, {DECODE: SOMEBODY})
        assert publisher.demand(DECODE).waiting == 2


async def test_demand_for_a_pool_without_workers_is_heard_once(publisher, demanded):
    """It is for the autoscaler to look now; every report of the same demand would make it look all the time."""
    await publisher.publish(ROUTE, with_pools())
    far = Ref("PrefillPool", "t", "far")
    with publisher.subscribe(ROUTE, RouterReport("a", "east", 0)) as subscription:
        publisher.saw_demand(ROUTE, subscription, {DECODE: NOBODY, far: NOBODY})
        assert demanded == []
        publisher.saw_demand(ROUTE, subscription, {DECODE: SOMEBODY, far: NOBODY})
        publisher.saw_demand(ROUTE, subscription, {DECODE: SOMEBODY, far: Demand(0, 0.1, 0.0)})
        assert demanded == [DECODE, far]
        await publisher.publish(ROUTE, with_pools("w1"))
        publisher.saw_demand(ROUTE, subscription, {DECODE: SOMEBODY})
        assert demanded == [DECODE, far]
        await publisher.publish(ROUTE, with_pools())
        publisher.saw_demand(
            ROUTE, subscription, {DECODE: SOMEBODY, Ref("DecodePool", "t", "of another route"): SOMEBODY}
        )
        assert demanded == [DECODE, far, DECODE]
