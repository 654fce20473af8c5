"""Writing and removing children in a member cluster.

A child is written by server-side apply, and only when something is to change: what was applied last and the version that
came of it are remembered, so a reconciliation that finds both as they were writes nothing. An object that is there and does
not carry the owner's uid is never touched.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from prfaas_operator.api.conditions import Reason
from prfaas_operator.children.metadata import MANAGED_BY, MANAGED_BY_LABEL, MANAGED_SELECTOR, digest, owner_uid
from prfaas_operator.clusters.api import ApiError, ClusterApi
from prfaas_operator.clusters.member import Member
from prfaas_operator.clusters.resources import BY_KIND, CHILDREN, NAMESPACE, Resource

_log = structlog.get_logger(__name__)


class ChildError(Exception):
    """A child could not be brought to what it should be."""

    def __init__(self, reason: Reason, message: str, *, retry: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry = retry  # False: somebody has to change something first


@dataclass(frozen=True, slots=True)
class _Applied:
    desired: str
    live: tuple[str, object]


class Children:
    """Applies and deletes the children of hub objects in member clusters."""

    def __init__(self) -> None:
        self._applied: dict[tuple[str, str, str, str], _Applied] = {}
        self._namespaces: set[tuple[str, str]] = set()

    async def apply(self, member: Member, owner: str, bodies: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Bring children to `bodies`, in order, and return them as they are now.

        Raises `ChildError`; the children before the one that failed have been brought up to date.
        """
        return [await self._apply(member, owner, body) for body in bodies]

    async def _apply(self, member: Member, owner: str, body: Mapping[str, Any]) -> dict[str, Any]:
        resource = BY_KIND[body["kind"]]
        name = body["metadata"]["name"]
        key = (member.namespace, member.name, resource.kind, name)
        cached = member.cache.get(resource, name)
        desired = digest(body)
        if (
            cached is not None
            and owner_uid(cached) == owner
            and self._applied.get(key) == _Applied(desired, _essence(cached, body))
        ):
            return cached
        api = connected(member)
        try:
            force = await self._is_ours(api, resource, member.namespace, name, owner)
            if not force:
                await self._ensure_namespace(api, member)
            result = await api.apply(resource, body, force=force)
        except ApiError as error:
            self._namespaces.discard((member.namespace, member.name))
            raise explained(error, member, resource, name) from error
        if cached is None or cached["metadata"]["resourceVersion"] != result["metadata"]["resourceVersion"]:
            _log.info("applied", cluster=member.name, namespace=member.namespace, kind=resource.kind, name=name)
        member.cache.observe(resource, result)
        self._applied[key] = _Applied(desired, _essence(result, body))
        return result

    async def _is_ours(self, api: ClusterApi, resource: Resource, namespace: str, name: str, owner: str) -> bool:
        """Return whether the object exists and is the owner's; raise `ChildError` when it is somebody else's."""
        live = await api.get(resource, namespace, name)
        if live is None:
            return False
        found = owner_uid(live)
        if found == owner:
            return True
        whose = f"it belongs to another owner, uid {found}" if found else "it was not made by this operator"
        raise ChildError(
            Reason.ADOPTION_REFUSED,
            f"{resource.kind} {namespace}/{name} exists in the member cluster and {whose}; "
            "delete or rename it, or rename this object",
            retry=True,
        )

    async def _ensure_namespace(self, api: ClusterApi, member: Member) -> None:
        """Make the namespace if the member lacks it. It is never deleted: others may have put something there."""
        key = (member.namespace, member.name)
        if key in self._namespaces:
            return
        try:
            found = await api.get(NAMESPACE, None, member.namespace)
            if found is None:
                body = {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {"name": member.namespace, "labels": {MANAGED_BY_LABEL: MANAGED_BY}},
                }
                await api.create(NAMESPACE, None, body)
                _log.info("namespace made", cluster=member.name, namespace=member.namespace)
        except ApiError as error:
            if error.unreachable:
                raise
            # Rights that end at one namespace cannot see namespaces. Whether it is there, the next call will tell.
            _log.debug("namespace not checked", cluster=member.name, namespace=member.namespace, error=str(error))
        self._namespaces.add(key)

    async def remove(self, api: ClusterApi, namespace: str, owner: str, *, keep: Iterable[tuple[str, str]] = ()) -> int:
        """Delete the children of an owner, but for (kind, name) in `keep`; return how many are still there."""
        kept = set(keep)
        remaining = 0
        # Pods stop when their Deployment goes, so what they read goes last.
        for resource in reversed(CHILDREN):
            items, _ = await api.list(resource, namespace, label_selector=MANAGED_SELECTOR)
            gone = [item for item in items if owner_uid(item) == owner and (item["kind"], _name(item)) not in kept]
            remaining += len(gone)
            fresh = [item for item in gone if "deletionTimestamp" not in item["metadata"]]
            await asyncio.gather(
                *(api.delete(resource, namespace, _name(item), uid=item["metadata"]["uid"]) for item in fresh)
            )
        return remaining

    async def prune(self, member: Member, owner: str, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Delete children of an owner that it should not have any more, as far as the cache shows any."""
        wanted = {(body["kind"], body["metadata"]["name"]) for body in bodies}
        present = {
            (resource.kind, _name(item))
            for resource in CHILDREN
            for item in member.cache.owned(resource, owner)
            if "deletionTimestamp" not in item["metadata"]
        }
        if present - wanted:
            await self.remove(connected(member), member.namespace, owner, keep=wanted)


def _name(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["name"])


def connected(member: Member) -> ClusterApi:
    """Return the client of a member; `ChildError` while there is none."""
    if member.api is None:
        raise ChildError(Reason.CLUSTER_UNREACHABLE, member.health.message, retry=True)
    return member.api


def _essence(live: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[str, object]:
    """Return what changes when somebody edits a child, and not when its controller reports on it.

    Kinds with a status count the changes of their spec as generations; their labels and annotations are compared as far as
    they are ours. The other kinds have nothing but what somebody wrote, so every version counts.
    """
    metadata = live["metadata"]
    if live.get("kind", body["kind"]) in ("Deployment", "PodDisruptionBudget"):
        ours = body["metadata"]
        marks = tuple(
            all((metadata.get(part) or {}).get(name) == value for name, value in ours[part].items())
            for part in ("labels", "annotations")
        )
        return metadata["uid"], (metadata.get("generation"), marks)
    return metadata["uid"], metadata["resourceVersion"]


def explained(error: ApiError, member: Member, resource: Resource, name: str) -> ChildError:
    """Return what people should know of a refused write."""
    what = f"{resource.kind} {member.namespace}/{name} in cluster {member.name}"
    # The API server answers 500 to a template that it cannot read, as if that were its own fault.
    if error.status == 500 and "failed to convert" in error.message:
        return ChildError(Reason.APPLY_INVALID, f"{what}: {error.message}", retry=False)
    if error.unreachable:
        member.poke()
        reason = Reason.CLUSTER_UNREACHABLE if error.status in (0, 401) else Reason.APPLY_FAILED
        return ChildError(reason, f"{what}: {error.message}", retry=True)
    if error.status == 403 and "being terminated" in error.message:
        return ChildError(Reason.NAMESPACE_UNAVAILABLE, f"{what}: {error.message}", retry=True)
    if error.status == 403:
        return ChildError(
            Reason.APPLY_FORBIDDEN, f"{what}: {error.message}; install the chart prfaas-member", retry=True
        )
    if error.not_found:
        return ChildError(Reason.NAMESPACE_UNAVAILABLE, f"{what}: {error.message}", retry=True)
    if error.conflict:
        return ChildError(Reason.APPLY_CONFLICT, f"{what}: {error.message}", retry=True)
    return ChildError(Reason.APPLY_INVALID, f"{what}: {error.message}", retry=False)
