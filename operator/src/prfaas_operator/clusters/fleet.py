"""The member clusters that the operator is in contact with, by namespace and name of their MemberCluster."""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prfaas_operator.api import MemberClusterSpec
from prfaas_operator.children.metadata import MANAGED_SELECTOR
from prfaas_operator.clusters.api import ClusterApi
from prfaas_operator.clusters.cache import ObjectCache
from prfaas_operator.clusters.credentials import KubeconfigError, SecretMissingError, member_client, parse_kubeconfig
from prfaas_operator.clusters.member import Connection, Member, MemberTimes
from prfaas_operator.clusters.resources import SECRET, Resource

Key = tuple[str, str]


class Fleet:
    """Starts and stops contact with members; `on_change` and `on_health` hear what their watches and probes find."""

    def __init__(
        self,
        hub: ClusterApi,
        *,
        on_change: Callable[[Member, Resource, Mapping[str, Any]], None],
        on_health: Callable[[Member], None],
        fence: Callable[[], bool],
        times: MemberTimes,
    ) -> None:
        self._hub = hub
        self._on_change = on_change
        self._on_health = on_health
        self._fence = fence
        self._times = times
        self._members: dict[Key, Member] = {}
        self._specs: dict[Key, MemberClusterSpec] = {}
        self._kubeconfigs: dict[Key, tuple[str, str]] = {}  # as the Secrets had them last, and their digests

    def get(self, namespace: str, name: str) -> Member | None:
        return self._members.get((namespace, name))

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members.values()))

    def ensure(self, namespace: str, name: str, spec: MemberClusterSpec) -> Member:
        """Return the member of a MemberCluster, in contact from now on if it was not before."""
        key = (namespace, name)
        member = self._members.get(key)
        changed = self._specs.get(key) != spec
        self._specs[key] = spec
        if member is None:
            member = self._members[key] = self._start(namespace, name)
        elif changed:
            member.poke()
        return member

    async def drop(self, namespace: str, name: str) -> None:
        """End the contact with a member whose MemberCluster is gone."""
        self._specs.pop((namespace, name), None)
        self._kubeconfigs.pop((namespace, name), None)
        member = self._members.pop((namespace, name), None)
        if member is not None:
            await member.stop()

    async def stop(self) -> None:
        for member in self:
            await member.stop()

    def _start(self, namespace: str, name: str) -> Member:
        async def connect(known: str | None) -> Connection | None:
            return await self._connect((namespace, name), known)

        # The cache speaks before `member` exists only if it were filled before the start, which nothing does.
        cache = ObjectCache(lambda resource, body: self._on_change(member, resource, body))
        member = Member(
            name, namespace, connect=connect, cache=cache, on_health=self._on_health,
            label_selector=MANAGED_SELECTOR, times=self._times,
        )  # fmt: skip
        member.start()
        return member

    async def _connect(self, key: Key, known: str | None) -> Connection | None:
        namespace, name = key
        spec = self._specs.get(key)
        if spec is None:
            return None
        if spec.hub:
            return None if known == "hub" else Connection(self._hub, "hub", shared=True)
        reference = spec.kubeconfig_secret_ref
        if reference is None:
            raise KubeconfigError(f"MemberCluster {name} names no Secret; set spec.kubeconfigSecretRef")
        secret = await self._hub.get(SECRET, namespace, reference.name)
        encoded = ((secret or {}).get("data") or {}).get(reference.key)
        if not encoded:
            raise SecretMissingError(
                f"Secret {namespace}/{reference.name} with the key {reference.key!r} does not exist"
            )
        # Every probe comes here, and reading YAML takes longer than all else of it.
        if known is not None and self._kubeconfigs.get(key) == (encoded, known):
            return None
        try:
            text = base64.b64decode(encoded).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise KubeconfigError(f"Secret {namespace}/{reference.name}, key {reference.key!r}: {error}") from error
        credentials = parse_kubeconfig(text)
        digest = credentials.digest()
        self._kubeconfigs[key] = (encoded, digest)
        if digest == known:
            return None
        api = ClusterApi(member_client(credentials), timeout_s=self._times.call_s, fence=self._fence)
        return Connection(api, digest, shared=False)
