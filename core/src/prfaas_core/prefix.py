"""Which leading part of a prompt a pool's workers hold in their prefix caches.

A prompt is cut into blocks, and each full block is hashed together with the hash of the block before it, so that equal
hashes mean equal prompts up to there. `PrefixIndex` remembers, per worker, the blocks that a router believes to be cached.

The index errs low: it forgets the least recently used block when the worker's capacity is reached and holds full blocks
only. A match that the worker has evicted in the meantime costs a prefill that is longer than expected, never a wrong
token, because the worker looks up its own cache.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from prfaas_core import errors

HASH_BYTES = 16


def token_bytes(token_ids: Sequence[int]) -> bytes:
    """Return token ids as little-endian 32-bit words, the form that `block_hashes` takes.

    Raises:
        InvalidValueError: an id is not a whole number from 0 to 2**32 - 1.
    """
    try:
        words = array("I", token_ids)
    except (TypeError, OverflowError) as error:
        raise errors.InvalidValueError(
            "token_ids", _culprit(token_ids), "give token ids from 0 to 4294967295"
        ) from error
    return words.tobytes()


def block_hashes(content: bytes, block_bytes: int, salt: str) -> tuple[bytes, ...]:
    """Return the chained hash of every full block of a prompt.

    Args:
        content: the prompt: token ids as `token_bytes` gives them, or UTF-8 text.
        block_bytes: the length of a block in bytes of `content`.
        salt: what else must be equal for KV to be reusable: the model, a tenant's cache salt.
    """
    errors.count("block_bytes", block_bytes, minimum=1)
    parent = hashlib.blake2b(salt.encode(), digest_size=HASH_BYTES).digest()
    view = memoryview(content)
    hashes = []
    for start in range(0, len(content) - block_bytes + 1, block_bytes):
        parent = hashlib.blake2b(view[start : start + block_bytes], digest_size=HASH_BYTES, key=parent).digest()
        hashes.append(parent)
    return tuple(hashes)


class PrefixIndex:
    """The blocks believed to be in the caches of the workers of one pool.

    Args:
        block_tokens: tokens of one block.
        capacity_tokens: what one worker's cache holds; 0 remembers nothing.
    """

    __slots__ = ("_block_tokens", "_capacity_blocks", "_workers")

    def __init__(self, block_tokens: int, capacity_tokens: int) -> None:
        self._block_tokens = errors.count("block_tokens", block_tokens, minimum=1)
        self._capacity_blocks = errors.count("capacity_tokens", capacity_tokens) // block_tokens
        self._workers: dict[str, OrderedDict[bytes, None]] = {}

    def match(self, worker: str, hashes: Sequence[bytes]) -> int:
        """Return how many leading tokens of a prompt `worker` holds."""
        held = self._workers.get(worker)
        if not held or not hashes or hashes[0] not in held:
            return 0
        # A block is only ever stored together with those before it, but the older ones may be evicted first, so the
        # leading run is counted rather than searched for.
        count = 0
        for digest in hashes:
            if digest not in held:
                break
            count += 1
        return count * self._block_tokens

    def insert(self, worker: str, hashes: Sequence[bytes]) -> None:
        """Remember that `worker` computed or received the blocks of a prompt."""
        if self._capacity_blocks == 0 or not hashes:
            return
        held = self._workers.setdefault(worker, OrderedDict())
        # From the last block to the first: a prompt's head is shared by more prompts than its tail, so it is to be
        # forgotten last.
        for digest in reversed(hashes[: self._capacity_blocks]):
            held[digest] = None
            held.move_to_end(digest)
        while len(held) > self._capacity_blocks:
            held.popitem(last=False)

    def remove(self, worker: str, hashes: Iterable[bytes]) -> None:
        """Forget blocks that `worker` evicted."""
        held = self._workers.get(worker)
        if held is not None:
            for digest in hashes:
                held.pop(digest, None)

    def forget(self, worker: str) -> None:
        """Forget a worker that is gone or has restarted."""
        self._workers.pop(worker, None)

    def retain(self, workers: Iterable[str]) -> None:
        """Forget every worker that is not among `workers`."""
        for gone in self._workers.keys() - set(workers):
            del self._workers[gone]

    def size_tokens(self, worker: str) -> int:
        """Return how many tokens `worker` is believed to hold."""
        return len(self._workers.get(worker, ())) * self._block_tokens


def _culprit(token_ids: Iterable[object]) -> object:
    for token in token_ids:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**32:
            return token
    return token_ids
