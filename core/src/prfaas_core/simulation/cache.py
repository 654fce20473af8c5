"""The prefix caches of one pool: full-attention blocks, and recurrent state that only fits its own length.

A worker's cache has one room for both, as in vLLM's hybrid manager. A hybrid model can go on from a cached prefix only
where the state at exactly that length was stored: here at the last whole block of every prompt that was computed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from prfaas_core.prefix import PrefixIndex


class PoolCache:
    """Caches of the workers of one pool, by worker name.

    Args:
        capacity_tokens: of one worker.
        block_tokens: of a block.
        hybrid: whether recurrent state is needed to go on from a prefix.
        state_tokens: room that one state takes.
    """

    __slots__ = ("_block_tokens", "_hybrid", "_index", "_most_states", "_states")

    def __init__(self, capacity_tokens: int, block_tokens: int, *, hybrid: bool, state_tokens: int) -> None:
        # States and blocks share the room; half of it at most goes to states, so that blocks are left to go on from.
        self._most_states = capacity_tokens // 2 // state_tokens if hybrid and state_tokens else 2**62
        reserved = capacity_tokens // 2 if hybrid and state_tokens else 0
        self._index = PrefixIndex(capacity_tokens=capacity_tokens - reserved, block_tokens=block_tokens)
        self._block_tokens = block_tokens
        self._hybrid = hybrid
        self._states: dict[str, OrderedDict[bytes, None]] = {}

    def match(self, keys: Sequence[bytes]) -> dict[str, int]:
        """Return the leading tokens that each worker can go on from; workers that hold none are absent."""
        found = self._index.match(keys)
        if not self._hybrid or not found:
            return found
        usable: dict[str, int] = {}
        for worker, tokens in found.items():
            states = self._states.get(worker)
            if states:
                for depth in range(tokens // self._block_tokens, 0, -1):
                    if keys[depth - 1] in states:
                        usable[worker] = depth * self._block_tokens
                        break
        return usable

    def insert(self, worker: str, keys: Sequence[bytes]) -> None:
        """Record that a worker computed or received a prompt."""
        self._index.insert(worker, keys)
        if self._hybrid and keys:
            states = self._states.setdefault(worker, OrderedDict())
            states[keys[-1]] = None
            states.move_to_end(keys[-1])
            while len(states) > self._most_states:
                states.popitem(last=False)

    def drop(self, worker: str) -> None:
        """Forget a worker that died or left."""
        self._index.drop(worker)
        self._states.pop(worker, None)

    def held_tokens(self, workers: Iterable[str]) -> int:
        """Return the tokens of blocks held by workers."""
        return sum(self._index.held_tokens(worker) for worker in workers)
