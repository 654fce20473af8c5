"""Versions of each route's snapshot, and the routers that wait for them.

A snapshot gets a version only when it says something new. It is kept on the hub before any router sees it, so that after a
restart the operator goes on from the version and the content it had; versions never go back. A router that is slow finds
the newest snapshot when it looks again, and never a queue of old ones.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import structlog

from prfaas_core.demand import Demand, total
from prfaas_core.link_capacity import LinkReport
from prfaas_core.traffic import Bucket, Traffic, combine
from prfaas_operator import api
from prfaas_operator.configuration.snapshot import digest, pools
from prfaas_operator.objects import Ref
from prfaas_protocol import configuration_pb2 as pb

_log = structlog.get_logger(__name__)

# The greatest integer that survives JSON, in which the API server keeps versions.
MAX_VERSION = 2**53
# Routers that lost their stream come back within ten seconds.
REMEMBER_S = 20.0
# So many requests, decayed, make a distribution; with fewer the prior is nearer to the truth.
LEAST_REQUESTS = 50.0


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What one connected router said last."""

    name: str
    cluster: str
    version: int  # that it serves; 0: none
    refused_version: int = 0
    refusal: str = ""


class Subscription:
    """One router's place in the stream."""

    def __init__(self, report: RouterReport) -> None:
        self.report = report
        self.traffic: tuple[Bucket, ...] = ()
        self.links: Mapping[str, LinkReport] = {}
        self.links_at_s = 0.0
        self.demand: Mapping[Ref, Demand] = {}
        self.demand_at_s = 0.0
        self.demanded: frozenset[Ref] = frozenset()  # pools without workers for which that was passed on
        self.closed = False  # the route is gone
        self._changed = asyncio.Event()

    def wake(self) -> None:
        self._changed.set()

    async def changed(self) -> None:
        """Return when there may be something new."""
        await self._changed.wait()
        self._changed.clear()


@dataclass(slots=True)
class _Publication:
    snapshot: pb.Snapshot | None = None
    digest: str = ""
    restored: bool = False
    floor: int = 0  # versions up to this one were seen somewhere
    subscriptions: list[Subscription] = field(default_factory=list)
    remembered: dict[str, RouterReport] = field(default_factory=dict)
    remembered_until_s: float = 0.0
    traffic: Traffic | None = None


# Keeps a snapshot on the hub.
Keep = Callable[[Ref, pb.Snapshot], Awaitable[None]]


class Publisher:
    """The newest snapshot of every route, and its routers.

    Args:
        keep: keeps a snapshot on the hub.
        on_report: hears of a route whose routers say something new.
        on_demand: hears of a pool without workers when requests of a router begin to want it.
    """

    def __init__(
        self, *, keep: Keep, on_report: Callable[[Ref], None], on_demand: Callable[[Ref], None] = lambda _pool: None
    ) -> None:
        self._keep = keep
        self._on_report = on_report
        self._on_demand = on_demand
        self._routes: dict[Ref, _Publication] = {}

    def restore(self, route: Ref, snapshot: pb.Snapshot | None, version: int, reports: Iterable[RouterReport]) -> None:
        """Go on from what was kept: the last snapshot, a version that was published, and what routers said of it.

        Those routers are about to come back. Until they have had the time, what they said last still counts.
        """
        publication = self._routes.setdefault(route, _Publication())
        if not publication.restored:
            publication.restored = True
            connected = {subscription.report.name for subscription in publication.subscriptions}
            publication.remembered = {report.name: report for report in reports if report.name not in connected}
            publication.remembered_until_s = time.monotonic() + REMEMBER_S
        publication.floor = max(publication.floor, version, snapshot.version if snapshot else 0)
        if snapshot is not None and publication.snapshot is None:
            publication.snapshot, publication.digest = snapshot, digest(snapshot)
            self._wake(publication)

    def restored(self, route: Ref) -> bool:
        publication = self._routes.get(route)
        return publication is not None and publication.restored

    def newest(self, route: Ref) -> pb.Snapshot | None:
        publication = self._routes.get(route)
        return publication.snapshot if publication else None

    def version(self, route: Ref) -> int:
        snapshot = self.newest(route)
        return snapshot.version if snapshot is not None else 0

    async def publish(self, route: Ref, snapshot: pb.Snapshot) -> bool:
        """Publish a snapshot if it says something new; return whether it did."""
        publication = self._routes.setdefault(route, _Publication())
        content = digest(snapshot)
        current = publication.snapshot
        if current is not None and content == publication.digest and current.version >= publication.floor:
            return False
        published = pb.Snapshot()
        published.CopyFrom(snapshot)
        published.version = max(publication.floor, current.version if current is not None else 0) + 1
        published.created_unix_ms = int(time.time() * 1000)
        await self._keep(route, published)
        publication.snapshot, publication.digest = published, content
        self._wake(publication)
        _log.info(
            "configuration published", route=str(route), version=published.version,
            threshold_tokens=published.policy.threshold_tokens, routers=len(publication.subscriptions),
        )  # fmt: skip
        return True

    def forget(self, route: Ref) -> None:
        """Drop a route that was deleted; its streams end."""
        publication = self._routes.pop(route, None)
        if publication is not None:
            for subscription in publication.subscriptions:
                subscription.closed = True
            self._wake(publication)

    def reports(self, route: Ref) -> tuple[RouterReport, ...]:
        """Return what the connected routers of a route said, by name."""
        publication = self._routes.get(route)
        if publication is None:
            return ()
        # After a cut the new stream may be there before the old one is noticed to be dead; the newer one counts.
        remembered = publication.remembered if time.monotonic() < publication.remembered_until_s else {}
        by_name = remembered | {
            subscription.report.name: subscription.report for subscription in publication.subscriptions
        }
        return tuple(by_name[name] for name in sorted(by_name))

    def traffic(self, route: Ref) -> Traffic | None:
        """Return what the connected routers of a route saw lately; None when it is, and always was, too little to go by.

        When nobody asks any more, what was seen last stays.
        """
        publication = self._routes.get(route)
        if publication is None:
            return None
        publication.traffic = self.traffic_now(route) or publication.traffic
        return publication.traffic

    def traffic_now(self, route: Ref) -> Traffic | None:
        """Return what the connected routers of a route saw lately; None when it is too little to go by."""
        publication = self._routes.get(route)
        if publication is None:
            return None
        return combine((subscription.traffic for subscription in publication.subscriptions), LEAST_REQUESTS)

    @contextmanager
    def subscribe(self, route: Ref, report: RouterReport) -> Iterator[Subscription]:
        """Give a router its place for as long as its stream lasts."""
        publication = self._routes.setdefault(route, _Publication())
        subscription = Subscription(report)
        publication.subscriptions.append(subscription)
        publication.remembered.pop(report.name, None)
        if report.version > publication.floor:
            # The route was deleted and made again, or the hub was restored from a backup. The router ignores whatever is
            # not above what it has, so versions go on from there.
            publication.floor = report.version
        subscription.wake()
        self._on_report(route)
        try:
            yield subscription
        finally:
            publication.subscriptions.remove(subscription)
            self._on_report(route)

    def saw(self, route: Ref, subscription: Subscription, buckets: tuple[Bucket, ...]) -> None:
        """Take a router's report of its traffic. The first that makes a distribution is looked at without delay."""
        unknown = self.traffic(route) is None
        subscription.traffic = buckets
        if unknown and self.traffic(route) is not None:
            self._on_report(route)

    def saw_links(self, subscription: Subscription, links: Mapping[str, LinkReport]) -> None:
        """Take a router's report of the links that its transfers cross."""
        subscription.links, subscription.links_at_s = links, time.monotonic()

    def link_reports(self, link: Ref) -> Iterator[LinkReport]:
        """Yield what the connected routers say about a link; routes of other namespaces have no say in it."""
        now_s = time.monotonic()
        for route, publication in self._routes.items():
            for subscription in publication.subscriptions if route.namespace == link.namespace else ():
                report = subscription.links.get(link.name)
                if report is not None:
                    yield replace(report, age_s=report.age_s + now_s - subscription.links_at_s)

    def saw_demand(self, route: Ref, subscription: Subscription, demand: Mapping[Ref, Demand]) -> None:
        """Take a router's report of how much its requests want each pool."""
        subscription.demand, subscription.demand_at_s = demand, time.monotonic()
        snapshot = self.newest(route)
        known = dict(_named(snapshot)) if snapshot is not None else {}
        wanted = frozenset(
            pool for pool, found in demand.items() if found.pressing and pool in known and not known[pool].endpoints
        )
        fresh, subscription.demanded = wanted - subscription.demanded, wanted
        for pool in sorted(fresh, key=str):
            self._on_demand(pool)

    def demand(self, pool: Ref) -> Demand | None:
        """Return how much requests want a pool, over the routers of all routes that name it.

        None is not zero: nobody is known to want the pool, and of one of its routes no router has said anything.
        """
        now_s = time.monotonic()
        reports: list[Demand] = []
        silent = False
        for route, publication in self._routes.items():
            if route.namespace != pool.namespace or publication.snapshot is None:
                continue
            if pool not in dict(_named(publication.snapshot)):
                continue
            # After a cut the new stream may be there before the old one is noticed to be dead; the newer one counts.
            said = {
                subscription.report.name: subscription.demand[pool].aged(now_s - subscription.demand_at_s)
                for subscription in publication.subscriptions
                if pool in subscription.demand
            }
            silent = silent or not said
            reports += said.values()
        found = total(reports)
        return found if found.pressing or (reports and not silent) else None

    def acknowledged(self, route: Ref, subscription: Subscription, version: int) -> None:
        report = subscription.report
        subscription.report = RouterReport(report.name, report.cluster, version)
        self._on_report(route)

    def refused(self, route: Ref, subscription: Subscription, version: int, reason: str) -> None:
        report = subscription.report
        subscription.report = RouterReport(report.name, report.cluster, report.version, version, reason)
        self._on_report(route)

    @staticmethod
    def _wake(publication: _Publication) -> None:
        for subscription in publication.subscriptions:
            subscription.wake()


def _named(snapshot: pb.Snapshot) -> Iterator[tuple[Ref, pb.Pool]]:
    """Yield the pools of a snapshot by what they are called on the hub."""
    decode, *prefill = pools(snapshot)
    yield Ref(api.DecodePool.__name__, snapshot.route_namespace, decode.name), decode
    for pool in prefill:
        yield Ref(api.PrefillPool.__name__, snapshot.route_namespace, pool.name), pool
