"""From logits to a token: greedy at temperature 0, otherwise drawn with a number that seed and position determine."""

from __future__ import annotations

import hashlib

import numpy as np

from prfaas_workers.tiny import arithmetic
from prfaas_workers.tiny.arithmetic import Floats


def choose(logits: Floats, temperature: float, seed: int, position: int) -> int:
    """Return a token id.

    The draw at a position does not depend on the draws before it, so that a request continues alike wherever its prefix
    was computed.

    Args:
        logits: (vocabulary,).
        temperature: 0 takes the greatest logit, the first of equals.
        seed: of the request.
        position: of the token to be chosen, in the sequence.
    """
    if temperature <= 0:
        return int(np.argmax(logits))
    weights = arithmetic.exp((logits - logits.max()) / np.float32(temperature)).astype(np.float64)
    # A running sum adds one term after the other.
    bounds = np.cumsum(weights)
    drawn = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    point = (int.from_bytes(drawn, "little") >> 11) * 2.0**-53 * bounds[-1]
    return min(int(np.searchsorted(bounds, point, side="right")), len(bounds) - 1)
