"""What a link's meter makes of a profile."""

import pytest

from prfaas_core.profiles import Curve
from prfaas_operator.scaling.links import line


def test_the_line_through_a_curve():
    """Bytes a request and bytes a token of the case study's S_kv."""
    request_bytes, token_bytes = line(Curve((1024, 131072), (200068301, 2428816589)))
    assert token_bytes == pytest.approx(17138, rel=1e-3)
    assert request_bytes + 1024 * token_bytes == pytest.approx(200068301)
