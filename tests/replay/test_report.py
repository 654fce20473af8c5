"""The summary of a replay adds up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_cli.replay import Outcome
from prfaas_cli.report import summarise


def outcome(index: int, **changes: object) -> Outcome:
    values: dict[str, object] = {
        "index": index, "sent_s": float(index), "ttft_s": 1.0, "total_s": 2.0, "status": 200, "error": "",
        "destination": "local_prefill", "reason": "uncached_within_threshold", "prompt_tokens": 100,
        "cached_tokens": 25, "output_tokens": 10,
    }  # fmt: skip
    return Outcome(**(values | changes))  # type: ignore[arg-type]


def test_sides_reasons_and_errors_are_counted() -> None:
    summary = summarise(
        [
            outcome(0),
            outcome(1, destination="remote_prefill", reason="uncached_above_threshold", ttft_s=3.0),
            outcome(2, destination="remote_prefill", reason="uncached_above_threshold", ttft_s=5.0),
            outcome(3, status=503, error="HTTP 503", ttft_s=None, destination="", reason=""),
            outcome(4, status=0, error="ReadError", ttft_s=None, destination="", reason=""),
        ]
    )
    assert (summary.requests, summary.errors, summary.lost) == (5, 2, 1)
    assert summary.remote_share == pytest.approx(2 / 3)
    assert summary.hit_rate == 0.25
    assert [(side.destination, side.requests, side.ttft_mean_s) for side in summary.sides] == [
        ("remote_prefill", 2, 4.0),
        ("local_prefill", 1, 1.0),
    ]
    assert dict(summary.reasons) == {"uncached_above_threshold": 2, "no answer": 2, "uncached_within_threshold": 1}


@given(st.lists(st.sampled_from(["a", "b", ""]), max_size=50))
def test_reasons_add_up_to_requests(reasons: list[str]) -> None:
    summary = summarise([outcome(index, reason=reason) for index, reason in enumerate(reasons)])
    assert sum(count for _, count in summary.reasons) == summary.requests == len(reasons)
