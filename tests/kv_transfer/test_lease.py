"""Every offer of KV ends exactly once: read, expired or withdrawn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_workers.kv_transfer.lease import LeaseTable, Refusal

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "begin", "end", "withdraw", "expire", "extend"]),
        st.sampled_from(["a", "b", "c"]),
        st.floats(0, 20),
    ),
    max_size=60,
)


@given(EVENTS)
def test_offers_are_conserved(events: list[tuple[str, str, float]]) -> None:
    table: LeaseTable[tuple[str, int]] = LeaseTable(duration_s=10)
    now_s, offered, ended = 0.0, [], []
    live: dict[str, tuple[str, int]] = {}
    reading: set[str] = set()
    for number, (action, key, delay_s) in enumerate(events):
        now_s += delay_s
        if action == "offer" and key not in live:
            live[key] = (key, number)
            offered.append(live[key])
            table.offer(key, live[key], now_s)
        elif action == "begin":
            answer = table.begin(key)
            if key in live and key not in reading:
                assert answer == live[key]
                reading.add(key)
            else:
                assert isinstance(answer, Refusal)
        elif action in ("end", "withdraw"):
            content = table.end(key) if action == "end" else table.withdraw(key)
            assert content == live.pop(key, None)
            reading.discard(key)
            if content is not None:
                ended.append(content)
        elif action == "extend":
            table.extend(key, now_s)
        elif action == "expire":
            for content in table.expire(now_s):
                assert content[0] not in reading
                assert live.pop(content[0]) == content
                ended.append(content)
    assert len(table) == len(live)
    assert sorted(offered) == sorted([*ended, *live.values()])


@pytest.mark.parametrize(
    ("finish", "refusal"), [("end", Refusal.SPENT), ("withdraw", Refusal.UNKNOWN), ("expire", Refusal.EXPIRED)]
)
def test_a_late_reader_is_told_why(finish: str, refusal: Refusal) -> None:
    table: LeaseTable[str] = LeaseTable(duration_s=10)
    table.offer("r", "kv", 0.0)
    if finish == "expire":
        assert table.expire(9.9) == []
        assert table.expire(10.0) == ["kv"]
    else:
        assert getattr(table, finish)("r") == "kv"
    assert table.begin("r") is refusal


def test_only_so_many_endings_are_remembered() -> None:
    table: LeaseTable[int] = LeaseTable(duration_s=1, remembered=2)
    for number in range(5):
        table.offer(str(number), number, 0.0)
        table.end(str(number))
    assert [table.begin(str(number)) for number in range(5)] == [Refusal.UNKNOWN] * 3 + [Refusal.SPENT] * 2


def test_an_id_in_use_is_not_offered_again() -> None:
    table: LeaseTable[str] = LeaseTable(duration_s=10)
    table.offer("r", "first", 0.0)
    with pytest.raises(ValueError, match="request id r is in use"):
        table.offer("r", "second", 0.0)
    assert table.begin("r") == "first"
