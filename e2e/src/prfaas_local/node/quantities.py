"""Kubernetes resource quantities."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_PATTERN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei))?")


def parse(quantity: str | float) -> Decimal:
    """Return the value of a quantity such as `100m`, `2Gi` or `1e3`. Raises ValueError."""
    match = _PATTERN.fullmatch(str(quantity))
    if not match:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity such as 100m, 2Gi or 1e3")
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _SUFFIXES[suffix or ""]


def divide(quantity: str, divisor: str) -> int:
    """Return how many divisors the quantity is, rounded up, as the downward API states it."""
    unit = parse(divisor) or Decimal(1)
    return int((parse(quantity) / unit).to_integral_value(ROUND_CEILING))
