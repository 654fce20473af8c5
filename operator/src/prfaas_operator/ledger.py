"""Deleted objects whose children could not be removed from a member cluster, in a ConfigMap of the hub.

An entry outlives the object, so that a deletion ends by its deadline and what was left behind is not forgotten: when the
member answers again, its children are removed and the entry with them.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from prfaas_operator.clusters.api import ClusterApi
from prfaas_operator.clusters.resources import CONFIG_MAP

NAME = "prfaas-orphans"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A deleted object, and where its children may still be."""

    uid: str
    kind: str
    namespace: str
    name: str
    cluster: str
    left_at: str  # when its deletion was given up, RFC 3339


class Ledger:
    """The list of orphans, kept in the operator's own namespace: the tenant's may be what was deleted."""

    def __init__(self, api: ClusterApi, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._entries: dict[str, Orphan] = {}

    async def load(self) -> None:
        """Read the ledger; an entry that cannot be read stays in the ConfigMap for people to look at."""
        found = await self._api.get(CONFIG_MAP, self._namespace, NAME)
        for key, text in ((found or {}).get("data") or {}).items():
            try:
                self._entries[key] = Orphan(**json.loads(text))
            except (ValueError, TypeError):
                continue

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, namespace: str, cluster: str) -> list[Orphan]:
        """Return the orphans in one member cluster."""
        return [entry for entry in self._entries.values() if (entry.namespace, entry.cluster) == (namespace, cluster)]

    async def add(self, orphan: Orphan) -> None:
        key = f"{orphan.cluster}.{orphan.uid}"
        await self._write({key: json.dumps(asdict(orphan), sort_keys=True)})
        self._entries[key] = orphan

    async def remove(self, orphan: Orphan) -> None:
        key = f"{orphan.cluster}.{orphan.uid}"
        await self._write({key: None})
        self._entries.pop(key, None)

    async def _write(self, data: dict[str, Any]) -> None:
        if await self._api.get(CONFIG_MAP, self._namespace, NAME) is None:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": self._namespace}}
            await self._api.create(CONFIG_MAP, self._namespace, body)
        await self._api.merge(CONFIG_MAP, self._namespace, NAME, {"data": data})
