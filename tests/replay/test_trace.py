"""Traces are read strictly, and their prompts keep the prefix structure of the original."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_cli import trace

REPOSITORY = Path(__file__).resolve().parents[2]
GOOD = {"timestamp": 1500, "input_length": 700, "output_length": 3, "hash_ids": [7, 9]}


def test_the_shipped_slice_loads() -> None:
    requests = trace.load(REPOSITORY / "e2e/traces/mooncake_conversation_600.jsonl")
    assert len(requests) == 600
    assert requests[0] == trace.TraceRequest(0.0, 6758, 500, tuple(range(14)))
    assert list(requests) == sorted(requests, key=lambda request: request.arrival_s)


def test_a_limit_takes_the_first_requests() -> None:
    requests = trace.load(REPOSITORY / "e2e/traces/mooncake_conversation_600.jsonl", limit=5)
    assert len(requests) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": -1}, "timestamp=-1"),
        ({"timestamp": float("nan")}, "timestamp=nan"),
        ({"timestamp": "0"}, "timestamp='0'"),
        ({"input_length": 0}, "input_length=0"),
        ({"input_length": 1.5}, "input_length=1.5"),
        ({"output_length": True}, "output_length=True"),
        ({"hash_ids": [1]}, "1 hash_ids for input_length=700"),
        ({"hash_ids": [1, -2]}, "hash_ids="),
        ({"hash_ids": "12"}, "hash_ids=12"),
    ],
)
def test_a_bad_field_is_named_with_its_line(change: dict[str, object], message: str) -> None:
    lines = [json.dumps(GOOD), "", json.dumps(GOOD | change)]
    with pytest.raises(trace.TraceError, match="line 3") as caught:
        list(trace.parse(lines, source="x"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no requests"), (b"\xff\xfe", "not UTF-8"), (b"{", "not JSON"), (b"[]", "list instead of")],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    with pytest.raises(trace.TraceError, match=message):
        trace.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(trace.TraceError, match="No such file"):
        trace.load(tmp_path / "absent")


@given(
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=8),
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=8),
    st.data(),
)
def test_prompts_share_exactly_the_blocks_that_ids_share(
    first: list[int], second: list[int], data: st.DataObject
) -> None:
    shared = data.draw(st.integers(0, min(len(first), len(second))))
    second[:shared] = first[:shared]
    prompts = [trace.TraceRequest(0.0, 512 * len(ids), 1, tuple(ids)).prompt() for ids in (first, second)]
    for block in range(min(len(first), len(second))):
        blocks = [prompt[block * 512 : (block + 1) * 512] for prompt in prompts]
        assert np.array_equal(blocks[0], blocks[1]) == (first[block] == second[block])
    assert all(int(prompt.max()) < trace.VOCABULARY_TOKENS for prompt in prompts)
