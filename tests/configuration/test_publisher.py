"""Versions of snapshots, and who waits for them."""

import asyncio

import pytest

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
def publisher(kept, reported):
    async def keep(_, found):
        kept.append(found.version)

    return Publisher(keep=keep, on_report=reported.append)


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
