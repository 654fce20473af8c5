"""The errors of the core, and the checks that raise them.

Each names the field in the words of whoever wrote it, the value found, and the way out, so that a shell can hand the
text to a person as it is (a condition, an HTTP error, a NACK).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast


class CoreError(Exception):
    """Base of every error that the core raises on purpose."""


class InvalidValueError(CoreError, ValueError):
    """A value is outside of what its field allows."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field = field
        self.value = value
        self.remedy = remedy
        super().__init__(f"{field}: {value!r} is not valid; {remedy}")


class MissingFieldError(CoreError, ValueError):
    """A field that has no default is absent."""

    def __init__(self, field: str, remedy: str) -> None:
        self.field = field
        self.remedy = remedy
        super().__init__(f"{field}: is missing; {remedy}")


def finite(field: str, value: object) -> float:
    """Return `value` as a float; booleans, text, NaN and infinities are refused."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValueError(field, value, "give a number")
    if not math.isfinite(value):
        raise InvalidValueError(field, value, "give a finite number")
    return float(value)


def positive(field: str, value: object) -> float:
    """Return `value` as a float above zero."""
    number = finite(field, value)
    if number <= 0:
        raise InvalidValueError(field, value, "give a number above 0")
    return number


def non_negative(field: str, value: object) -> float:
    """Return `value` as a float of zero or more."""
    number = finite(field, value)
    if number < 0:
        raise InvalidValueError(field, value, "give 0 or a number above it")
    return number


def count(field: str, value: object, *, minimum: int = 0) -> int:
    """Return `value` as an integer of at least `minimum`; a float with a fraction is refused."""
    number = finite(field, value)
    if number != int(number) or number < minimum:
        raise InvalidValueError(field, value, f"give a whole number of at least {minimum}")
    return int(number)


def text(field: str, value: object) -> str:
    """Return `value` as a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise InvalidValueError(field, value, "give a text that is not empty")
    return value


def lookup(spec: Mapping[str, object], path: str) -> object:
    """Return the value at a dotted path of a nested mapping; `MissingFieldError` names the first absent part."""
    node: object = spec
    walked: list[str] = []
    for key in path.split("."):
        if not isinstance(node, Mapping):
            raise InvalidValueError(".".join(walked) or "spec", node, "give a mapping")
        walked.append(key)
        if key not in node:
            raise MissingFieldError(".".join(walked), "set it")
        node = cast("Mapping[str, object]", node)[key]
    return node
