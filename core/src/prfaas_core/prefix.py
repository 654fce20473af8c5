"""Prefix blocks: how a prompt is hashed, and which worker holds how much of it.

A prompt is cut into whole blocks, and each block's digest covers the one before it, so an equal digest means an equal
prefix up to and including that block. Model and salt go into the root: prompts of different models, or of tenants that
must not see each other's cache, never match. The tail that does not fill a block is not hashed, because engines reuse
filled blocks only.

`PrefixIndex` is an estimate of caches elsewhere, fed with what was sent there. It is bounded like the caches are, and it
errs low where a worker caches more than it was told to assume, and high after an eviction it was not told of; the cost of
either is a longer prefill, never a wrong token. Recurrent state of hybrid models, reusable at an exact length only, is not
modelled: the index speaks of full-attention blocks.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from prfaas_core import errors

DIGEST_BYTES = 16

_TOKEN_BYTES = 4


def hash_tokens(
    token_ids: array[int] | memoryview | Sequence[int], *, block_tokens: int, model: str, salt: str = ""
) -> tuple[bytes, ...]:
    """Return one digest for each whole block of `block_tokens` token ids.

    An `array('I')` or a contiguous memoryview of unsigned 32-bit items is hashed in place; any other sequence is copied
    into one first. Digests are stable between processes on machines of the same byte order.

    Raises:
        InvalidValueError: `block_tokens` below 1, or an id outside of 0 .. 2**32 - 1.
    """
    errors.count("block_tokens", block_tokens, minimum=1)
    if not isinstance(token_ids, array | memoryview) or memoryview(token_ids).format != "I":
        try:
            token_ids = array("I", token_ids)
        except (OverflowError, TypeError) as error:
            raise errors.InvalidValueError(
                "token_ids", type(token_ids).__name__, "give whole numbers from 0 to 2**32 - 1"
            ) from error
    return _chain(memoryview(token_ids).cast("B"), block_tokens * _TOKEN_BYTES, b"tokens", model, salt)


def hash_text(
    prompt: bytes | bytearray | memoryview, *, block_bytes: int, model: str, salt: str = ""
) -> tuple[bytes, ...]:
    """Return one digest for each whole block of `block_bytes` bytes of UTF-8 text.

    For prompts that cannot be tokenised here: `block_bytes` is the block in tokens times the bytes a token. Text and
    token-id prompts never match each other.
    """
    errors.count("block_bytes", block_bytes, minimum=1)
    return _chain(memoryview(prompt).cast("B"), block_bytes, b"text", model, salt)


def _chain(data: memoryview, block_bytes: int, kind: bytes, model: str, salt: str) -> tuple[bytes, ...]:
    # Lengths in front keep ("ab", "c") and ("a", "bc") apart; the block size keeps unequal granularities apart.
    root = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in (kind, str(block_bytes).encode(), model.encode(), salt.encode()):
        root.update(len(part).to_bytes(8, "little"))
        root.update(part)
    digest = root.digest()
    digests: list[bytes] = []
    blake2b = hashlib.blake2b
    for start in range(0, len(data) - block_bytes + 1, block_bytes):
        block = blake2b(digest, digest_size=DIGEST_BYTES)
        block.update(data[start : start + block_bytes])
        digest = block.digest()
        digests.append(digest)
    return tuple(digests)


class PrefixIndex:
    """Which worker of one pool holds which prefix blocks; least recently used blocks go first.

    Every worker has the same capacity. A touched prefix is refreshed from its tail to its head, so that eviction takes
    the tail before what it hangs on. One lookup answers for all workers: each block keeps a bit set of its holders.
    Not safe for use from several threads.
    """

    __slots__ = ("_block_tokens", "_capacity_blocks", "_free_bits", "_holders", "_workers")

    def __init__(self, *, capacity_tokens: int, block_tokens: int) -> None:
        """Make an empty index.

        Args:
            capacity_tokens: prefix cache of one worker; less than a block keeps nothing.
            block_tokens: tokens of a block, as the digests were made.
        """
        errors.count("capacity_tokens", capacity_tokens)
        self._block_tokens = errors.count("block_tokens", block_tokens, minimum=1)
        self._capacity_blocks = capacity_tokens // block_tokens
        # Per worker its bit, and its blocks from the least to the most recently used.
        self._workers: dict[str, tuple[int, OrderedDict[bytes, None]]] = {}
        self._holders: dict[bytes, int] = {}
        self._free_bits: list[int] = []

    @property
    def block_tokens(self) -> int:
        """Tokens of a block."""
        return self._block_tokens

    def match(self, hashes: Sequence[bytes]) -> dict[str, int]:
        """Return the tokens of the leading run of `hashes` that each worker holds; workers that hold none are absent."""
        holders = self._holders.get
        if not hashes or not (running := holders(hashes[0], 0)):
            return {}
        ended: list[tuple[int, int]] = []
        depth = 0
        for digest in hashes:
            still = running & holders(digest, 0)
            if still != running:
                ended.append((running & ~still, depth))
                if not still:
                    running = 0
                    break
                running = still
            depth += 1
        if running:
            ended.append((running, depth))
        names = {bit: name for name, (bit, _) in self._workers.items()}
        found: dict[str, int] = {}
        for bits, blocks in ended:
            while bits:
                lowest = bits & -bits
                found[names[lowest]] = blocks * self._block_tokens
                bits ^= lowest
        return found

    def best(self, hashes: Sequence[bytes]) -> int:
        """Return the tokens of the longest leading run that any worker holds."""
        return max(self.match(hashes).values(), default=0)

    def insert(self, worker: str, hashes: Sequence[bytes]) -> None:
        """Record that `worker` holds the blocks of a prompt, now the most recently used ones.

        Of a prompt longer than the capacity the leading part is kept, since only that can match.
        """
        bit, blocks = self._admit(worker)
        holders = self._holders
        for digest in reversed(hashes[: self._capacity_blocks]):
            if digest in blocks:
                blocks.move_to_end(digest)
            else:
                blocks[digest] = None
                holders[digest] = holders.get(digest, 0) | bit
        while len(blocks) > self._capacity_blocks:
            evicted, _ = blocks.popitem(last=False)
            self._release(evicted, bit)

    def remove(self, worker: str, hashes: Iterable[bytes]) -> None:
        """Forget blocks of `worker`, for example those it reports as evicted; unknown ones are ignored."""
        if worker not in self._workers:
            return
        bit, blocks = self._workers[worker]
        for digest in hashes:
            if digest in blocks:
                del blocks[digest]
                self._release(digest, bit)

    def drop(self, worker: str) -> None:
        """Forget a worker that restarted or went away; an unknown one is ignored."""
        if worker not in self._workers:
            return
        bit, blocks = self._workers.pop(worker)
        for digest in blocks:
            self._release(digest, bit)
        self._free_bits.append(bit)

    def retain(self, workers: Iterable[str]) -> None:
        """Drop every worker that is not among `workers`."""
        for worker in self._workers.keys() - set(workers):
            self.drop(worker)

    def clear(self) -> None:
        """Forget everything."""
        self._workers.clear()
        self._holders.clear()
        self._free_bits.clear()

    def held_tokens(self, worker: str) -> int:
        """Return the tokens recorded for `worker`, never above the capacity."""
        return len(self._workers[worker][1]) * self._block_tokens if worker in self._workers else 0

    def _admit(self, worker: str) -> tuple[int, OrderedDict[bytes, None]]:
        if worker not in self._workers:
            bit = self._free_bits.pop() if self._free_bits else 1 << len(self._workers)
            self._workers[worker] = (bit, OrderedDict())
        return self._workers[worker]

    def _release(self, digest: bytes, bit: int) -> None:
        rest = self._holders[digest] & ~bit
        if rest:
            self._holders[digest] = rest
        else:
            del self._holders[digest]
