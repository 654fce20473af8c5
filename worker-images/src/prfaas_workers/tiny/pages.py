"""Which page of the KV cache belongs to whom: reference counts, the prefix cache, eviction. No KV in here.

A page is free, held by one or more holders, or cached: held by nobody, but found by the digest of the prefix that ends
with it until its room is needed. Pages that are looked up by digest are complete and never written again, so that
sharing them is safe. Eviction takes the page that was given back first; a prefix is given back from its tail.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PagePool:
    """The pages of one worker, 0 to `count - 1`."""

    def __init__(self, count: int) -> None:
        self._holders = [0] * count
        self._free = list(range(count - 1, -1, -1))
        self._digests: dict[int, bytes] = {}
        self._by_digest: dict[bytes, int] = {}
        # Cached pages, from the one given back first to the one given back last.
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def count(self) -> int:
        """How many pages there are."""
        return len(self._holders)

    @property
    def available(self) -> int:
        """How many pages can be allocated, those of the prefix cache that nobody holds included."""
        return len(self._free) + len(self._idle)

    @property
    def cached(self) -> int:
        """How many pages can be found by digest, held or not."""
        return len(self._digests)

    def holders(self, page: int) -> int:
        """Return how many hold `page`."""
        return self._holders[page]

    def share(self, digests: Sequence[bytes]) -> list[int]:
        """Hold, and return, the pages of the longest leading run of `digests` that is cached."""
        found = []
        for digest in digests:
            page = self._by_digest.get(digest)
            if page is None:
                break
            found.append(page)
        self.hold(found)
        return found

    def hold(self, pages: Sequence[int]) -> None:
        """Add a holder to each page, all of them held or cached."""
        for page in pages:
            self._idle.pop(page, None)
            self._holders[page] += 1

    def allocate(self, count: int) -> list[int] | None:
        """Hold, and return, `count` pages whose content is nobody's; None, and nothing changes, when there are fewer."""
        if count > self.available:
            return None
        pages = []
        for _ in range(count):
            if self._free:
                page = self._free.pop()
            else:
                page, _ = self._idle.popitem(last=False)
                del self._by_digest[self._digests.pop(page)]
            self._holders[page] = 1
            pages.append(page)
        return pages

    def publish(self, pages: Sequence[int], digests: Sequence[bytes]) -> None:
        """Let complete pages be found by digest. The first page of a digest stays its page; another one is a duplicate."""
        for page, digest in zip(pages, digests, strict=True):
            if digest not in self._by_digest and page not in self._digests:
                self._by_digest[digest] = page
                self._digests[page] = digest

    def release(self, pages: Sequence[int]) -> None:
        """Take a holder from each page of a sequence, in its order."""
        for page in reversed(pages):
            if self._holders[page] < 1:
                raise ValueError(f"page {page} is released more often than it is held")
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._digests:
                    self._idle[page] = None
                else:
                    self._free.append(page)
