"""Prefill there and decode here give the tokens, and the bits of the logits, of a run in one place."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_workers.engine import KVLoadError
from prfaas_workers.openai import RequestError
from prfaas_workers.testing.local_worker import PULL, handed_over, running, unified

RELATED = st.builds(
    lambda head, tail: [*range(head), *tail], st.integers(0, 48), st.lists(st.integers(0, 255), min_size=1, max_size=20)
)
PROMPTS = st.lists(st.integers(0, 255), min_size=1, max_size=70)
SIZES = st.sampled_from([1, 3, 16, 64])


@pytest.mark.slow
@given(
    PROMPTS, st.integers(1, 6), st.booleans(), SIZES, st.sampled_from(["float32", "float16", "bfloat16"]), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_a_handover_equals_a_unified_run(
    prompt: list[int], max_tokens: int, push: bool, page_tokens: int, dtype: str, warm: bool
) -> None:
    """Any prompt, page size and element type, pull and push, with and without a prefix that decode has already."""

    async def scenario() -> None:
        form = {"page_tokens": page_tokens, "dtype": dtype, "layout": "LBHNC", "pages": 256}
        async with running(**form) as prefill, running(**form) as decode:
            if warm:
                await decode.run(prompt[: len(prompt) // 2 + 1], 1)
                decode.model.given.clear()
            run = await handed_over(prefill, decode, prompt, max_tokens, push, "r")
            expected, logits = unified(tuple(prompt), max_tokens, dtype)
            assert run.token_ids == expected
            assert decode.model.given == logits
            assert decode.engine.metrics.tokens_computed._value.get() == (
                len(prompt[: len(prompt) // 2 + 1]) if warm else 0
            )
            # A decode worker never computes the prompt: only its last token, and the output's but the last.
            assert decode.held() == prefill.held() == 0

    asyncio.run(scenario())


@pytest.mark.slow
@given(st.lists(PROMPTS, min_size=2, max_size=4), st.data())
@settings(max_examples=15, deadline=None)
def test_prefix_hits_on_either_side_change_nothing(prompts: list[list[int]], data: st.DataObject) -> None:
    """Conversations that go on, repeat or part, at a pair of workers that remember all of them."""

    async def scenario() -> None:
        async with (
            running(page_tokens=4, pages=400) as prefill,
            running(page_tokens=4, pages=400) as decode,
        ):
            for number, fresh in enumerate(prompts):
                history = data.draw(st.sampled_from([[], *seen])) if seen else []
                prompt = [*history[: data.draw(st.integers(0, len(history)))], *fresh][:100]
                push = data.draw(st.booleans())
                run = await handed_over(prefill, decode, prompt, 5, push, f"r{number}")
                assert run.token_ids == unified(tuple(prompt), 5)[0]
                seen.append([*prompt, *run.token_ids])

    seen: list[list[int]] = []
    asyncio.run(scenario())


def test_the_output_is_reused_as_a_prefix() -> None:
    """KV that decode made is found by the next turn of the conversation, and is as good as a prefill's."""

    async def scenario() -> None:
        async with running(page_tokens=4) as worker:
            first = await worker.run(range(10), 20)
            prompt = [*range(10), *first.token_ids, 7]
            second = await worker.run(prompt, 6)
            assert second.cached_tokens == 28
            assert second.token_ids == unified(tuple(prompt), 6)[0]

    asyncio.run(scenario())


@given(PROMPTS, st.floats(0.2, 2), st.integers(0, 2**31), st.booleans())
@settings(max_examples=15, deadline=None)
def test_seeded_sampling_goes_on_alike(prompt: list[int], temperature: float, seed: int, push: bool) -> None:
    """With a temperature above 0 the seed decides, wherever the prompt was computed."""

    async def scenario() -> None:
        async with running() as prefill, running() as decode:
            options = {"temperature": temperature, "seed": seed}
            run = await handed_over(prefill, decode, prompt, 4, push, "r", **options)
            assert run.token_ids == unified(tuple(prompt), 4, "float32", temperature, seed)[0]

    asyncio.run(scenario())


@pytest.mark.slow
@given(st.lists(st.tuples(RELATED, st.integers(1, 8), st.booleans()), min_size=4, max_size=8), st.booleans())
@settings(max_examples=12, deadline=None)
def test_eviction_under_pressure_never_gives_wrong_tokens(
    requests: list[tuple[list[int], int, bool]], push: bool
) -> None:
    """Many requests at once at workers with hardly room for one; all are right, and every page comes back.

    All by one handshake, as in a pool: with both, an offer that nobody can read yet and a push that nobody can send yet may hold the
    pages that the other needs, until one of them times out.
    """

    async def scenario() -> None:
        form = {"page_tokens": 4, "pages": 22}
        async with running(**form) as prefill, running(**form) as decode:

            async def one(number: int, prompt: list[int], max_tokens: int, remote: bool) -> list[int]:
                if remote:
                    run = await handed_over(prefill, decode, prompt, max_tokens, push, f"r{number}")
                else:
                    run = await decode.run(prompt, max_tokens)
                tokens: list[int] = run.token_ids
                return tokens

            runs = await asyncio.gather(*(one(number, *request) for number, request in enumerate(requests)))
            for (prompt, max_tokens, _), tokens in zip(requests, runs, strict=True):
                assert tokens == unified(tuple(prompt), max_tokens)[0]
            assert decode.held() == prefill.held() == 0
            assert decode.engine._waiting_capacity == decode.engine._running == 0

    asyncio.run(scenario())


def test_an_unread_offer_holds_its_pages_until_it_expires() -> None:
    """Then another request gets them, and a late reader is refused."""

    async def scenario() -> None:
        async with running(pages=4, lease_s=0.2) as prefill, running() as decode:
            first = await prefill.run(range(40), 1, PULL)
            assert prefill.held() == 3
            # This one needs all four pages.
            second = await prefill.run(range(100, 150), 8)
            assert second.token_ids == unified(tuple(range(100, 150)), 8)[0]
            assert prefill.held() == 0
            with pytest.raises(KVLoadError, match="expired"):
                await decode.run(range(40), 1, first.transfer)
            assert prefill.owner.counters.reads_after_expiry == 1

    asyncio.run(scenario())


def test_a_pushed_layer_arrives_before_the_next_one_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what push is for: transfer and prefill overlap."""

    async def scenario() -> None:
        async with running() as prefill, running() as decode:
            arrived = asyncio.Event()
            load = decode.backend.store.load

            def loaded(layer: int, pages: list[int], payload: memoryview) -> None:
                load(layer, pages, payload)
                if layer == 1:
                    arrived.set()

            monkeypatch.setattr(decode.backend.store, "load", loaded)
            prefill.model.held_from = 2
            prefill.model.gate.clear()
            run = asyncio.ensure_future(handed_over(prefill, decode, range(40), 4, True, "r"))
            async with asyncio.timeout(20):
                await arrived.wait()
            assert not run.done()
            assert not prefill.model.given
            prefill.model.gate.set()
            assert (await run).token_ids == unified(tuple(range(40)), 4)[0]

    asyncio.run(scenario())


@pytest.mark.parametrize("push", [False, True])
def test_kv_of_another_prompt_is_refused(push: bool) -> None:
    """Request ids come from clients: one that repeats must not bring another prompt's KV, of the same length or not."""

    async def scenario() -> None:
        async with running() as prefill, running() as decode:
            leg = PULL | ({"transfer_mode": "push"} if push else {})
            first = await prefill.run(range(40), 1, leg, "r")
            params = prefill.push_params("r") if push else first.transfer
            with pytest.raises(KVLoadError, match="is of another prompt"):
                await decode.run([*range(39), 99], 4, params, "r")
            # The offer is still there for the right one.
            run = await decode.run(range(40), 4, params, "r")
            assert run.token_ids == unified(tuple(range(40)), 4)[0]

    asyncio.run(scenario())


def test_a_push_id_in_use_is_refused() -> None:
    """The second prefill leg with an id is the client's error, and does not take the first one's offer away."""

    async def scenario() -> None:
        async with running() as prefill, running() as decode:
            leg = PULL | {"transfer_mode": "push"}
            await prefill.run(range(40), 1, leg, "r")
            with pytest.raises(RequestError, match="request id r is in use"):
                await prefill.run(range(50), 1, leg, "r")
            run = await decode.run(range(40), 4, prefill.push_params("r"), "r")
            assert run.token_ids == unified(tuple(range(40)), 4)[0]
            assert prefill.held() == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"seed": 1}, "fingerprint"),
        ({"dtype": "float16"}, "fingerprint"),
        ({"page_tokens": 8}, "fingerprint"),
        ({"layout": "LBHNC"}, "fingerprint"),
    ],
)
@pytest.mark.parametrize("recompute", [False, True])
def test_kv_with_other_bytes_is_refused(other: dict[str, Any], word: str, recompute: bool) -> None:
    """Other weights, elements, pages or order: an error that says so, or a prompt computed here."""

    async def scenario() -> None:
        async with running(**other) as prefill, running(recompute=recompute) as decode:
            prompt = list(range(60))
            if recompute:
                run = await handed_over(prefill, decode, prompt, 6, False, "r")
                assert run.token_ids == unified(tuple(prompt), 6)[0]
            else:
                with pytest.raises(KVLoadError, match=word):
                    await handed_over(prefill, decode, prompt, 6, False, "r")
            assert decode.held() == 0
            assert decode.engine.metrics.transfers_failed._value.get() == 1

    asyncio.run(scenario())


def test_a_cancelled_computation_keeps_its_pages_until_the_thread_is_done() -> None:
    """Otherwise it would write into pages that belong to somebody else by then."""

    async def scenario() -> None:
        async with running() as worker:
            worker.model.gate.clear()
            task = asyncio.ensure_future(worker.run(range(100), 4))
            assert await asyncio.to_thread(worker.model.begun.wait, 10)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=0.1)
            assert not done
            assert worker.held() == 7
            worker.model.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert worker.held() == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("push", [False, True])
def test_a_prompt_of_whole_pages_is_never_wholly_cached(push: bool) -> None:
    """Its last page is computed, or fetched, again: the first output token needs the logits of the last prompt token."""

    async def scenario() -> None:
        prompt = tuple(range(48))
        async with running() as prefill, running() as decode:
            for number in range(2):
                run = await handed_over(prefill, decode, prompt, 4, push, f"r{number}")
                assert run.token_ids == unified(prompt, 4)[0]
            assert decode.engine.metrics.tokens_cached._value.get() == 32
            again = await decode.run(prompt, 4)
            assert (again.token_ids, again.cached_tokens) == (unified(prompt, 4)[0], 32)

    asyncio.run(scenario())


@pytest.mark.parametrize("push", [False, True])
def test_a_prefill_given_up_in_the_middle_frees_everything(push: bool) -> None:
    """A cancelled prefill leg ends its reader with an error, and leaves no page behind on either side."""

    async def scenario() -> None:
        async with running(pages=128) as prefill, running(pages=128) as decode:
            leg = PULL | ({"transfer_mode": "push"} if push else {})
            reader = None
            task = asyncio.ensure_future(prefill.run([n % 256 for n in range(400)], 1, leg, "r"))
            if push:
                params = prefill.push_params("r")
                reader = asyncio.ensure_future(decode.run([n % 256 for n in range(400)], 1, params, "r"))
            assert await asyncio.to_thread(prefill.model.begun.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if reader is not None:
                with pytest.raises(KVLoadError, match="ended the transfer early"):
                    await reader
            assert prefill.held() == decode.held() == 0
            assert prefill.owner.offers == 0
            prompt = [n % 256 for n in range(100)]
            assert (await prefill.run(prompt, 3)).token_ids == unified(tuple(prompt), 3)[0]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "message"),
    [([1, 300], 4, "token id 300 is not in the vocabulary"), ([1] * 60, 10, "needs 5 pages of KV; the cache has 4")],
)
def test_requests_that_can_never_be_served_are_refused(prompt: list[int], max_tokens: int, message: str) -> None:
    """Instead of waiting forever."""

    async def scenario() -> None:
        async with running(pages=4) as worker:
            with pytest.raises(RequestError, match=message) as raised:
                await worker.run(prompt, max_tokens)
            assert raised.value.status == 400

    asyncio.run(scenario())
