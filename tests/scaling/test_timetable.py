"""When pools are looked at: each once in a period, and not all at once."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_operator.objects import Ref
from prfaas_operator.scaling.timetable import Timetable

PERIOD_S = 5.0


def refs(count):
    return [Ref("PrefillPool", "ns", f"pool-{number}") for number in range(count)]


@given(
    count=st.integers(1, 30), tick_s=st.floats(0.01, PERIOD_S / 4), start_s=st.floats(0, 1e6), new_at=st.integers(0, 50)
)
def test_every_pool_is_looked_at_once_in_a_period(count, tick_s, start_s, new_at):
    """Also one that is new; after its first look the time between two is the period, but for the ticks of who looks."""
    known, timetable = refs(count), Timetable(PERIOD_S)
    looks = {ref: [] for ref in known}
    for tick in range(new_at + int(6 * PERIOD_S / tick_s)):
        now_s = start_s + tick * tick_s
        for ref, late_s in timetable.due(known if tick >= new_at else known[1:], now_s).items():
            looks[ref].append(now_s)
            assert 0 <= late_s <= tick_s + 1e-6
    assert looks[known[0]][0] == start_s + new_at * tick_s
    for moments in looks.values():
        first, *rest = [after - before for before, after in pairwise(moments)]
        assert PERIOD_S / 2 - tick_s - 1e-6 <= first <= 1.5 * PERIOD_S + tick_s + 1e-6
        assert rest == [pytest.approx(PERIOD_S, abs=tick_s + 1e-6)] * len(rest)


def test_many_pools_are_spread_over_the_period():
    """No tenth of the period has more than twice its share."""
    known, timetable = refs(200), Timetable(PERIOD_S)
    # The first look of all is at once, and the second at most one and a half periods later.
    counts = [len(timetable.due(known, tenth * PERIOD_S / 10)) for tenth in range(31)]
    assert counts[0] == 200
    assert sum(counts[21:]) == 200
    assert max(counts[21:]) <= 40


def test_what_was_missed_is_not_made_up_for():
    """After a pause everything is due once, with how late it is."""
    known, timetable = refs(3), Timetable(PERIOD_S)
    timetable.due(known, 0.0)
    late = timetable.due(known, 100.0)
    assert late.keys() == set(known)
    assert all(late_s > 90 for late_s in late.values())
    assert timetable.due(known, 100.0) == {}


def test_what_is_gone_is_forgotten():
    known, timetable = refs(2), Timetable(PERIOD_S)
    timetable.due(known, 0.0)
    assert timetable.due([], 1.0) == {}
    assert timetable.next_s() is None
    assert timetable.due(known, 2.0).keys() == set(known)
