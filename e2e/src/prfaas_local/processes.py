"""Processes of an environment, found by a mark that they carry and never mistaken for others.

The supervisor of an environment has `PRFAAS_LOCAL_ID` in its environment and whatever it starts inherits it, so that all
of them are found from /proc, also when everybody who knew their ids is dead. There is no list of process ids that could
grow stale.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "PRFAAS_LOCAL_ID"
"""The variable that carries the mark."""
_POLL_S = 0.02


def mark_of(folder: Path) -> str:
    """Return the mark of the environment whose state is in `folder`; the folder need not exist any more."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def marked(mark: str) -> list[int]:
    """Return the ids of the processes that carry a mark, this one excepted."""
    return [pid for pid in _others() if _carries(pid, MARK, mark)]


def stop_marked(mark: str, grace_s: float) -> int:
    """Stop every process that carries a mark, at the latest after `grace_s` by force; return how many there were."""
    stopped = {pid for pid in _others() if _send(pid, MARK, mark, signal.SIGTERM)}
    wait_gone(mark, grace_s)
    return len(stopped | _killed(MARK, mark))


def kill_with(variable: str, value: str) -> int:
    """Kill every process that has a variable of this value in its environment; return how many there were."""
    return len(_killed(variable, value))


def wait_gone(mark: str, most_s: float) -> bool:
    """Wait until no process carries a mark; return whether that came true in time."""
    deadline_s = time.monotonic() + most_s
    while marked(mark):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


@contextmanager
def opened(pid: int) -> Iterator[int | None]:
    """Open a process: while the descriptor is held, `pid` means this process. None when there is no such process."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _killed(variable: str, value: str) -> set[int]:
    killed: set[int] = set()
    # Again until there is none, because those that are still there may start others in between.
    while found := {pid for pid in _others() if _send(pid, variable, value, signal.SIGKILL)}:
        killed |= found
        time.sleep(_POLL_S)
    return killed


def _send(pid: int, variable: str, value: str, number: signal.Signals) -> bool:
    """Signal a process if it carries the variable, and none that has got its id meanwhile."""
    with opened(pid) as descriptor:
        if descriptor is None or not _carries(pid, variable, value) or _ended(descriptor):
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
        return True


def _ended(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def _carries(pid: int, variable: str, value: str) -> bool:
    try:
        return f"{variable}={value}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _others() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            yield int(name)
