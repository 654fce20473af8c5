"""What the watches of one cluster have seen last.

The cache never forgets because a cluster went silent: objects leave it only when the API server says that they are gone.
Readers see whether each kind was ever listed completely, so that "nothing there" and "not known yet" stay different.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prfaas_operator.children.metadata import owner_uid
from prfaas_operator.clusters.resources import Resource

Listener = Callable[[Resource, Mapping[str, Any]], None]


def resource_version(body: Mapping[str, Any]) -> int:
    """Return the resourceVersion as a number; newer versions of an object compare greater."""
    try:
        return int(body["metadata"]["resourceVersion"])
    except (KeyError, ValueError):
        return 0


class ObjectCache:
    """Objects of a few kinds in one namespace of one cluster."""

    def __init__(self, listener: Listener) -> None:
        self._objects: dict[Resource, dict[str, dict[str, Any]]] = {}
        self._owned: dict[tuple[Resource, str], dict[str, dict[str, Any]]] = {}
        self._listed: set[Resource] = set()
        self._listener = listener

    def listed(self, resources: Iterable[Resource]) -> bool:
        """Return whether each of the kinds has been listed completely at least once."""
        return self._listed.issuperset(resources)

    def get(self, resource: Resource, name: str) -> dict[str, Any] | None:
        return self._objects.get(resource, {}).get(name)

    def all(self, resource: Resource) -> list[dict[str, Any]]:
        """Return the objects of a kind, sorted by name."""
        objects = self._objects.get(resource, {})
        return [objects[name] for name in sorted(objects)]

    def owned(self, resource: Resource, uid: str) -> list[dict[str, Any]]:
        """Return the objects of a kind that belong to the hub's object with a uid, sorted by name."""
        objects = self._owned.get((resource, uid), {})
        return [objects[name] for name in sorted(objects)]

    def replace(self, resource: Resource, items: Iterable[dict[str, Any]]) -> None:
        """Take a complete list: what is not in it is gone."""
        known = self._objects.setdefault(resource, {})
        fresh = {item["metadata"]["name"]: item for item in items}
        gone = [known[name] for name in known if name not in fresh]
        for item in gone:
            self._drop(resource, item)
        first = resource not in self._listed
        self._listed.add(resource)
        for item in gone:
            self._listener(resource, item)
        for item in fresh.values():
            self.observe(resource, item, notify=first or None)

    def observe(self, resource: Resource, item: dict[str, Any], *, notify: bool | None = None) -> None:
        """Take one object, from a watch or from an answer to a write; older versions than the known are dropped."""
        known = self._objects.setdefault(resource, {})
        name = item["metadata"]["name"]
        before = known.get(name)
        if (
            before is not None
            and before["metadata"].get("uid") == item["metadata"].get("uid")
            and resource_version(before) >= resource_version(item)
        ):
            if notify:
                self._listener(resource, before)
            return
        # Who wrote which field takes more room than the fields, and nobody asks about children.
        item["metadata"].pop("managedFields", None)
        if before is not None:
            self._drop(resource, before)
        known[name] = item
        owner = owner_uid(item)
        if owner is not None:
            self._owned.setdefault((resource, owner), {})[name] = item
        self._listener(resource, item)

    def remove(self, resource: Resource, item: Mapping[str, Any]) -> None:
        """Take a deletion, unless a newer object of the same name is known."""
        known = self._objects.get(resource, {})
        name = item["metadata"]["name"]
        before = known.get(name)
        if before is not None and before["metadata"].get("uid") == item["metadata"].get("uid"):
            self._drop(resource, before)
            self._listener(resource, item)

    def _drop(self, resource: Resource, item: Mapping[str, Any]) -> None:
        name, owner = item["metadata"]["name"], owner_uid(item)
        del self._objects[resource][name]
        if owner is not None:
            left = self._owned[resource, owner]
            del left[name]
            if not left:
                del self._owned[resource, owner]
