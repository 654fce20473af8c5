"""What each link is believed to carry, from the reports of all routers that use it."""

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from prfaas_core.link_capacity import Belief, LinkReport, LinkState, believe, combine
from prfaas_operator import api
from prfaas_operator.objects import Ref

_log = structlog.get_logger(__name__)

_REVIEW_S = 2.0


def nominal_bps(link: api.KVLink) -> float:
    """Return what PrfaaS may send over a link by its spec."""
    return link.spec.capacity_gbps * 1e9 * link.spec.share


class LinkCapacities:
    """Keeps a belief for each KVLink; `on_change` hears of links that are to be planned with otherwise.

    A new operator starts from the status of the link, until routers have come back.
    """

    def __init__(
        self,
        *,
        links: Callable[[], Iterable[tuple[Ref, api.KVLink]]],
        reports: Callable[[Ref], Iterable[LinkReport]],
        on_change: Callable[[Ref], None],
    ) -> None:
        self._links = links
        self._reports = reports
        self._on_change = on_change
        self._beliefs: dict[Ref, Belief] = {}

    async def run(self) -> None:
        """Look at all links again and again until cancelled: what is not heard of is held, and then probed."""
        while True:
            links = dict(self._links())
            for gone in self._beliefs.keys() - links.keys():
                del self._beliefs[gone]
            for ref, link in links.items():
                self.review(ref, link)
            await asyncio.sleep(_REVIEW_S)

    def believed(self, ref: Ref, link: api.KVLink) -> Belief:
        """Return the belief of a link, with what its spec says now."""
        before, nominal = self._beliefs.get(ref) or _restored(link), nominal_bps(link)
        if before is None:
            return believe(None, None, nominal, time.monotonic())
        trusted = before.state in (LinkState.UNMEASURED, LinkState.NOMINAL)
        bps = nominal if trusted else min(before.bps, nominal)
        return Belief(before.state, bps, before.measured_bps, before.changed_s)

    def review(self, ref: Ref, link: api.KVLink) -> None:
        """Take what routers reported since the last time."""
        before = self._beliefs.get(ref) or _restored(link)
        after = believe(before, combine(self._reports(ref)), nominal_bps(link), time.monotonic())
        self._beliefs[ref] = after
        known = (LinkState.UNMEASURED, nominal_bps(link)) if before is None else (before.state, before.bps)
        if (after.state, after.bps) != known:
            _log.info(
                "link is planned with otherwise", link=str(ref), state=after.state, usable_bps=round(after.bps),
                measured_bps=None if after.measured_bps is None else round(after.measured_bps),
            )  # fmt: skip
            self._on_change(ref)


def _restored(link: api.KVLink) -> Belief | None:
    found = link.status.capacity
    if found is None or found.state in (LinkState.UNMEASURED, LinkState.NOMINAL) or found.usable_bps <= 0:
        return None
    return Belief(LinkState.HELD, found.usable_bps, found.measured_bps, time.monotonic())
