"""Names, labels and the mark of ownership on every object that the operator writes into a member cluster."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "prfaas"
ROLE_LABEL = "prfaas.dev/role"
POOL_LABEL = "prfaas.dev/pool"
ROUTE_LABEL = "prfaas.dev/route"
REVISION_LABEL = "prfaas.dev/revision"
SERVING_LABEL = "prfaas.dev/serving"  # on decode pods that carry a router, while clients may be led to them
SERVING = "true"
OWNER_ANNOTATION = "prfaas.dev/owner"
OWNER_UID_ANNOTATION = "prfaas.dev/owner-uid"
DRAINING_ANNOTATION = "prfaas.dev/draining"  # on a worker that is to go, with the time since when

MANAGED_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"

Role = Literal["prefill", "decode", "router"]


@dataclass(frozen=True, slots=True)
class Owner:
    """The hub's object that a child belongs to. Its uid tells it from an earlier object of the same name."""

    kind: str
    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


def identity_labels(role: Role, name: str) -> dict[str, str]:
    """Return the labels that select the pods of a pool, or of a route's routers."""
    return {ROLE_LABEL: role, ROUTE_LABEL if role == "router" else POOL_LABEL: name}


def build_metadata(owner: Owner, name: str, role: Role) -> dict[str, Any]:
    """Return the metadata of a child."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": {MANAGED_BY_LABEL: MANAGED_BY, **identity_labels(role, owner.name)},
        "annotations": ownership(owner),
    }


def ownership(owner: Owner) -> dict[str, str]:
    return {OWNER_ANNOTATION: str(owner), OWNER_UID_ANNOTATION: owner.uid}


def owner_uid(body: Mapping[str, Any]) -> str | None:
    """Return the uid of the hub's object that a child belongs to; None for objects of others."""
    uid = (body["metadata"].get("annotations") or {}).get(OWNER_UID_ANNOTATION)
    return str(uid) if uid else None


def digest(value: object) -> str:
    """Return ten hex digits that change with the value; equal values give equal digits on every machine."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]
