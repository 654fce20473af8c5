"""The weights of the tiny model, made from a seed, and what identifies them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

import numpy as np

from prfaas_workers.tiny.arithmetic import Floats

VOCABULARY = 256


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder-only transformer with grouped queries; every byte is a token.

    Attributes:
        layers: transformer blocks.
        heads, kv_heads: query heads, and how many key and value heads they share; the former is a multiple of the latter.
        head_width: of each head; even, since rotary positions turn pairs.
        hidden_width: of the feed-forward part.
    """

    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 16
    hidden_width: int = 128

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.head_width


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One block: attention, then the gated feed-forward part; matrices map rows from the left."""

    attention_gain: Floats
    query: Floats
    key: Floats
    value: Floats
    output: Floats
    feed_gain: Floats
    gate: Floats
    up: Floats
    down: Floats


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of one model."""

    shape: Shape
    embedding: Floats
    layers: tuple[LayerWeights, ...]
    final_gain: Floats
    head: Floats
    revision: str


def make(seed: int, shape: Shape | None = None) -> Weights:
    """Return the weights of `seed`: the same bits on every machine.

    `revision` names the seed, and ends in a digest of the shape and of every weight.
    """
    shape = shape or Shape()
    digest = hashlib.blake2b(repr(sorted(asdict(shape).items())).encode(), digest_size=6)

    def draw(name: str, rows: int, columns: int, gain: float = 1.0) -> Floats:
        raw = hashlib.shake_256(f"prfaas-tiny/{seed}/{name}".encode()).digest(4 * rows * columns)
        digest.update(raw)
        # 24 bits fill a float's mantissa, so that no rounding is involved; the variance is that of the inputs over rows.
        uniform = (np.frombuffer(raw, "<u4") >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
        scale = np.float32(gain) * np.sqrt(np.float32(3) / np.float32(rows))
        return np.ascontiguousarray((uniform * scale).reshape(rows, columns).astype(np.float32))

    width, kv_width = shape.width, shape.kv_heads * shape.head_width
    ones = np.ones(width, np.float32)
    # A row of the embedding is an input by itself, not a sum over the vocabulary.
    embedding = draw("embedding", VOCABULARY, width, gain=VOCABULARY**0.5)
    layers = tuple(
        LayerWeights(
            attention_gain=ones,
            query=draw(f"{index}/query", width, width, gain=2.0),
            key=draw(f"{index}/key", width, kv_width, gain=2.0),
            value=draw(f"{index}/value", width, kv_width),
            output=draw(f"{index}/output", width, width, gain=2.0),
            feed_gain=ones,
            gate=draw(f"{index}/gate", width, shape.hidden_width),
            up=draw(f"{index}/up", width, shape.hidden_width),
            down=draw(f"{index}/down", shape.hidden_width, width),
        )
        for index in range(shape.layers)
    )
    head = draw("head", width, VOCABULARY)
    return Weights(shape, embedding, layers, ones, head, f"seed-{seed}-{digest.hexdigest()}")
