"""Processes are found by their mark, and nothing else is stopped."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from prfaas_local import processes
from prfaas_local.errors import LocalClusterError

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def wait_marked(mark: str, count: int) -> list[int]:
    deadline = time.monotonic() + 10
    while len(found := processes.marked(mark)) != count:
        assert time.monotonic() < deadline, found
    return found


def test_grandchildren_of_a_killed_parent_are_found_and_stopped(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    spawn = f"import subprocess, time; subprocess.Popen({SLEEP!r}); time.sleep(600)"
    child = processes.Child("parent", [sys.executable, "-c", spawn], tmp_path / "log", dict(os.environ), mark)
    stranger = subprocess.Popen(SLEEP)
    try:
        child.start()
        wait_marked(mark, 2)
        child.kill()
        # The group dies with its leader; what left the group is found by the mark.
        processes.stop_marked(mark, grace_s=2)
        assert processes.marked(mark) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        processes.stop_marked(mark, grace_s=0)


def test_what_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    ready = tmp_path / "ready"
    stubborn = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(600)"
    )
    child = processes.Child("stubborn", [sys.executable, "-c", stubborn], tmp_path / "log", dict(os.environ), mark)
    child.start()
    deadline = time.monotonic() + 10
    while not ready.exists():
        assert time.monotonic() < deadline
    child.stop(grace_s=0.1)
    assert child.pid is None


def test_an_early_end_is_told_with_the_log(tmp_path: Path) -> None:
    child = processes.Child(
        "broken", [sys.executable, "-c", "raise SystemExit('no way')"], tmp_path / "log", dict(os.environ), "m"
    )
    child.start()
    deadline = time.monotonic() + 10
    while child.pid is not None:
        assert time.monotonic() < deadline
    with pytest.raises(LocalClusterError, match="broken ended with status 1:\nno way"):
        child.check()
