"""What an answer says: samples, or why there are none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from prfaas_operator.api.conditions import Reason

CLOCK_TOLERANCE_S: Final = 30.0
"""Distance between the server's clock and ours that changes nothing: ages are measured by the server's clock alone."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a question has no answer."""

    reason: Reason
    message: str


class QueryError(Exception):
    """A question failed; carries the fault, and for how long the server wants to be left alone."""

    def __init__(self, reason: Reason, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.fault = Fault(reason, message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Element:
    """One element of an instant vector; the value may be NaN or infinite."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Vector:
    """An instant vector, empty or not."""

    elements: tuple[Element, ...]

    def by_label(self, name: str) -> dict[str, float]:
        """Return the values by one label; of several elements with the same label the last."""
        return {element.labels[name]: element.value for element in self.elements if name in element.labels}


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one series in the order of their times: Unix time in seconds, and a finite value."""

    samples: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """The answer to a question for one number; `value` is None exactly when `reason` says why."""

    value: float | None
    reason: Reason | None = None
    message: str = ""


def read(result: Any, asked_s: float, answered_s: float) -> Vector:
    """Return the vector that is the `result` of a query.

    `asked_s` and `answered_s` are Unix times by our clock; the server evaluated the query in between, if clocks agree.

    Raises:
        QueryError: the result is no instant vector, holds what is no number, or is of another time.
    """
    if not isinstance(result, list) or not all(isinstance(found, dict) for found in result):
        raise QueryError(
            Reason.SIGNAL_INVALID,
            "the query returns no instant vector; put scalars into vector(), drop ranges and texts",
        )
    elements = []
    for found in result:
        try:
            at_s, text = found["value"]
            labels, at_s = dict(found["metric"]), float(at_s)
        except (KeyError, TypeError, ValueError) as error:
            raise QueryError(
                Reason.SIGNAL_INVALID, "the query returns no instant vector; take an aggregation over the range"
            ) from error
        try:
            value = float(text)
        except (TypeError, ValueError) as error:
            raise QueryError(Reason.SIGNAL_INVALID, f"the value is {str(text)[:80]!r}, which is no number") from error
        _check_clock(at_s, asked_s, answered_s)
        elements.append(Element(labels, value))
    return Vector(tuple(elements))


def read_range(result: Any, asked_s: float, answered_s: float) -> Series:
    """Return the series that is the `result` of a range query; values that are not finite are left out.

    Raises:
        QueryError: there is none, or more than one, or what it holds is no number.
    """
    del asked_s, answered_s  # the times of a range are those that were asked for
    if not isinstance(result, list) or not all(isinstance(found, dict) for found in result):
        raise QueryError(Reason.SIGNAL_INVALID, "the query returns no range of an instant vector")
    if not result:
        raise QueryError(Reason.SIGNAL_MISSING, "the query returns no sample in the whole range")
    if len(result) > 1:
        raise QueryError(Reason.SIGNAL_INVALID, f"the query returns {len(result)} series; aggregate them to one")
    try:
        samples = tuple((float(at_s), float(text)) for at_s, text in result[0]["values"])
    except (KeyError, TypeError, ValueError) as error:
        raise QueryError(Reason.SIGNAL_INVALID, "the range holds what is no number") from error
    return Series(tuple((at_s, value) for at_s, value in samples if math.isfinite(value)))


def single(vector: Vector) -> Sample:
    """Return the one number of a vector that has one."""
    if not vector.elements:
        return Sample(None, Reason.SIGNAL_MISSING, "the query returns no sample")
    if len(vector.elements) > 1:
        return Sample(
            None, Reason.SIGNAL_INVALID, f"the query returns {len(vector.elements)} series; aggregate them to one"
        )
    value = vector.elements[0].value
    if not math.isfinite(value):
        return Sample(None, Reason.SIGNAL_INVALID, f"the value is {value}")
    return Sample(value)


def _check_clock(at_s: float, asked_s: float, answered_s: float) -> None:
    if asked_s - CLOCK_TOLERANCE_S <= at_s <= answered_s + CLOCK_TOLERANCE_S:
        return
    ahead_s = at_s - (answered_s if at_s > answered_s else asked_s)
    raise QueryError(
        Reason.PROMETHEUS_CLOCK_SKEWED,
        f"the server's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the operator's; "
        "set both by the same time service",
    )
