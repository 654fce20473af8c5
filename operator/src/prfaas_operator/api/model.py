"""What all models of the API share.

Every field carries its description as the docstring below it; the CRDs publish it. Unknown fields are refused in specs,
as the API server does, and passed over in statuses, which a newer operator may have written.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from prfaas_operator.api.rules import Rule, extended

_ACRONYMS: Final = {"cidr": "CIDR", "gb": "GB", "ip": "IP"}


def wire_name(name: str) -> str:
    """Return the camelCase of a snake_case name, with acronyms as Kubernetes writes them: `clusterIP`."""
    first, *others = name.split("_")
    return first + "".join(_ACRONYMS.get(word, word.capitalize()) for word in others)


class Model(BaseModel):
    """A frozen value with camelCase names on the wire and snake_case names in Python."""

    model_config = ConfigDict(
        alias_generator=wire_name,
        validate_by_alias=True,
        validate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        # Defaults come from here alone, so that Python and the API server fill in the same.
        validate_default=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    schema_extension: ClassVar[dict[str, Any]] = {}

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler.resolve_ref_schema(handler(schema))
        found.update(extended({**found, **cls.schema_extension}, cls.rules))
        return found

    @classmethod
    def read(cls, body: Any) -> Self:
        """Return the model of an object as the API server gives it.

        Raises:
            pydantic.ValidationError: see `explain`.
        """
        return cls.model_validate(body, by_alias=True, by_name=False)

    def as_object(self, *, exclude_unset: bool = True) -> dict[str, Any]:
        """Return the JSON object of the model; by default with nothing in it that was not given."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=exclude_unset, exclude_none=True)


class StatusModel(Model):
    """A part of a status: what the operator observed."""

    model_config = ConfigDict(extra="ignore")


class OpenModel(Model):
    """A part of a foreign type: the fields that matter here are typed, the others kept as they are."""

    model_config = ConfigDict(extra="allow")
    schema_extension: ClassVar[dict[str, Any]] = {"x-kubernetes-preserve-unknown-fields": True}

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        # Null is how generators of manifests say that a field is not set: `creationTimestamp: null`.
        if isinstance(value, dict):
            return {name: part for name, part in value.items() if part is not None}
        return value


def explain(error: ValidationError) -> str:
    """Return one line for a person: each field with what is wrong about it."""
    found: list[str] = []
    for part in error.errors(include_url=False, include_context=False):
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in part["loc"]).removeprefix(".")
        found.append(f"{path or 'object'}: {part['msg'].removeprefix('Value error, ')}")
    return "; ".join(found)
