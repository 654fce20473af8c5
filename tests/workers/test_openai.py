"""Prompts become token ids without a tokenizer."""

import pytest

from prfaas_workers.openai import text_tokens


@pytest.mark.parametrize(
    ("bytes_per_token", "expected"),
    [(1, [97, 98, 99, 195, 188, 100]), (4, [0xC3636261, 0x64BC]), (2.5, [0x6261, 0xC363, 0x64BC])],
)
def test_a_token_stands_for_so_many_bytes(bytes_per_token: float, expected: list[int]) -> None:
    """Its value is that of the bytes, whatever their number."""
    assert text_tokens("abcüd", bytes_per_token).tolist() == expected
