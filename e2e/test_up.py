"""`prfaas up` serves the trace, and leaves nothing behind when it is told to stop, at any moment."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prfaas_local import processes

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_trace_is_served_from_both_sides_and_the_numbers_add_up(installed: Any) -> None:
    assert re.search(r"120 requests in .* 0 errors, 0 lost", installed.output), installed.output
    counts = {
        side: int(count) for side, count in re.findall(r"(remote_prefill|local_prefill) +│ +(\d+)", installed.output)
    }
    assert counts.keys() == {"remote_prefill", "local_prefill"}
    assert sum(counts.values()) == 120
    assert re.search(r"sum +│ +120", installed.output)
    assert re.search(r"link: mean \d\.\d+, peak \d\.\d+ of 0\.800 Gbit/s", installed.output)
    assert re.search(r"west-prefill +│ +\d at \d+ s", installed.output)


def test_status_shows_the_objects_as_a_tree(system: Any, prfaas: Callable[..., subprocess.Popen[str]]) -> None:
    status = prfaas("status", f"--state-dir={system.state_dir}")
    output, _ = status.communicate(timeout=30)
    assert status.returncode == 0, output
    for wanted in (
        "InferenceRoute chat Available",
        "DecodePool east-decode Available",
        "pod west-prefill-",
        "KVLink west-to-east",
    ):
        assert wanted in output


def test_a_second_environment_is_refused(
    installed: Any, prfaas: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    second = prfaas("up", f"--state-dir={tmp_path}", "--no-replay")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "127.11.0.1:6443 cannot be used" in output
    assert processes.marked(processes.mark_of(tmp_path)) == []
    installed.wait(installed.converged, "the first one to be unharmed")
