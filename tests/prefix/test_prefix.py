"""The prefix index claims what was inserted, and no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core import errors, prefix

TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=40)


def hashes(tokens: list[int], salt: str = "") -> tuple[bytes, ...]:
    return prefix.hash_tokens(tokens, block_tokens=4, model="m", salt=salt)


@given(TOKENS, TOKENS, st.data())
def test_hashes_are_equal_exactly_up_to_the_shared_blocks(
    first: list[int], second: list[int], data: st.DataObject
) -> None:
    shared = data.draw(st.integers(0, min(len(first), len(second))))
    second[:shared] = first[:shared]
    blocks = zip(hashes(first), hashes(second), strict=False)
    for index, (one, other) in enumerate(blocks):
        end = 4 * (index + 1)
        assert (one == other) == (first[:end] == second[:end])
    assert len(hashes(first)) == len(first) // 4


def test_the_salt_separates_tenants_and_models() -> None:
    assert hashes([1, 2, 3, 4], "a") != hashes([1, 2, 3, 4], "b")


@pytest.mark.parametrize("bad", [[-1], [2**32], ["1"], [1.5], [None]])
def test_bad_token_ids_are_refused(bad: list[int]) -> None:
    with pytest.raises(errors.InvalidValueError, match="token_ids"):
        hashes(bad)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "remove", "drop"]),
        st.sampled_from(["a", "b"]),
        st.lists(st.integers(0, 2), max_size=24),
    ),
    max_size=30,
)


@given(OPERATIONS, st.integers(0, 40))
def test_the_index_never_claims_more_than_was_inserted(
    operations: list[tuple[str, str, list[int]]], capacity_tokens: int
) -> None:
    index = prefix.PrefixIndex(block_tokens=4, capacity_tokens=capacity_tokens)
    inserted: dict[str, set[bytes]] = {"a": set(), "b": set()}
    for action, worker, tokens in operations:
        blocks = hashes(tokens)
        if action == "insert":
            index.insert(worker, blocks)
            inserted[worker].update(blocks)
        elif action == "remove":
            index.remove(worker, blocks)
            inserted[worker].difference_update(blocks)
        else:
            index.drop(worker)
            inserted[worker].clear()
        for name in ("a", "b"):
            assert index.held_tokens(name) <= capacity_tokens
            run = 0
            for digest in blocks:
                if digest not in inserted[name]:
                    break
                run += 4
            assert index.match(blocks).get(name, 0) <= run


def test_a_prompt_that_fits_is_found_whole_and_its_head_outlives_its_tail() -> None:
    index = prefix.PrefixIndex(block_tokens=4, capacity_tokens=16)
    long, other = hashes(list(range(16))), hashes(list(range(100, 108)))
    index.insert("w", long)
    assert index.match(long) == {"w": 16}
    index.insert("w", other)
    assert index.match(long) == {"w": 8}
    assert index.match(other) == {"w": 8}


def test_only_the_retained_workers_are_remembered() -> None:
    index = prefix.PrefixIndex(block_tokens=4, capacity_tokens=16)
    for worker in "abc":
        index.insert(worker, hashes([1, 2, 3, 4]))
    index.retain(["b"])
    assert index.match(hashes([1, 2, 3, 4])) == {"b": 4}


def test_text_and_tokens_never_match() -> None:
    text = prefix.hash_text(bytes(16), block_bytes=16, model="m")
    assert len(text) == 1
    assert not set(text) & set(hashes([0, 0, 0, 0]))
