"""How KV is stored: the types of its elements, by the names that a ModelProfile gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prfaas_core.errors import InvalidValueError
from prfaas_workers.tiny.arithmetic import Floats


@dataclass(frozen=True, slots=True)
class ElementType:
    """One type: what is in memory, and the ways there and back.

    Attributes:
        storage: numpy's name of what is stored.
        pack: rounds 32-bit floats to the nearest stored value, to even on ties.
        unpack: the exact value as a 32-bit float.
    """

    storage: str
    pack: Callable[[Floats], NDArray[Any]]
    unpack: Callable[[NDArray[Any]], Floats]


def _to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return rounded


def _from_bfloat16(stored: NDArray[Any]) -> Floats:
    return (stored.astype("<u4") << 16).view("<f4")


def _to_float32(stored: NDArray[Any]) -> Floats:
    return stored.astype(np.float32)


_TYPES = {
    "float32": ElementType("<f4", lambda values: values, _to_float32),
    "float16": ElementType("<f2", lambda values: values.astype("<f2"), _to_float32),
    "bfloat16": ElementType("<u2", _to_bfloat16, _from_bfloat16),
}


def element_type(name: str) -> ElementType:
    """Return the type called `name`; `InvalidValueError` names the ones there are."""
    if name not in _TYPES:
        raise InvalidValueError("kv.dtype", name, f"give one of {', '.join(_TYPES)}")
    return _TYPES[name]
