"""Conditions that a schema cannot say, in CEL for the API server and in Python for everyone else.

A `Rule` stands either in the `rules` of a model or in the `Annotated` of a field. Its message is one template for both
languages: `{self.spec.model}` is the value at that path.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

EXTENSION = "x-kubernetes-validations"
_PLACEHOLDER = re.compile(r"\{((?:self|oldSelf)(?:\.\w+)*)\}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition on a value.

    Attributes:
        expression: CEL over `self`, true for a valid value; with `oldSelf` it is checked on updates only.
        message: names the value and the way out; the API server and pydantic put the field in front.
        holds: the same in Python over the validated value; None for rules about updates, which need the old object.
    """

    expression: str
    message: str
    holds: Callable[[Any], bool] | None = None

    def check(self, value: Any) -> Any:
        """Return `value`; ValueError with the message if the rule does not hold."""
        if self.holds is not None and not self.holds(value):
            raise ValueError(_PLACEHOLDER.sub(lambda found: str(_lookup(value, found[1])), self.message))
        return value

    def as_validation(self) -> dict[str, str]:
        """Return the rule as an entry of `x-kubernetes-validations`."""
        if _PLACEHOLDER.search(self.message) is None:
            return {"rule": self.expression, "message": self.message}
        return {"rule": self.expression, "messageExpression": self._message_expression()}

    def _message_expression(self) -> str:
        # One call of format() and no `+`: the API server cannot bound the cost of joining converted values.
        text = _PLACEHOLDER.sub("%s", self.message.replace("%", "%%"))
        return f"{_literal(text)}.format([{', '.join(_PLACEHOLDER.findall(self.message))}])"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return extended(handler(schema), (self,))


def extended(schema: JsonSchemaValue, rules: tuple[Rule, ...]) -> JsonSchemaValue:
    """Return `schema` with `rules` behind those that it has."""
    if not rules:
        return schema
    return {**schema, EXTENSION: [*schema.get(EXTENSION, []), *(rule.as_validation() for rule in rules)]}


def immutable(what: str, remedy: str, *, shown: str | None = "") -> Rule:
    """Return the rule that a field which is part of an object's identity keeps its value.

    `what` names the field, `remedy` says what to do instead, and `shown` is the path below the field whose old and new
    value the message shows; None shows nothing.
    """
    change = "" if shown is None else f" from {{oldSelf{shown}}} to {{self{shown}}}"
    return Rule("self == oldSelf", f"{what} cannot change{change}; {remedy}")


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _lookup(value: Any, path: str) -> Any:
    for alias in path.split(".")[1:]:
        fields = type(value).model_fields
        name = next((name for name, field in fields.items() if field.alias == alias), alias)
        value = getattr(value, name)
    return value
