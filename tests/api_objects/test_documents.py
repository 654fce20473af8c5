"""docs/objects.md lists every kind, condition and reason, with the words of the code."""

from __future__ import annotations

import re
from pathlib import Path

from prfaas_core.autoscaling import ScalingReason
from prfaas_core.roles import RolesReason
from prfaas_operator import api
from prfaas_operator.api.conditions import REASONS, TYPES, ConditionType, Reason

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "objects.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """Return the two columns of the table below a heading."""
    section = TEXT.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))


def test_every_condition_is_documented() -> None:
    assert TYPES.keys() == set(ConditionType)
    assert rows("## Conditions") == {str(name): meaning for name, meaning in TYPES.items()}


def test_every_reason_is_documented() -> None:
    assert REASONS.keys() == set(Reason)
    assert rows("### Reasons") == {str(name): meaning for name, meaning in REASONS.items()}


def test_every_decision_of_the_autoscaler_is_documented() -> None:
    assert rows("### Decisions of the autoscaler").keys() == {str(reason) for reason in ScalingReason}
    assert rows("### Decisions on roles").keys() == {str(reason) for reason in RolesReason}


def test_every_kind_is_documented_with_its_short_name() -> None:
    found = dict(re.findall(r"^\| (\w+) \| `(\w+)` \|", TEXT, re.MULTILINE))
    assert found == {kind.__name__: kind.definition.short_name for kind in api.KINDS}
