"""One member cluster while the operator knows it: its client, its probe, and the cache that its watches fill.

A member that falls silent keeps its cache; what was true last stays readable, and `health` says since when it is not fresh.
Each member has tasks of its own, so that one that hangs costs the others nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import structlog

from prfaas_operator.api.conditions import Reason
from prfaas_operator.clusters.api import ApiError, ClusterApi
from prfaas_operator.clusters.cache import ObjectCache
from prfaas_operator.clusters.credentials import KubeconfigError, SecretMissingError
from prfaas_operator.clusters.resources import WATCHED, Resource
from prfaas_operator.clusters.watch import Watch, WatchTimes

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """A client and the digest of the credentials that it was made of."""

    api: ClusterApi
    digest: str
    shared: bool  # the hub's own client, which outlives the member


@dataclass(frozen=True, slots=True)
class Health:
    """What the last probe of a member found."""

    reachable: bool | None  # None: not probed yet
    reason: Reason
    message: str
    version: str = ""
    probed_at: datetime | None = None
    reached_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MemberTimes:
    """Rhythm and patience towards members, seconds."""

    probe_s: float = 5.0
    call_s: float = 5.0
    settle_s: float = 15.0
    watch: WatchTimes = field(default_factory=WatchTimes)


# Reads the credentials and connects when their digest is not the one given; None: nothing has changed.
Connect = Callable[[str | None], Awaitable[Connection | None]]


class Member:
    """Keeps contact with one cluster in one namespace."""

    def __init__(
        self,
        name: str,
        namespace: str,
        *,
        connect: Connect,
        cache: ObjectCache,
        on_health: Callable[["Member"], None],
        label_selector: str,
        times: MemberTimes,
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.cache = cache
        self.health = Health(None, Reason.PENDING, "the cluster has not been probed yet")
        self._connect = connect
        self._on_health = on_health
        self._label_selector = label_selector
        self._times = times
        self._connection: Connection | None = None
        self._watches: list[asyncio.Task[None]] = []
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._started_s = time.monotonic()

    @property
    def api(self) -> ClusterApi | None:
        """The client, once credentials have been found."""
        return self._connection.api if self._connection else None

    @property
    def listed(self) -> bool:
        """Whether everything the operator watches has been listed at least once since it started."""
        return self.cache.listed(WATCHED)

    @property
    def settled(self) -> bool:
        """Whether what the cache shows can be acted on.

        That is once everything is listed, or the cluster is found to be away, or it answers and refuses a list for so long
        that waiting for it helps nobody.
        """
        if self.listed or self.health.reachable is False:
            return True
        return time.monotonic() - self._started_s > self._times.settle_s

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"member {self.namespace}/{self.name}")

    async def stop(self) -> None:
        """Stop watching and close the client; the cache stays readable."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._disconnect()

    def poke(self) -> None:
        """Probe soon: the MemberCluster changed, or a call failed."""
        self._poked.set()

    async def _run(self) -> None:
        while True:
            self._poked.clear()
            health = await self._probe()
            before, self.health = self.health, health
            if (before.reachable, before.reason, before.version) != (health.reachable, health.reason, health.version):
                _log.info(
                    "member cluster", cluster=self.name, namespace=self.namespace, reachable=health.reachable,
                    reason=health.reason, detail=health.message, version=health.version,
                )  # fmt: skip
                self._on_health(self)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._times.probe_s):
                    await self._poked.wait()
            # Failures of many watches poke at once; one probe answers them all.
            await asyncio.sleep(0.05)

    async def _probe(self) -> Health:
        now = datetime.now(UTC)
        before = replace(self.health, probed_at=now)
        try:
            connection = await self._connect(self._connection.digest if self._connection else None)
        except SecretMissingError as error:
            return replace(before, reachable=False, reason=Reason.SECRET_NOT_FOUND, message=str(error))
        except KubeconfigError as error:
            return replace(before, reachable=False, reason=Reason.KUBECONFIG_INVALID, message=str(error))
        except ApiError as error:
            # The hub, not the member, is silent. The client that was made before goes on.
            if self._connection is None:
                return replace(before, reachable=False, reason=Reason.PROBE_FAILED, message=str(error))
            connection = None
        if connection is not None:
            await self._disconnect()
            self._connection = connection
            self._watches = [
                asyncio.create_task(
                    self._watch(connection.api, resource).run(), name=f"watch {self.name} {resource.plural}"
                )
                for resource in WATCHED
            ]
        if self._connection is None:
            return replace(before, reachable=False, reason=Reason.SECRET_NOT_FOUND, message="no credentials yet")
        try:
            version = await self._connection.api.version()
        except ApiError as error:
            return replace(before, reachable=False, reason=_reason(error), message=str(error))
        return Health(True, Reason.PROBE_SUCCEEDED, f"the API server answered, version {version}", version, now, now)

    def _watch(self, api: ClusterApi, resource: Resource) -> Watch:
        return Watch(
            api,
            resource,
            self.namespace,
            self.cache,
            label_selector=self._label_selector,
            on_failure=lambda _: self.poke(),
            times=self._times.watch,
        )

    async def _disconnect(self) -> None:
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        self._watches = []
        if self._connection is not None and not self._connection.shared:
            await self._connection.api.close()
        self._connection = None


def _reason(error: ApiError) -> Reason:
    return Reason.CREDENTIALS_REFUSED if error.status in (401, 403) else Reason.PROBE_FAILED
