"""How the operator reaches the Prometheus of one member cluster."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from prfaas_operator.api.model import Model
from prfaas_operator.api.references import ATOMIC, SecretKeyReference
from prfaas_operator.api.rules import Rule
from prfaas_operator.api.scalars import SecretKey, Subdomain

URL = Annotated[str, StringConstraints(min_length=8, max_length=1024, pattern=r"^https?://[^\s@?#]+$")]
HeaderName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$"),
    Rule(
        "self.lowerAscii() != 'authorization'",
        "{self} is set by bearerTokenSecretRef and basicAuthSecretRef; use one of them",
        lambda name: name.lower() != "authorization",
    ),
]
HeaderValue = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[ -~]*$")]


class CASecretReference(SecretKeyReference):
    """Names the key of a Secret that holds certificate authorities."""

    key: SecretKey = "ca.crt"
    """Key in the Secret's data; certificates as PEM."""


class TokenSecretReference(SecretKeyReference):
    """Names the key of a Secret that holds a token."""

    key: SecretKey = "token"
    """Key in the Secret's data."""


class BasicAuthSecretReference(Model):
    """Names a Secret of the type kubernetes.io/basic-auth, with the keys username and password."""

    schema_extension: ClassVar[dict[str, Any]] = ATOMIC

    name: Subdomain
    """Name of the Secret, in the namespace of this object."""


class HeaderSecretReference(Model):
    """Names the key of a Secret that holds the value of a header."""

    schema_extension: ClassVar[dict[str, Any]] = ATOMIC

    name: Subdomain
    """Name of the Secret, in the namespace of this object."""
    key: SecretKey
    """Key in the Secret's data."""


class Header(Model):
    """A header of every request."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.value) != has(self.secretKeyRef)",
            "header {self.name}: give either value or secretKeyRef",
            lambda header: (header.value is None) != (header.secret_key_ref is None),
        ),
    )

    name: HeaderName
    """Name of the header, such as X-Scope-OrgID."""
    value: HeaderValue | None = None
    """Its value."""
    secret_key_ref: HeaderSecretReference | None = None
    """Where its value is, if it is a secret."""


class PrometheusAccess(Model):
    """A server with the query API of Prometheus, and how to reach it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.bearerTokenSecretRef) && has(self.basicAuthSecretRef))",
            "bearerTokenSecretRef and basicAuthSecretRef are both given; remove one of them",
            lambda access: access.bearer_token_secret_ref is None or access.basic_auth_secret_ref is None,
        ),
    )

    url: URL
    """Base URL, without /api/v1: http or https, no user and no query. Redirects are not followed."""
    ca_secret_ref: CASecretReference | None = None
    """The Secret with the authorities that the server's certificate is checked against; absent: the public ones."""
    bearer_token_secret_ref: TokenSecretReference | None = None
    """The Secret with a bearer token. Not together with basicAuthSecretRef."""
    basic_auth_secret_ref: BasicAuthSecretReference | None = None
    """The Secret with username and password. Not together with bearerTokenSecretRef."""
    headers: Annotated[tuple[Header, ...], Field(max_length=16)] = ()
    """Further headers, such as the tenant's."""
    timeout_seconds: Annotated[float, Field(strict=True, ge=0.1, le=60, allow_inf_nan=False)] = 5.0
    """How long a question may take in all, in seconds."""
