"""Numbers as Kubernetes writes them in metrics."""

from decimal import ROUND_CEILING, Decimal
from typing import Final

# The HorizontalPodAutoscaler reckons in thousandths, in 64 bits.
MAX: Final = 9.2e15
_SUFFIXES: Final = ("", "m", "u", "n")


def quantity(value: float) -> str:
    """Return a number as a Quantity, exact to nano and rounded up beyond that, as Kubernetes does: `1500m`.

    Raises:
        ValueError: the number is negative, not finite, or above `MAX`.
    """
    if not 0 <= value <= MAX:
        raise ValueError(f"{value} is not a number from 0 to {MAX:g}")
    scaled = Decimal(repr(value))
    for suffix in _SUFFIXES[:-1]:
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
        scaled *= 1000
    return f"{int(scaled.to_integral_value(ROUND_CEILING))}{_SUFFIXES[-1]}"
