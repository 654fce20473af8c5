"""Label selectors in their text form, as clients of the Kubernetes API send them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class SelectorError(ValueError):
    """A text is no label selector; the message says which part of it."""


class Operator(StrEnum):
    """What a requirement asks of a label."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "!"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One of the requirements of a selector, all of which have to hold."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Return whether labels are what this asks for; a label that is absent has none of the values."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.ABSENT:
                return self.key not in labels


_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_COMMA = re.compile(r",(?![^(]*\))")
_EQUALITY = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(\s*({_VALUE}(?:\s*,\s*{_VALUE})*)\s*\)")
_PRESENCE = re.compile(rf"(!?)\s*({_KEY})")


def parse(text: str) -> tuple[Requirement, ...]:
    """Return the requirements of a selector; an empty text has none, and selects everything.

    Raises:
        SelectorError: the text is not a selector of equalities, sets and presence.
    """
    if not text.strip():
        return ()
    return tuple(_requirement(part.strip()) for part in _COMMA.split(text))


def matches(requirements: tuple[Requirement, ...], labels: Mapping[str, str]) -> bool:
    """Return whether labels are selected."""
    return all(requirement.holds(labels) for requirement in requirements)


def _requirement(text: str) -> Requirement:
    if found := _EQUALITY.fullmatch(text):
        key, sign, value = found.groups()
        return Requirement(key, Operator.NOT_IN if sign == "!=" else Operator.IN, frozenset({value}))
    if found := _SET.fullmatch(text):
        key, word, values = found.groups()
        return Requirement(key, Operator(word), frozenset(value.strip() for value in values.split(",")))
    if found := _PRESENCE.fullmatch(text):
        return Requirement(found[2], Operator.ABSENT if found[1] else Operator.EXISTS)
    raise SelectorError(
        f"labelSelector: {text!r} is not KEY=VALUE, KEY!=VALUE, KEY in (VALUES), KEY notin (VALUES), KEY or !KEY"
    )
