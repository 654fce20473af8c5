"""The Lease that makes one operator the only writer.

The holder renews it several times in its duration and trusts it for less than that, by its own monotonic clock: from the
moment before a successful renewal was sent. Another operator takes the Lease only after it has watched it unchanged for the
whole duration, by its own clock, so the clocks of the machines do not have to agree.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from prfaas_operator.clusters.api import ApiError, ClusterApi
from prfaas_operator.clusters.resources import LEASE

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Times of the Lease, seconds."""

    duration_s: float = 15.0  # after which another operator may take it
    trust_s: float = 10.0  # after which the holder stops writing if it could not renew
    renew_s: float = 2.0


class LeaseLostError(Exception):
    """The Lease could not be renewed in time, or another operator has it."""


class Lease:
    """Acquires and keeps one Lease."""

    def __init__(self, api: ClusterApi, namespace: str, name: str, identity: str, times: LeaseTimes) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times
        self._trusted_until_s = float("-inf")
        self._seen: tuple[str, float] = ("", float("-inf"))  # resourceVersion of another's Lease, and since when

    @property
    def held(self) -> bool:
        """Whether this operator may write at this moment."""
        return time.monotonic() < self._trusted_until_s

    async def acquire(self) -> None:
        """Return when this operator holds the Lease."""
        waiting = False
        while not await self._try():
            if not waiting:
                waiting = True
                _log.info("waiting for the lease", lease=f"{self._namespace}/{self._name}")
            await asyncio.sleep(self._times.renew_s)
        _log.info("lease acquired", lease=f"{self._namespace}/{self._name}", identity=self._identity)

    async def keep(self) -> None:
        """Renew until cancelled; raise `LeaseLostError` when that is too late or somebody else has it."""
        while True:
            await asyncio.sleep(self._times.renew_s)
            renewed = await self._try()
            if not renewed and (self._seen[0] or not self.held):
                self._trusted_until_s = float("-inf")
                raise LeaseLostError(f"the lease {self._namespace}/{self._name} is lost; nothing is written any more")

    async def release(self) -> None:
        """Let the next operator go on at once."""
        if not self.held:
            return
        self._trusted_until_s = float("-inf")
        try:
            found = await self._api.get(LEASE, self._namespace, self._name)
            if found is not None and found["spec"].get("holderIdentity") == self._identity:
                found["spec"]["holderIdentity"] = ""
                await self._api.replace(LEASE, self._namespace, self._name, found)
        except ApiError as error:
            _log.warning("lease not released", error=str(error))

    async def _try(self) -> bool:
        sent_s = time.monotonic()
        try:
            found = await self._api.get(LEASE, self._namespace, self._name)
            if found is None:
                await self._api.create(LEASE, self._namespace, self._body({}, {}))
            elif self._takeable(found):
                await self._api.replace(
                    LEASE, self._namespace, self._name, self._body(found["metadata"], found.get("spec") or {})
                )
            else:
                return False
        except ApiError as error:
            if not error.conflict:
                _log.warning("lease not renewed", error=str(error))
            return False
        self._trusted_until_s = sent_s + self._times.trust_s
        self._seen = ("", float("-inf"))
        return True

    def _takeable(self, found: dict[str, Any]) -> bool:
        holder = (found.get("spec") or {}).get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        version, now_s = found["metadata"]["resourceVersion"], time.monotonic()
        if version != self._seen[0]:
            self._seen = (version, now_s)
        duration_s = float(found["spec"].get("leaseDurationSeconds") or self._times.duration_s)
        return now_s - self._seen[1] > duration_s

    def _body(self, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        ours = spec.get("holderIdentity") == self._identity
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {**metadata, "name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(1, round(self._times.duration_s)),
                "acquireTime": spec.get("acquireTime", now) if ours else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if ours else 1),
            },
        }
