"""docs/reasons.md lists exactly the reasons that exist."""

from pathlib import Path

from prfaas_core.routing import Reason

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reasons.md"


def test_the_document_has_a_row_for_every_reason() -> None:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [f"| `{reason}` | {reason.kind} | {reason.meaning} |" for reason in Reason]
