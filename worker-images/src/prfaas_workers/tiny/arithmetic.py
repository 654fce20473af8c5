"""Floating-point arithmetic whose results do not depend on where, in what company, or on what machine they are computed.

A matrix product of a BLAS rounds differently with the number of rows, of threads, and with the processor, so that a
prompt computed in parts, or elsewhere, would give other bits. Everything here is made of single IEEE-754 operations on
elements (multiply, add, divide, square root, rounding to an integer), which every machine rounds alike, and of sums in an order that
only depends on the index of each term. Rows never see each other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Products are formed whole before they are summed; more elements at once than this leave the processor's cache.
_PRODUCT_ELEMENTS = 1 << 18

_LOG2_E = np.float32(math.log2(math.e))
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_EXP_TERMS = tuple(np.float32(1 / math.factorial(n)) for n in range(7, -1, -1))
_EXP_LIMIT = np.float32(87)


def sum_first(terms: Floats) -> Floats:
    """Return the sum over the first axis, and destroy `terms`.

    Term i is added to term i + h for the halves h = ..., 4, 2, 1. Trailing zeros therefore change nothing, so that a row may be
    summed together with longer ones.
    """
    count = terms.shape[0]
    while count > 1:
        half = 1 << ((count - 1).bit_length() - 1)
        terms[: count - half] += terms[half:count]
        count = half
    # The sign of a zero depends on the number of terms; adding a zero makes it positive.
    total: Floats = terms[0] + np.float32(0)
    return total


def linear(rows: Floats, weights: Floats) -> Floats:
    """Return `rows @ weights`, of shapes (n, k) and (k, m)."""
    count, width = rows.shape[0], weights.shape[1]
    result = np.empty((count, width), np.float32)
    step = max(1, _PRODUCT_ELEMENTS // weights.size)
    for start in range(0, count, step):
        part = rows[start : start + step]
        result[start : start + step] = sum_first(part.T[:, :, None] * weights[:, None, :])
    return result


def exp(x: Floats) -> Floats:
    """Return e to the power of `x`, which is taken as within -87 and 87."""
    x = np.clip(x, -_EXP_LIMIT, _EXP_LIMIT)
    twos = np.rint(x * _LOG2_E)
    rest = x - twos * _LN_2_HIGH - twos * _LN_2_LOW
    power = np.full_like(rest, _EXP_TERMS[0])
    for term in _EXP_TERMS[1:]:
        power = power * rest + term
    result: Floats = np.ldexp(power, twos.astype(np.int32))
    return result


def swish(x: Floats) -> Floats:
    """Return `x` times its logistic function."""
    return x / (np.float32(1) + exp(-x))


def normalise(rows: Floats, gain: Floats) -> Floats:
    """Return rows of shape (n, d) divided by their root mean square, times `gain`."""
    mean = sum_first((rows * rows).T) / np.float32(rows.shape[1])
    result: Floats = rows / np.sqrt(mean + np.float32(1e-5))[:, None] * gain
    return result


def attend(queries: Floats, keys: Floats, values: Floats, start: int) -> Floats:
    """Return causal attention, in the shape of `queries`.

    Args:
        queries: (n, kv heads, queries a kv head, d), of positions `start` and on, already scaled.
        keys, values: (start + n, kv heads, d).
    """
    count, kv_heads, group, width = queries.shape
    result = np.empty_like(queries)
    step = max(1, _PRODUCT_ELEMENTS // (kv_heads * group * width * (start + count)))
    for first in range(0, count, step):
        part = queries[first : first + step]
        end = start + first + part.shape[0]
        # Dimensions: d, row, kv head, query, key.
        products = part.transpose(3, 0, 1, 2)[..., None] * keys[:end].transpose(2, 1, 0)[:, None, :, None, :]
        scores = sum_first(products)
        visible = np.arange(end) <= np.arange(start + first, end)[:, None]
        scores = np.where(visible[:, None, None, :], scores, -np.inf).astype(np.float32)
        weights = exp(scores - scores.max(axis=-1, keepdims=True))
        weights = np.where(visible[:, None, None, :], weights, np.float32(0))
        # Dimensions: key, row, kv head, query (, d).
        ordered = np.ascontiguousarray(weights.transpose(3, 0, 1, 2))
        weighted = sum_first(ordered[..., None] * values[:end, None, :, None, :])
        result[first : first + step] = weighted / sum_first(ordered)[..., None]
    return result


def rotations(angles: NDArray[np.float64], positions: int) -> tuple[Floats, Floats]:
    """Return cosine and sine of `position * angle`, each of shape (positions, angles).

    Angles are at most 1. Their series, and the doubling of positions by the addition theorem, need no library whose last
    digit differs between machines.
    """
    cosine, sine = np.ones_like(angles), np.zeros_like(angles)
    term = np.ones_like(angles)
    for n in range(1, 24):
        term = term * angles / n
        sign = 1.0 if n % 4 < 2 else -1.0
        if n % 2:
            sine = sine + sign * term
        else:
            cosine = cosine + sign * term
    all_cosines, all_sines = np.ones((1, len(angles))), np.zeros((1, len(angles)))
    while len(all_cosines) < positions:
        # cosine and sine are those of as many positions as there are rows.
        all_cosines, all_sines = (
            np.concatenate([all_cosines, all_cosines * cosine - all_sines * sine]),
            np.concatenate([all_sines, all_sines * cosine + all_cosines * sine]),
        )
        cosine, sine = cosine * cosine - sine * sine, 2.0 * sine * cosine
    return all_cosines[:positions].astype(np.float32), all_sines[:positions].astype(np.float32)
