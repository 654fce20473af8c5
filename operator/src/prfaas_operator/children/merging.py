"""Putting the operator's parts into lists of a user's pod template, where items are told apart by name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class TemplateError(ValueError):
    """A user's template leaves no place for what the operator has to add; the message names the field."""


def with_defaults(items: Iterable[Mapping[str, Any]], additions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `items` and those of `additions` whose name is not taken: what the user wrote wins."""
    result = [dict(item) for item in items]
    taken = {item.get("name") for item in result}
    result += [dict(item) for item in additions if item["name"] not in taken]
    return result


def with_required(
    field: str, items: Sequence[Mapping[str, Any]], additions: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return `items` and `additions`; raise `TemplateError` when a name of an addition is taken."""
    result = [dict(item) for item in items]
    taken = {item.get("name") for item in result}
    for item in additions:
        if item["name"] in taken:
            raise TemplateError(f"{field}: the name {item['name']!r} is reserved for the operator; rename yours")
        result.append(dict(item))
    return result
