"""Which profiles can hand KV to each other.

KV bytes mean the same on both sides only if the model, the engine, the layout in memory, the partition over devices
and the connector are the same. The fingerprint is SHA-256 over exactly those fields; the accelerator is not part of it,
since a faster chip for prefill is the purpose. A wrong match corrupts tokens, a wrong mismatch only costs a local
prefill, so every field compares by equality, version strings included.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from prfaas_core import errors

_TEXT_FIELDS = (
    "model.name",
    "model.revision",
    "engine.name",
    "engine.version",
    "kv.attention",
    "kv.layout",
    "kv.dtype",
    "kv.connector.name",
    "kv.connector.version",
)
_COUNT_FIELDS = ("kv.pageSizeTokens", "kv.tensorParallel", "kv.pipelineParallel")

FIELDS = tuple(sorted(_TEXT_FIELDS + _COUNT_FIELDS))


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that keeps two profiles apart."""

    field: str
    left: str | int
    right: str | int

    def __str__(self) -> str:
        return f"{self.field}: {self.left!r} against {self.right!r}"


def identity(spec: Mapping[str, object]) -> dict[str, str | int]:
    """Return the fields of a ModelProfile's `spec` that decide compatibility, by dotted path, in order.

    Raises:
        InvalidValueError, MissingFieldError: a field is absent or of the wrong type. None has a default here: two sides
            that both say nothing are not known to agree.
    """
    fields: dict[str, str | int] = {}
    for path in FIELDS:
        value = errors.lookup(spec, path)
        fields[path] = errors.text(path, value) if path in _TEXT_FIELDS else errors.count(path, value, minimum=1)
    return fields


def kv_fingerprint(spec: Mapping[str, object]) -> str:
    """Return the SHA-256 of the canonical JSON of `identity(spec)`, as 64 hex digits."""
    canonical = json.dumps(identity(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def differences(left: Mapping[str, object], right: Mapping[str, object]) -> tuple[Difference, ...]:
    """Return the fields in which two specs differ, by path; empty exactly when the fingerprints are equal."""
    ours, theirs = identity(left), identity(right)
    return tuple(Difference(path, ours[path], theirs[path]) for path in FIELDS if ours[path] != theirs[path])
