"""The supervisor keeps an environment's processes, and whatever carries its mark is found and stopped; nothing else is."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prfaas_local import processes
from prfaas_local.components import Component, Supervisor
from prfaas_local.errors import LocalClusterError
from prfaas_local.supervisor import Specification

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    found = Supervisor(tmp_path / "environment")
    found.start()
    yield found
    found.shutdown(grace_s=1)
    assert processes.marked(found.mark) == []


def component(
    supervisor: Supervisor, name: str, command: list[str], *, restart: bool = False, stage: int = 0
) -> Component:
    log = str(supervisor.folder / "logs" / f"{name}.log")
    return supervisor.component(Specification(name, command, dict(os.environ), log, restart, stage))


def test_grandchildren_that_left_the_group_are_found_by_the_mark(supervisor: Supervisor) -> None:
    spawn = f"import subprocess, time; subprocess.Popen({SLEEP!r}, start_new_session=True); time.sleep(600)"
    before = len(processes.marked(supervisor.mark))
    child = component(supervisor, "parent", [sys.executable, "-c", spawn])
    stranger = subprocess.Popen(SLEEP)
    try:
        child.start()
        wait(lambda: len(processes.marked(supervisor.mark)) == before + 2, "parent and grandchild")
        child.kill()
        assert len(processes.marked(supervisor.mark)) == before + 1
        supervisor.shutdown(grace_s=1)
        assert processes.marked(supervisor.mark) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_what_ignores_the_request_to_end_is_killed(supervisor: Supervisor) -> None:
    ready = supervisor.folder / "ready"
    stubborn = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(600)"
    )
    child = component(supervisor, "stubborn", [sys.executable, "-c", stubborn])
    child.start()
    wait(ready.exists, "the process that ignores SIGTERM")
    child.stop(grace_s=0.1)
    assert child.pid is None


def test_an_early_end_is_told_with_the_log(supervisor: Supervisor) -> None:
    child = component(supervisor, "broken", [sys.executable, "-c", "raise SystemExit('no way')"])
    child.start()
    wait(lambda: child.pid is None, "its end")
    with pytest.raises(LocalClusterError, match="broken ended with status 1:\nno way"):
        child.check()


def test_a_component_that_is_to_run_is_started_again(supervisor: Supervisor) -> None:
    child = component(supervisor, "kept", SLEEP, restart=True)
    child.start()
    first = child.pid
    assert first is not None
    os.kill(first, 9)
    wait(lambda: child.pid not in (None, first), "another process")
    assert child.status.last_exit == -9


def test_stages_are_stopped_from_the_highest_down(supervisor: Supervisor) -> None:
    """A server must outlive its clients, so that these can say goodbye."""
    order = supervisor.folder / "order"
    for stage in (0, 1):
        program = (
            "import pathlib, signal, sys, time\n"
            f"def end(*_):\n    open({str(order)!r}, 'a').write('{stage}'); sys.exit(0)\n"
            f"signal.signal(signal.SIGTERM, end); pathlib.Path({str(order)!r} + '.{stage}').touch(); time.sleep(600)"
        )
        component(supervisor, f"stage-{stage}", [sys.executable, "-c", program], stage=stage).start()
    wait(lambda: all(order.with_name(f"order.{stage}").exists() for stage in (0, 1)), "both")
    supervisor.shutdown(grace_s=5)
    assert order.read_text() == "10"


def test_an_environment_ends_with_whoever_sets_it_up(tmp_path: Path) -> None:
    """Also when that process is killed: nobody is left who could clean up."""
    folder = tmp_path / "environment"
    program = f"""
import os, pathlib, sys, time
from prfaas_local.components import Supervisor
from prfaas_local.supervisor import Specification
supervisor = Supervisor(pathlib.Path({str(folder)!r}))
supervisor.start()
supervisor.component(Specification("one", {SLEEP!r}, dict(os.environ), {str(folder / "one.log")!r}, True, 0)).start()
print("ready", flush=True)
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    mark = processes.mark_of(folder)
    assert len(processes.marked(mark)) == 2
    owner.kill()
    owner.wait()
    owner.stdout.close()
    wait(lambda: processes.marked(mark) == [], "the end of the environment")


def test_a_detached_environment_goes_on_and_a_second_one_is_refused(tmp_path: Path) -> None:
    first = Supervisor(tmp_path / "environment")
    first.start()
    try:
        child = component(first, "one", SLEEP)
        child.start()
        first.detach()
        assert child.pid is not None
        again = Supervisor(tmp_path / "environment")
        assert again.status()["one"].pid == child.pid
        with pytest.raises(LocalClusterError, match="already running"):
            again.start()
    finally:
        first.shutdown(grace_s=1)
    assert processes.marked(first.mark) == []
    with pytest.raises(LocalClusterError, match="is not running"):
        first.status()
