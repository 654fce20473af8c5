"""Child processes that are always found again, and never mistaken for others.

Each child is the leader of a process group of its own, logs into a file and carries `PRFAAS_LOCAL_ID` in its environment.
Whatever it starts inherits the mark, so that `stop_marked` finds everything that belongs to an environment, also when the
process that started it was killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prfaas_local.errors import LocalClusterError

MARK = "PRFAAS_LOCAL_ID"
_POLL_S = 0.02


class Child:
    """One child process that can be started more than once."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, environment: Mapping[str, str], mark: str
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._environment = {**environment, MARK: mark}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self.pid is not None:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise `LocalClusterError` with the end of its log when the process has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise LocalClusterError(f"{self.name} ended with status {self._process.returncode}:\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def kill(self) -> None:
        """Kill the process as a crash would, and wait for its end."""
        self._signal(signal.SIGKILL)
        self._wait(5.0)

    def stop(self, grace_s: float) -> None:
        """Ask the process to end, and kill its group when it has not within `grace_s`."""
        self._signal(signal.SIGTERM)
        if not self._wait(grace_s):
            self._signal(signal.SIGKILL)
            self._wait(5.0)

    def terminate(self) -> None:
        """Ask the process to end, without waiting."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _wait(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def stop_all(children: Iterable[Child], grace_s: float) -> None:
    """Stop several processes at once."""
    remaining = [child for child in children if child.pid is not None]
    for child in remaining:
        child.terminate()
    deadline_s = time.monotonic() + grace_s
    for child in remaining:
        child.stop(max(0.0, deadline_s - time.monotonic()))


def marked(mark: str) -> list[int]:
    """Return the ids of the processes that carry a mark, this one excepted."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if needle in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def stop_marked(mark: str, grace_s: float) -> int:
    """Stop every process that carries a mark; return how many there were.

    Ids come from /proc together with the mark, moments before the signal, so that no foreign process is hit.
    """
    first = marked(mark)
    for pid in first:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + grace_s
    while marked(mark) and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    while left := marked(mark):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    return len(first)
