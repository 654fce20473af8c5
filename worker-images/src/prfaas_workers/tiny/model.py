"""The forward pass, one layer at a time, over a paged KV cache.

Keys and values are rounded to the cache's element type and read back before they are used, also by the pass that made
them: what a token sees is the same whether its prefix was computed a moment ago, in another request, or on another worker.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prfaas_workers.tiny import arithmetic
from prfaas_workers.tiny.arithmetic import Floats
from prfaas_workers.tiny.store import PageStore
from prfaas_workers.tiny.weights import Weights


class Model:
    """A decoder-only transformer: root-mean-square norms, rotary positions, grouped queries, gated feed-forward parts."""

    def __init__(self, weights: Weights, max_len_tokens: int) -> None:
        self._weights = weights
        pairs = np.arange(weights.shape.head_width // 2, dtype=np.float64)
        # Powers of two, so that the angles themselves need no rounding: 1 down to 2**-14 for heads of 16.
        self._cosines, self._sines = arithmetic.rotations(0.25**pairs, max_len_tokens)
        self._scale = np.float32(1) / np.sqrt(np.float32(weights.shape.head_width))

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return self._weights.shape.layers

    def embed(self, token_ids: Sequence[int]) -> Floats:
        """Return the residual stream, (n, width), before the first layer."""
        return self._weights.embedding[np.asarray(token_ids, np.intp)]

    def layer(self, index: int, stream: Floats, store: PageStore, table: Sequence[int], start: int) -> Floats:
        """Return the stream after layer `index`, for tokens at positions `start` and on; their KV goes into the store.

        The KV of positions before `start` is in the pages of `table` already.
        """
        shape, weights = self._weights.shape, self._weights.layers[index]
        count = len(stream)
        normed = arithmetic.normalise(stream, weights.attention_gain)
        queries = arithmetic.linear(normed, weights.query).reshape(count, shape.heads, shape.head_width)
        keys = arithmetic.linear(normed, weights.key).reshape(count, shape.kv_heads, shape.head_width)
        values = arithmetic.linear(normed, weights.value).reshape(count, shape.kv_heads, shape.head_width)
        store.write(index, table, start, self._rotate(keys, start), values)
        all_keys, all_values = store.read(index, table, start + count)
        grouped = (self._rotate(queries, start) * self._scale).reshape(count, shape.kv_heads, -1, shape.head_width)
        attended = arithmetic.attend(grouped, all_keys, all_values, start).reshape(count, shape.width)
        stream = stream + arithmetic.linear(attended, weights.output)
        normed = arithmetic.normalise(stream, weights.feed_gain)
        gated = arithmetic.swish(arithmetic.linear(normed, weights.gate)) * arithmetic.linear(normed, weights.up)
        return stream + arithmetic.linear(gated, weights.down)

    def forward(self, token_ids: Sequence[int], store: PageStore, table: Sequence[int], start: int) -> Floats:
        """Run all layers over tokens at positions `start` and on; return the logits, (vocabulary,), after the last one."""
        stream = self.embed(token_ids)
        for index in range(self.layers):
            stream = self.layer(index, stream, store, table, start)
        return self.logits(stream)

    def logits(self, stream: Floats) -> Floats:
        """Return the logits, (vocabulary,), of the last row of the stream after all layers."""
        last = arithmetic.normalise(stream[-1:], self._weights.final_gain)
        result: Floats = arithmetic.linear(last, self._weights.head)[0]
        return result

    def _rotate(self, heads: Floats, start: int) -> Floats:
        """Turn the pairs of each head, (n, heads, d), by the angles of positions `start` and on."""
        half = heads.shape[-1] // 2
        cosine = self._cosines[start : start + len(heads), None]
        sine = self._sines[start : start + len(heads), None]
        first, second = heads[..., :half], heads[..., half:]
        return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
