"""What is made of a run's numbers."""

import math

from hypothesis import given
from hypothesis import strategies as st

from prfaas_core.simulation.results import most_within, quantile, turns_s


@given(st.lists(st.floats(-1e6, 1e6), min_size=1).map(sorted), st.floats(0, 1))
def test_a_quantile_is_one_of_the_values_with_as_many_below_it(values, q):
    found = quantile(values, q)
    assert found in values
    assert sum(value < found for value in values) <= q * len(values)
    assert sum(value > found for value in values) <= (1 - q) * len(values)


def test_no_values_have_no_quantile():
    assert math.isnan(quantile([], 0.5))


def test_a_turn_is_growth_after_shrinking_or_the_other_way_round():
    sizes = [(0, 2), (10, 3), (20, 5), (30, 5), (40, 4), (50, 3), (60, 6)]
    assert turns_s(sizes) == (40, 60)
    assert turns_s(sizes[:3]) == ()


def test_the_most_within_a_span_slides():
    assert most_within((0, 50, 55, 109, 200), 60) == 3
    assert most_within((), 60) == 0
