"""Lists whose items are told apart by one field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class KeyedBy:
    """Marks a list as a map by `key`: the API server refuses doubles, and server-side apply merges item by item."""

    key: str

    def check(self, items: Iterable[Any]) -> Iterable[Any]:
        """Return `items`; ValueError if two have the same key."""
        seen: set[Any] = set()
        for item in items:
            value = getattr(item, self.key)
            if value in seen:
                raise ValueError(f"{self.key} {value} is given twice; leave one out")
            seen.add(value)
        return items

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}
