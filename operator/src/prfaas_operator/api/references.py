"""References from one object to another, all within one namespace of the hub."""

from __future__ import annotations

from typing import Any, ClassVar

from prfaas_operator.api.model import Model
from prfaas_operator.api.scalars import Name, SecretKey, Subdomain

# A reference is one value: two appliers cannot own half of it each.
ATOMIC: dict[str, Any] = {"x-kubernetes-map-type": "atomic"}


class Reference(Model):
    """Names an object of the same namespace."""

    schema_extension: ClassVar[dict[str, Any]] = ATOMIC

    name: Name
    """Name of the object, in the namespace of this one."""


class ProfileReference(Model):
    """Names a ModelProfile of the same namespace."""

    schema_extension: ClassVar[dict[str, Any]] = ATOMIC

    name: Subdomain
    """Name of the ModelProfile, in the namespace of this object."""


class SecretKeyReference(Model):
    """Names one key of a Secret of the same namespace."""

    schema_extension: ClassVar[dict[str, Any]] = ATOMIC

    name: Subdomain
    """Name of the Secret, in the namespace of this object."""
    key: SecretKey = "kubeconfig"
    """Key in the Secret's data."""
