"""How much requests want a pool."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core.demand import PRESSING_S, Demand, DemandWindow, total
from prfaas_core.errors import InvalidValueError
from prfaas_core.traffic import HALF_LIFE_S


def test_a_pool_that_nobody_ever_wanted() -> None:
    found = DemandWindow().report(5.0, 0)
    assert found == Demand()
    assert (found.pressing, found.strength) == (False, 0.0)


def test_a_steady_rate_is_found() -> None:
    window = DemandWindow()
    for step in range(5000):
        window.record(step / 5)
    found = window.report(4999 / 5, 0)
    assert found.wanted_rps == pytest.approx(5.0, rel=0.01)
    assert found.strength == found.wanted_rps
    later = window.report(4999 / 5 + HALF_LIFE_S, 0)
    assert later.wanted_rps == pytest.approx(found.wanted_rps / 2)
    assert later.since_last_s == pytest.approx(HALF_LIFE_S)


def test_what_was_wanted_long_ago_is_not_wanted_now() -> None:
    """The rate has a long tail; a pool that went to sleep must not be woken by it."""
    window = DemandWindow()
    for _ in range(1000):
        window.record(10.0)
    assert window.report(10.0 + PRESSING_S, 0).pressing
    ended = window.report(10.0 + PRESSING_S + 1, 0)
    assert ended.wanted_rps > 1
    assert (ended.pressing, ended.strength) == (False, 0.0)


def test_one_that_waits_wants_the_pool_as_long_as_it_waits() -> None:
    window = DemandWindow()
    window.record(0.0)
    found = window.report(3600.0, 1)
    assert (found.waiting, found.since_last_s, found.strength) == (1, 0.0, 1.0)
    assert found.aged(3600.0).pressing


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 99), st.floats(0, 999)), max_size=5), st.floats(0, 1000))
def test_the_demand_of_several_is_their_sum(parts: list[tuple[int, float, float]], age_s: float) -> None:
    found = [Demand(waiting, rps, 0.0 if waiting else since_s) for waiting, rps, since_s in parts]
    together = total(found)
    assert together.waiting == sum(one.waiting for one in found)
    assert together.wanted_rps == pytest.approx(sum(one.wanted_rps for one in found))
    assert together.since_last_s == min((one.since_last_s for one in found), default=math.inf)
    assert together.aged(age_s).wanted_rps <= together.wanted_rps
    assert together.aged(age_s).since_last_s == pytest.approx(total(one.aged(age_s) for one in found).since_last_s)


@pytest.mark.parametrize(
    ("field", "values"), [("waiting", (-1,)), ("wanted_rps", (0, math.nan)), ("since_last_s", (0, 0.0, -1.0))]
)
def test_what_cannot_be_is_refused(field: str, values: tuple[float, ...]) -> None:
    with pytest.raises(InvalidValueError, match=field):
        Demand(*values)  # type: ignore[arg-type]
