"""No page has two owners, and every page comes back."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core.errors import InvalidValueError
from prfaas_core.prefix import hash_tokens
from prfaas_workers.kv_transfer.wire import TransferError
from prfaas_workers.tiny import weights
from prfaas_workers.tiny.model import Model
from prfaas_workers.tiny.pages import PagePool
from prfaas_workers.tiny.store import Geometry, PageStore

PAGE_TOKENS = 2
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["request", "request", "hold", "publish", "release"]),
        st.integers(0, 20),
        st.lists(st.integers(0, 1), max_size=10),
    ),
    max_size=80,
)


@given(ACTIONS)
def test_pages_are_conserved(actions: list[tuple[str, int, list[int]]]) -> None:
    """Against a plain account of who holds what: counts agree, new pages are nobody else's, found pages hold the prefix."""
    pool = PagePool(12)
    live: list[tuple[list[int], tuple[bytes, ...]]] = []
    content: dict[int, bytes] = {}
    for action, number, tokens in actions:
        if action == "request":
            digests = hash_tokens(tokens, block_tokens=PAGE_TOKENS, model="m")
            before = Counter(page for table, _ in live for page in table)
            shared = pool.share(digests)
            assert [content[page] for page in shared] == list(digests[: len(shared)])
            fresh = pool.allocate(len(digests) + 1 - len(shared))
            if fresh is None:
                pool.release(shared)
                continue
            assert len(set(fresh)) == len(fresh)
            assert not set(fresh) & (set(before) | set(shared))
            for page in fresh:
                content.pop(page, None)
            live.append(([*shared, *fresh], digests))
        elif live and action == "hold":
            table, digests = live[number % len(live)]
            pool.hold(table)
            live.append((table, digests))
        elif live and action == "publish":
            table, digests = live[number % len(live)]
            # Only a page whose content is this prefix's, or not yet anybody's, may be published for it.
            if all(content.get(page, digest) == digest for page, digest in zip(table, digests, strict=False)):
                content |= dict(zip(table, digests, strict=False))
                pool.publish(table[: len(digests)], digests)
        elif live and action == "release":
            table, _ = live.pop(number % len(live))
            pool.release(table)
        held = Counter(page for table, _ in live for page in table)
        assert [pool.holders(page) for page in range(pool.count)] == [held[page] for page in range(pool.count)]
        assert pool.available == pool.count - len(held)
    for table, _ in live:
        pool.release(table)
    assert pool.available == pool.count
    everything = pool.allocate(pool.count)
    assert everything is not None
    assert sorted(everything) == list(range(pool.count))
    assert pool.cached == 0


def test_eviction_takes_the_tail_of_the_oldest_prefix_first() -> None:
    """The head of a prefix is what most others share."""
    pool = PagePool(4)
    digests = {name: hash_tokens([number] * 4, block_tokens=2, model="m") for number, name in enumerate("ab")}
    for name in "ab":
        table = pool.allocate(2) or []
        pool.publish(table, digests[name])
        pool.release(table)
    assert pool.allocate(1) is not None
    assert [len(pool.share(digests[name])) for name in "ab"] == [1, 2]


def test_a_page_is_not_given_back_twice() -> None:
    """An error in the account is raised where it happens."""
    pool = PagePool(2)
    table = pool.allocate(1) or []
    pool.release(table)
    with pytest.raises(ValueError, match="page 0 is released more often"):
        pool.release(table)


@pytest.mark.parametrize("layout", ["LBNHC", "LBHNC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_exported_pages_are_the_sequence_and_nothing_else(layout: str, dtype: str) -> None:
    """A page's bytes load elsewhere as the same KV; what an earlier owner left behind the end of the sequence stays here."""
    geometry = Geometry(weights.Shape(), 8, dtype, layout)
    model = Model(weights.make(0), 64)
    here, there = PageStore(geometry, 4), PageStore(geometry, 4)
    model.forward(list(range(32)), here, [3, 1, 0, 2], 0)
    model.forward(list(range(100, 113)), here, [2, 0], 0)
    for layer in range(model.layers):
        payload = here.export(layer, [2, 0], 13)
        assert len(payload) == 2 * geometry.page_bytes
        there.load(layer, [1, 2], payload)
        for mine, theirs in zip(here.read(layer, [2, 0], 13), there.read(layer, [1, 2], 13), strict=True):
            assert mine.tobytes() == theirs.tobytes()
        keys, values = there.read(layer, [1, 2], 16)
        assert not keys[13:].any()
        assert not values[13:].any()


def test_bytes_that_are_not_so_many_pages_are_refused() -> None:
    """Also a layer that the model does not have."""
    store = PageStore(Geometry(weights.Shape(), 8, "float32", "LBNHC"), 4)
    for layer, size_bytes in ((0, 2047), (0, 4096), (4, 2048)):
        with pytest.raises(TransferError, match="2048 are expected, in 4 layers"):
            store.load(layer, [0], bytes(size_bytes))


@pytest.mark.parametrize(("field", "change"), [("kv.dtype", {"dtype": "int4"}), ("kv.layout", {"layout": "NHD"})])
def test_unknown_formats_are_named(field: str, change: dict[str, str]) -> None:
    """The error names the field and what there is."""
    settings = {"dtype": "float32", "layout": "LBNHC"} | change
    with pytest.raises(InvalidValueError, match=f"{field}: .* give one of"):
        Geometry(weights.Shape(), 8, **settings)
