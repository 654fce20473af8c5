"""Whatever is thrown at the models, the answer is an object or a ValidationError."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from prfaas_operator import api

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["Auto", "Query", "10.0.0.0/8", "fd00::/8", "::ffff:1.2.3.4/120", "1.2.3.4", "25%", "\n", "a\n"])
)
JSON_ONLY = st.floats(allow_nan=False, allow_infinity=False)
ANYTHING, JSON = (
    st.recursive(
        SCALARS | floats,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    )
    for floats in (st.floats(), JSON_ONLY)
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value below `value`."""
    found = [path] if path else []
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in steps:
        found += places(part, (*path, step))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("kind", api.KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=50, deadline=None)
@given(body=ANYTHING, spec=ANYTHING)
def test_random_objects(kind: type[api.Resource], body: Any, spec: Any) -> None:
    for candidate in (body, {"kind": kind.__name__, "metadata": {"name": "x"}, "spec": spec}):
        with pytest.raises(ValidationError) as caught:
            kind.read(candidate)
        assert api.explain(caught.value)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_good_objects_with_one_value_replaced(manifests: dict[str, dict[str, Any]], data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(sorted(manifests.values(), key=str)))
    path = data.draw(st.sampled_from(places(body)))
    kind = next(kind for kind in api.KINDS if kind.__name__ == body["kind"])
    changed = replaced(body, path, data.draw(JSON))
    try:
        found = kind.read(changed)
    except ValidationError as error:
        assert api.explain(error)
    else:
        # What is accepted comes back as the same object.
        assert kind.read(found.as_object()) == found
