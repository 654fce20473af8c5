"""The frame of an object, and what its CustomResourceDefinition says beside the schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict

from prfaas_operator.api.model import Model
from prfaas_operator.api.rules import Rule

GROUP: Final = "prfaas.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "prfaas"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; priority 1 shows with `-o wide` only."""

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "number", "boolean", "date"] = "string"
    priority: int = 0


READY: Final = Column(
    "Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the object does what its spec says."
)
REASON: Final = Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why it is ready or not.")
AGE: Final = Column("Age", ".metadata.creationTimestamp", "Time since the object was created.", "date")


@dataclass(frozen=True, slots=True)
class Definition:
    """Names, columns and subresources of a kind."""

    plural: str
    short_name: str
    columns: tuple[Column, ...]
    scalable: bool = False
    selectable: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """The name of the CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


class ObjectMeta(Model):
    """The part of an object's metadata that PrfaaS reads."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: tuple[str, ...] = ()
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Resource(Model):
    """An object of the group `prfaas.dev`; kinds add `kind`, `spec` and `status`."""

    definition: ClassVar[Definition]

    api_version: Literal["prfaas.dev/v1alpha1"] = "prfaas.dev/v1alpha1"
    metadata: ObjectMeta


def named_like_a_service(limit: int, why: str) -> Rule:
    """Return the rule that an object's name fits a Service (RFC 1035) of at most `limit` characters."""
    return Rule(
        f"self.metadata.name.size() <= {limit} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        f"metadata.name: {{self.metadata.name}} is not valid; {why}, so use at most {limit} of a-z, 0-9 and '-', "
        "from a letter to a letter or digit",
        lambda found: is_label(found.metadata.name, limit) and not found.metadata.name[0].isdigit(),
    )


def named_like_a_label(why: str) -> Rule:
    """Return the rule that an object's name is a DNS label (RFC 1123)."""
    return Rule(
        "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')",
        f"metadata.name: {{self.metadata.name}} is not valid; {why}, so use at most 63 characters and no dot",
        lambda found: len(found.metadata.name) <= 63 and "." not in found.metadata.name,
    )


def is_label(name: str, limit: int) -> bool:
    """Return whether `name` is a DNS label (RFC 1123) of at most `limit` characters."""
    plain = name.replace("-", "a")
    return (
        0 < len(name) <= limit
        and plain.isascii()
        and plain.isalnum()
        and plain == plain.lower()
        and name[0] != "-"
        and name[-1] != "-"
    )
