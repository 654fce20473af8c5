"""An interrupted `prfaas up` leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from prfaas_local import processes

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("after", "number"),
    [
        ("API server is ready", signal.SIGINT),
        ("charts are installed", signal.SIGTERM),
        ("first routed token", signal.SIGINT),
        ("manifests are applied", signal.SIGKILL),
    ],
    ids=["early", "terminated", "while replaying", "killed"],
)
def test_an_interruption_leaves_nothing(
    prfaas: Callable[..., subprocess.Popen[str]], tmp_path: Path, after: str, number: signal.Signals
) -> None:
    up = prfaas("up", f"--state-dir={tmp_path}", "--speed=2")
    lines: list[str] = []
    seen = threading.Event()

    def read() -> None:
        assert up.stdout is not None
        for line in up.stdout:
            lines.append(line)
            if after in line:
                seen.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert seen.wait(120), "".join(lines)
        assert processes.marked(processes.mark_of(tmp_path))
        up.send_signal(number)
        assert up.wait(60) != 0
    finally:
        up.kill()
        up.wait()
        reader.join(10)
        if up.stdout is not None:
            up.stdout.close()
    # Nobody is left to wait for what a killed command started; its end is noticed by the supervisor.
    assert processes.wait_gone(processes.mark_of(tmp_path), 30)
