"""A transfer that is cut or changed on its way is an error or a correct computation here, and never a wrong token."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_workers.engine import KVLoadError
from prfaas_workers.testing.local_worker import PULL, running, unified
from prfaas_workers.testing.tampering import Tampering

pytestmark = pytest.mark.slow

PROMPT = [ord(letter) for letter in "What is cut or changed on its way"]
MAX_TOKENS = 5


async def through(
    push: bool, recompute: bool, stall_timeout_s: float = 30.0, **damage: Any
) -> tuple[list[int] | None, dict[bool, int]]:
    """Hand PROMPT over through a damaging proxy; return the tokens, None for an error, and the bytes that passed.

    Afterwards the decode worker serves the prompt rightly from what its cache holds, and neither holds a page.
    """
    async with (
        running(page_tokens=8) as prefill,
        running(page_tokens=8, recompute=recompute, stall_timeout_s=stall_timeout_s) as decode,
    ):
        with Tampering(("127.0.0.1", prefill.port), **damage) as proxy:
            leg = PULL | ({"transfer_mode": "push"} if push else {})
            params = (await prefill.run(PROMPT, 1, leg, "r")).transfer
            params = (prefill.push_params("r") if push else params) | {"remote_port": proxy.port}
            try:
                tokens = (await decode.run(PROMPT, MAX_TOKENS, params, "r")).token_ids
            except KVLoadError:
                tokens = None
            assert decode.held() == 0
            again = await decode.run(PROMPT, MAX_TOKENS)
            assert again.token_ids == unified(tuple(PROMPT), MAX_TOKENS)[0]
        passed = dict(proxy.passed)
    return tokens, passed


@pytest.fixture(scope="session")
def stream_bytes() -> dict[bool, int]:
    """How many bytes an undamaged transfer has, by direction; a grant's length depends on the engine's id a little."""
    tokens, passed = asyncio.run(through(False, False))
    assert tokens == unified(tuple(PROMPT), MAX_TOKENS)[0]
    assert passed[True] > 4 * 5 * 2048
    return passed


@given(st.data(), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_cut_transfer_is_never_used(
    stream_bytes: dict[bool, int], data: st.DataObject, push: bool, recompute: bool
) -> None:
    """Wherever the stream ends."""
    position = data.draw(st.integers(0, stream_bytes[True] - 10))
    tokens, _ = asyncio.run(through(push, recompute, cut_at=position))
    assert tokens == (unified(tuple(PROMPT), MAX_TOKENS)[0] if recompute else None)


@pytest.mark.parametrize("short_bytes", [1, 8, 16, 17, 40])
def test_a_transfer_without_its_end_is_never_used(stream_bytes: dict[bool, int], short_bytes: int) -> None:
    """All layers may be there: without the trailer they are not a KV."""
    tokens, _ = asyncio.run(through(False, False, cut_at=stream_bytes[True] - short_bytes))
    assert tokens is None


@given(st.data(), st.booleans(), st.booleans(), st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_a_changed_byte_is_never_used(
    stream_bytes: dict[bool, int], data: st.DataObject, to_reader: bool, recompute: bool, mask: int
) -> None:
    """In the request, the grant, a header, a layer, or the trailer."""
    position = data.draw(st.one_of(st.integers(0, 300), st.integers(0, stream_bytes[to_reader] - 10)))
    position = min(position, stream_bytes[to_reader] - 10)
    damage = {"flip_at": position, "mask": mask, "to_reader": to_reader}
    # A length that has become greater makes one side wait for what never comes.
    tokens, _ = asyncio.run(through(False, recompute, stall_timeout_s=0.3, **damage))
    assert tokens == (unified(tuple(PROMPT), MAX_TOKENS)[0] if recompute else None)
