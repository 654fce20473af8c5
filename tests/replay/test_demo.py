"""`prfaas demo` serves the shipped trace through real processes, loses nothing, and leaves nothing behind."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_trace_is_served_and_the_reasons_add_up() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("prfaas"), "demo", "--requests=120", "--speed=16"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={"COLUMNS": "160", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"120 requests in .* 0 errors, 0 lost", done.stdout), done.stdout
    assert re.search(r"remote_prefill +│ +\d+", done.stdout)
    assert re.search(r"local_prefill +│ +\d+", done.stdout)
    assert re.search(r"sum +│ +120", done.stdout)


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("prfaas"), "demo", f"--trace={tmp_path / 'absent'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "absent" in done.stderr
    assert "--trace" in done.stderr
