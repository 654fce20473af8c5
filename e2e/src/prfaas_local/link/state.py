"""What can be changed about a link while it runs, and how it is written as JSON."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

CAPACITY_BPS = (8_000.0, 1e12)
DELAY_S = (0.0, 60.0)


class Fault(enum.StrEnum):
    """What is wrong with the link."""

    NONE = "none"
    CUT = "cut"
    """Connections are reset, new ones refused."""
    STALL = "stall"
    """Nothing arrives, connections stay open; everything goes on when the fault is over."""


class StateError(ValueError):
    """A state that a link cannot have; the message names the field, the value and what is possible."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """Capacity of each direction in bits/s, one-way propagation delay in seconds, and the fault.

    Raises `StateError` when a value is out of bounds.
    """

    capacity_bps: float
    delay_s: float = 0.0
    fault: Fault = Fault.NONE

    def __post_init__(self) -> None:
        _check(
            "capacityBps",
            self.capacity_bps,
            CAPACITY_BPS,
            'bits/s; for a link that carries nothing set fault to "stall"',
        )
        _check("delaySeconds", self.delay_s, DELAY_S, "seconds one way")

    def document(self) -> dict[str, object]:
        """Return the state as its JSON object."""
        return {"capacityBps": self.capacity_bps, "delaySeconds": self.delay_s, "fault": self.fault.value}

    def changed(self, document: object) -> LinkState:
        """Return the state with the fields of a JSON object; those that it leaves out stay.

        Raises `StateError` when it is not an object, or for an unknown field or an impossible value.
        """
        if not isinstance(document, Mapping):
            raise StateError(f"the body is {document!r:.80}; send a JSON object with any of {', '.join(_FIELDS)}")
        unknown = [name for name in document if name not in _FIELDS]
        if unknown:
            raise StateError(f"{unknown[0]}: no such field; there are {', '.join(_FIELDS)}")
        state = self
        if "capacityBps" in document:
            state = replace(state, capacity_bps=_number("capacityBps", document["capacityBps"]))
        if "delaySeconds" in document:
            state = replace(state, delay_s=_number("delaySeconds", document["delaySeconds"]))
        if "fault" in document:
            state = replace(state, fault=_fault(document["fault"]))
        return state


_FIELDS = ("capacityBps", "delaySeconds", "fault")


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StateError(f"{field} is {value!r:.80}; it must be a number")
    return float(value)


def _fault(value: object) -> Fault:
    for fault in Fault:
        if value == fault.value:
            return fault
    raise StateError(f"fault is {value!r:.80}; it must be one of {', '.join(Fault)}")


def _check(field: str, value: float, bounds: tuple[float, float], unit: str) -> None:
    least, most = bounds
    if not math.isfinite(value) or not least <= value <= most:
        raise StateError(f"{field} is {value:g}; it must be from {least:g} to {most:g} {unit}")
