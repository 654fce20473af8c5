"""The volumes of one pod on disk: where they lie, what is written there and when it is written again."""

from __future__ import annotations

import asyncio
import datetime
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from prfaas_local.node import atomic_directory
from prfaas_local.node.apiserver import ApiError, ApiUnavailableError, Json
from prfaas_local.node.context import NodeContext, now
from prfaas_local.node.environment import ConfigurationError, PodFacts, expand
from prfaas_local.node.mounts import Machine, Mount, MountError, Operation, plan
from prfaas_local.node.volumes import TokenRequest, VolumeError, files, kind_of, references, token_requests

logger = logging.getLogger(__name__)

_RENEW_AT = 0.8
"""Share of a token's life after which it is renewed, the kubelet's."""
_RENEW_MOST_S = 24 * 3600.0
_RETRY_S = 10.0


class PodFiles:
    """Sets up, refreshes and removes the volumes of a pod."""

    def __init__(self, context: NodeContext, pod: Json) -> None:
        metadata = pod["metadata"]
        self._context = context
        self._namespace: str = metadata["namespace"]
        self._pod = pod
        self.root = context.state_dir / "volumes" / metadata["uid"]
        self._volumes: dict[str, Json] = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
        self._tokens: dict[TokenRequest, str] = {}
        self._renew_at: dict[TokenRequest, datetime.datetime] = {}

    async def refresh_references(self) -> None:
        """Read every referenced ConfigMap and Secret from the API server, so that a new pod never starts on old ones.

        The local copies may lag behind the pod that was created after them.
        """
        for kind, name in sorted(references(self._pod)):
            reflector = self._context.config_maps if kind == "ConfigMap" else self._context.secrets
            plural = "configmaps" if kind == "ConfigMap" else "secrets"
            with suppress(ApiUnavailableError):
                try:
                    item = await self._context.api.request(
                        "GET", f"/api/v1/namespaces/{self._namespace}/{plural}/{name}"
                    )
                except ApiError as error:
                    logger.debug("%s %s/%s: %s", kind, self._namespace, name, error)
                else:
                    reflector.remember(item)

    async def write(self, facts: PodFacts) -> None:
        """Make all volumes current. Raises `VolumeError` when a source is missing."""
        for name, volume in self._volumes.items():
            kind = kind_of(volume)
            path = self.root / name
            if kind == "emptyDir":
                if not path.exists():
                    path.mkdir(parents=True)
                    path.chmod(0o777)
            elif kind == "hostPath":
                _prepare_host_path(volume)
            else:
                for request in token_requests(volume):
                    await self._fetch_token(request, facts)
                content = files(
                    volume,
                    facts,
                    lambda kind, name: self._context.lookup(self._namespace, kind, name),
                    self._tokens.__getitem__,
                )
                atomic_directory.write(path, content)

    def renew_in_s(self) -> float | None:
        """Return how long until a token has to be renewed; None when the pod has none."""
        if not self._renew_at:
            return None
        return max(0.0, (min(self._renew_at.values()) - now()).total_seconds())

    def operations(self, container: Json, values: Mapping[str, str]) -> Sequence[Operation]:
        """Return the mount operations of a container. Raises `ConfigurationError`."""
        mounts = [self._mount(item, values) for item in container.get("volumeMounts") or []]
        if not mounts:
            return []
        try:
            return plan(mounts, Machine())
        except MountError as error:
            raise ConfigurationError(f"container {container['name']!r}: {error}", "CreateContainerError") from error

    def remove(self) -> None:
        """Delete everything of the pod but its logs."""
        shutil.rmtree(self.root, ignore_errors=True)

    async def _fetch_token(self, request: TokenRequest, facts: PodFacts) -> None:
        due = self._renew_at.get(request)
        if due and now() < due:
            return
        metadata = facts.pod["metadata"]
        account = facts.pod["spec"].get("serviceAccountName") or "default"
        body: Json = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [request.audience] if request.audience else [],
                "expirationSeconds": request.expiration_s,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]},
            },
        }
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
        try:
            answer = await self._context.api.request("POST", path, body=body)
        except (ApiError, ApiUnavailableError) as error:
            if request in self._tokens:
                # The token in place is good for a fifth of its life yet.
                self._renew_at[request] = now() + datetime.timedelta(seconds=_RETRY_S)
                logger.warning("token of %s/%s not renewed: %s", self._namespace, metadata["name"], error)
                return
            raise VolumeError(f"failed to fetch token: {error}") from error
        expires = datetime.datetime.fromisoformat(answer["status"]["expirationTimestamp"])
        self._tokens[request] = answer["status"]["token"]
        life_s = (expires - now()).total_seconds()
        self._renew_at[request] = now() + datetime.timedelta(seconds=min(life_s * _RENEW_AT, _RENEW_MOST_S))

    def _mount(self, item: Json, values: Mapping[str, str]) -> Mount:
        volume = self._volumes[item["name"]]
        kind = kind_of(volume)
        source = Path(volume["hostPath"]["path"]) if kind == "hostPath" else self.root / item["name"]
        within = item.get("subPath") or expand(item.get("subPathExpr", ""), values)
        if within:
            if within.startswith("/") or ".." in PurePosixPath(within).parts:
                raise ConfigurationError(f"subPath {within!r} must be relative and stay inside the volume")
            source = source / within
            if not source.exists() and kind == "emptyDir":
                source.mkdir(parents=True)
        # A subPath mount keeps the file it found, so links are followed now.
        resolved = source.resolve()
        if not resolved.exists():
            raise ConfigurationError(f"volume {item['name']!r} has no {within or source}")
        return Mount(
            source=str(resolved),
            target=item["mountPath"],
            read_only=bool(item.get("readOnly")) or kind in {"configMap", "secret", "downwardAPI", "projected"},
            source_is_directory=resolved.is_dir(),
        )


def _prepare_host_path(volume: Json) -> None:
    path, kind = Path(volume["hostPath"]["path"]), volume["hostPath"].get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    elif not path.exists() or (kind == "Directory" and not path.is_dir()) or (kind == "File" and not path.is_file()):
        raise VolumeError(f"hostPath {path} is not {'there' if not path.exists() else 'a ' + kind.lower()}")


async def sleep_until(event: asyncio.Event, timeout_s: float | None) -> bool:
    """Wait for the event, at most so long. Return whether it is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
    return event.is_set()
