"""The memory of the paged KV cache: rows of a sequence in, rows of a sequence out, and a page's raw bytes for a transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prfaas_core.errors import InvalidValueError
from prfaas_workers.kv_transfer.wire import TransferError
from prfaas_workers.tiny.arithmetic import Floats
from prfaas_workers.tiny.elements import element_type
from prfaas_workers.tiny.weights import Shape

# Dimensions in memory, by the names that vLLM gives layouts: layer, block, token in the block, head, channel. Keys and
# values are the two halves of a block.
LAYOUTS = {"LBNHC": (0, 1, 2, 3, 4, 5), "LBHNC": (0, 1, 2, 4, 3, 5)}


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the bytes of a page mean.

    Attributes:
        page_tokens: tokens of a page.
        dtype: of the elements; see `elements`.
        layout: a key of `LAYOUTS`.
    """

    shape: Shape
    page_tokens: int
    dtype: str
    layout: str

    def __post_init__(self) -> None:
        element_type(self.dtype)
        if self.layout not in LAYOUTS:
            raise InvalidValueError("kv.layout", self.layout, f"give one of {', '.join(LAYOUTS)}")

    @property
    def page_bytes(self) -> int:
        """Bytes of one page of one layer."""
        elements = 2 * self.page_tokens * self.shape.kv_heads * self.shape.head_width
        return elements * np.dtype(element_type(self.dtype).storage).itemsize

    def pages(self, tokens: int) -> int:
        """Return how many pages hold so many tokens."""
        return -(-tokens // self.page_tokens)


class PageStore:
    """Pages of keys and values for every layer.

    Methods that take `table`, the pages of a sequence in order, count positions from the sequence's first token.
    """

    def __init__(self, geometry: Geometry, pages: int) -> None:
        shape, order = geometry.shape, LAYOUTS[geometry.layout]
        self._geometry = geometry
        self._type = element_type(geometry.dtype)
        sizes = (shape.layers, pages, 2, geometry.page_tokens, shape.kv_heads, shape.head_width)
        self._memory = np.zeros(tuple(sizes[axis] for axis in order), self._type.storage)
        # The same memory with its dimensions in the order of `sizes`, whatever the layout.
        self._view = self._memory.transpose(np.argsort(order))

    def write(self, layer: int, table: Sequence[int], start: int, keys: Floats, values: Floats) -> None:
        """Store the keys and values, each (n, kv heads, d), of positions `start` and on."""
        positions = np.arange(start, start + len(keys))
        pages = np.asarray(table)[positions // self._geometry.page_tokens]
        slots = positions % self._geometry.page_tokens
        self._view[layer][pages, 0, slots] = self._type.pack(keys)
        self._view[layer][pages, 1, slots] = self._type.pack(values)

    def read(self, layer: int, table: Sequence[int], end: int) -> tuple[Floats, Floats]:
        """Return the keys and values, each (end, kv heads, d), of the positions before `end`."""
        pages = list(table[: self._geometry.pages(end)])
        shape = self._geometry.shape
        rows = (len(pages) * self._geometry.page_tokens, shape.kv_heads, shape.head_width)
        keys, values = (self._view[layer][pages, half].reshape(rows)[:end] for half in (0, 1))
        return self._type.unpack(keys), self._type.unpack(values)

    def export(self, layer: int, pages: Sequence[int], tokens: int) -> bytes:
        """Return the bytes of `pages`, the last ones of a sequence of `tokens` tokens.

        What lies in the last page after the sequence's end belongs to an earlier owner, and is sent as zeros.
        """
        copied = self._memory[layer, list(pages)]
        rest = tokens % self._geometry.page_tokens
        if rest and len(pages):
            tail = copied[-1] if self._geometry.layout == "LBNHC" else copied[-1].swapaxes(1, 2)
            tail[:, rest:] = 0
        return copied.tobytes()

    def load(self, layer: int, pages: Sequence[int], payload: bytes | memoryview) -> None:
        """Put exported bytes into `pages`; `TransferError` when they are not exactly so many pages."""
        expected_bytes = len(pages) * self._geometry.page_bytes
        if layer >= self._geometry.shape.layers or len(payload) != expected_bytes:
            raise TransferError(
                f"layer {layer} has {len(payload)} bytes; {expected_bytes} are expected, "
                f"in {self._geometry.shape.layers} layers"
            )
        received = np.frombuffer(payload, self._type.storage)
        self._memory[layer, list(pages)] = received.reshape(len(pages), *self._memory.shape[2:])
