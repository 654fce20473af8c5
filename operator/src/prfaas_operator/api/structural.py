"""From JSON Schema, as pydantic writes it, to the structural schema that a CustomResourceDefinition needs.

Structural schemas have no `$ref`, say null by leaving a field out, write exclusive bounds as booleans, and describe every
property. What cannot be translated is an error here, not a surprise at the API server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]

_KEPT: Final = (
    "description",
    "type",
    "format",
    "default",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "anyOf",
    "minItems",
    "maxItems",
    "items",
    "maxProperties",
    "additionalProperties",
    "properties",
    "required",
)
_DROPPED: Final = frozenset({"title", "$defs"})
_INT32_MAX: Final = 2**31 - 1
_INT64_MAX: Final = 2**63 - 1


class UnsupportedSchemaError(Exception):
    """A model says something that a structural schema cannot."""


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Schema], path: str) -> Schema:
    """Return `schema` in structural form, with the references into `definitions` resolved.

    Raises:
        UnsupportedSchemaError: names the place with `path` in front.
    """
    node = _resolved(schema, definitions, path)
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        raise UnsupportedSchemaError(f"{path}: a field of several types; only int-or-string can be said")
    if "const" in node:
        node["enum"] = [node.pop("const")]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in node:
            node |= {bound: node[exclusive], exclusive: True}
    if node.get("type") == "integer":
        node["format"] = "int32" if node.get("maximum", _INT64_MAX) <= _INT32_MAX else "int64"
        if node.get("maximum") == _INT64_MAX:
            del node["maximum"]
    if isinstance(node.get("additionalProperties"), bool):
        del node["additionalProperties"]
    for key in ("items", "additionalProperties"):
        if key in node:
            node[key] = structural(node[key], definitions, f"{path}.{key}")
    if "properties" in node:
        node["properties"] = {
            name: _described(structural(part, definitions, f"{path}.{name}"), f"{path}.{name}")
            for name, part in node["properties"].items()
        }
    _simplify_default(node)
    for bound in ("default", "minimum", "maximum"):
        if bound in node:
            node[bound] = _shortest(node[bound])
    return _ordered(node, path)


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Schema], path: str) -> Schema:
    """Return `schema` with its reference, or its only alternative to null, merged into it."""
    node = {key: value for key, value in schema.items() if key not in _DROPPED}
    target: Mapping[str, Any] | None = None
    if "$ref" in node:
        target = definitions[node.pop("$ref").removeprefix("#/$defs/")]
    elif "anyOf" in node and {"type": "null"} in node["anyOf"]:
        others = [part for part in node.pop("anyOf") if part != {"type": "null"}]
        if len(others) != 1:
            raise UnsupportedSchemaError(f"{path}: a field of several types; only int-or-string can be said")
        target = others[0]
    if target is None:
        return node
    inner = _resolved(target, definitions, path)
    rules = [*inner.get("x-kubernetes-validations", []), *node.get("x-kubernetes-validations", [])]
    return {**inner, **node, **({"x-kubernetes-validations": rules} if rules else {})}


def _described(node: Schema, path: str) -> Schema:
    if not node.get("description"):
        raise UnsupportedSchemaError(f"{path}: has no description; put a docstring below the field")
    return node


def _simplify_default(node: Schema) -> None:
    """Leave out defaults that say the same as an absent field."""
    if "default" in node:
        node["default"] = _without_empty(node["default"])
        if node["default"] in (None, "", [], {}):
            del node["default"]


def _without_empty(default: Any) -> Any:
    if not isinstance(default, dict):
        return default
    found = {name: _without_empty(value) for name, value in default.items()}
    return {name: value for name, value in found.items() if value not in (None, "", [], {})}


def _shortest(value: Any) -> Any:
    """Return `value` with floats that are whole numbers written as such: 60, not 60.0."""
    if isinstance(value, dict):
        return {name: _shortest(part) for name, part in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ordered(node: Schema, path: str) -> Schema:
    extensions = sorted(key for key in node if key.startswith("x-kubernetes-"))
    unknown = sorted(node.keys() - set(_KEPT) - set(extensions))
    if unknown:
        raise UnsupportedSchemaError(f"{path}: {', '.join(unknown)} cannot be said in a structural schema")
    if "description" in node:
        node["description"] = " ".join(node["description"].split())
    return {key: node[key] for key in (*_KEPT, *extensions) if key in node}
