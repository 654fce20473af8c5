"""The CustomResourceDefinitions of the models."""

from __future__ import annotations

from typing import Any, Final

from prfaas_operator.api.resource import CATEGORY, GROUP, VERSION, Column, Resource
from prfaas_operator.api.structural import Schema, structural

_FRAME: Final[dict[str, Schema]] = {
    "apiVersion": {"description": "Version of the schema of this object, as group/version.", "type": "string"},
    "kind": {"description": "Kind of this object.", "type": "string"},
    "metadata": {"type": "object"},
}


def custom_resource_definition(resource: type[Resource]) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind, as a JSON object."""
    definition, kind = resource.definition, resource.__name__
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in definition.columns],
        "schema": {"openAPIV3Schema": object_schema(resource)},
        "subresources": {"status": {}},
    }
    if definition.scalable:
        version["subresources"]["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    if definition.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in definition.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition.name},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": definition.plural,
                "singular": kind.lower(),
                "shortNames": [definition.short_name],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def object_schema(resource: type[Resource]) -> Schema:
    """Return the structural schema of a kind's objects."""
    schema = resource.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    parts = {
        name: structural(schema["properties"][name], definitions, f"{resource.__name__}.{name}")
        for name in ("spec", "status")
    }
    # The spec has to be given; a status appears when the operator has something to say.
    parts["status"].pop("default", None)
    root: Schema = {
        "description": " ".join(schema["description"].split()),
        "type": "object",
        "properties": {**_FRAME, **parts},
        "required": ["spec"],
    }
    if resource.rules:
        root["x-kubernetes-validations"] = [rule.as_validation() for rule in resource.rules]
    return root


def _column(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    return {**found, "priority": column.priority} if column.priority else found
