"""Numbers and label selectors, as Kubernetes writes them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_operator.actuators import quantities, selectors

SCALE = {"": Decimal(1), "m": Decimal("1e-3"), "u": Decimal("1e-6"), "n": Decimal("1e-9")}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1, "1"), (1.0, "1"), (2e15, "2000000000000000"), (0.7, "700m"), (1.5, "1500m"), (0.0005, "500u"),
        (1 / 3, "333333334n"), (1e-12, "1n"),
    ],
)  # fmt: skip
def test_a_number_is_a_quantity(value, text):
    assert quantities.quantity(value) == text


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e16])
def test_what_nobody_can_reckon_with_is_refused(value):
    with pytest.raises(ValueError, match="is not a number from 0 to"):
        quantities.quantity(value)


@given(st.floats(0, quantities.MAX))
def test_a_quantity_is_the_number_rounded_up(value):
    text = quantities.quantity(value)
    suffix = text.lstrip("0123456789")
    read = Decimal(text.removesuffix(suffix)) * SCALE[suffix]
    assert Decimal(repr(value)) <= read <= Decimal(repr(value)) + Decimal("1e-9")


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", {"a", "b", "c"}),
        ("pool=a", {"a"}),
        ("pool == a", {"a"}),
        ("pool!=a", {"b", "c"}),
        ("pool in (a, b)", {"a", "b"}),
        ("pool notin (a),tier", {"b"}),
        ("!tier", {"c"}),
        ("tier=,pool", {"b"}),
        ("pool in (a,b),tier!=gold", {"b"}),
        ("example.com/absent!=x", {"a", "b", "c"}),
    ],
)
def test_selectors_select_as_in_kubernetes(selector, selected):
    labels = {"a": {"pool": "a", "tier": "gold"}, "b": {"pool": "b", "tier": ""}, "c": {"pool": "c"}}
    requirements = selectors.parse(selector)
    assert {name for name, found in labels.items() if selectors.matches(requirements, found)} == selected


@pytest.mark.parametrize("text", ["a b", "a in b", "a in ()x", "=a", "a=b=c", "a,,b", "pool in (a", "pool>1"])
def test_what_is_no_selector_is_refused(text):
    with pytest.raises(selectors.SelectorError, match="labelSelector: "):
        selectors.parse(text)
