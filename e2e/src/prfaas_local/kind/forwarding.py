"""Ways from this machine to Services in kind, whose addresses exist only between the containers: `kubectl port-forward`.

A forward goes to one pod of its Service. It is made again when it is asked for after its end, as when that pod is gone.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from prfaas_local import processes
from prfaas_local.components import tail
from prfaas_local.errors import LocalClusterError

_LISTENS = re.compile(r"^Forwarding from 127\.0\.0\.1:(\d+) ->", re.MULTILINE)
_DEADLINE_S = 30.0
_GRACE_S = 5.0
_POLL_S = 0.05

Spawn = Callable[[Sequence[str], Path], "subprocess.Popen[bytes]"]
"""Starts a command with its output in a file."""


class Forwards:
    """The forwards of this process, in an environment whose state is in `folder`."""

    def __init__(self, folder: Path, spawn: Spawn | None = None) -> None:
        self._folder = folder
        self._spawn = spawn or self._start
        self._running: dict[tuple[str, ...], tuple[subprocess.Popen[bytes], str]] = {}

    def url(self, kubectl: Sequence[str], namespace: str, service: str, port: int) -> str:
        """Return the base URL of a Service on this machine.

        Args:
            kubectl: the command, with the options that choose the cluster.
            namespace: of the Service.
            service: its name.
            port: one of its ports.

        Raises:
            LocalClusterError: kubectl refuses, or says nothing in time.
        """
        command = (
            *kubectl, "port-forward", f"--namespace={namespace}", "--address=127.0.0.1", f"service/{service}", f":{port}",
        )  # fmt: skip
        known = self._running.get(command)
        if known is not None and known[0].poll() is None:
            return known[1]
        log = self._folder / "logs" / f"forward-{namespace}-{service}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        process = self._spawn(command, log)
        try:
            found = f"http://127.0.0.1:{_port(process, log, service)}"
        except BaseException:
            _end(process)
            raise
        self._running[command] = (process, found)
        return found

    def close(self) -> None:
        """End all of them."""
        while self._running:
            _, (process, _) = self._running.popitem()
            _end(process)

    def _start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        # Marked, so that `stop` finds it after this process was killed.
        environment = os.environ | {processes.MARK: processes.mark_of(self._folder)}
        with log.open("ab") as output:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
            )


def _port(process: subprocess.Popen[bytes], log: Path, service: str) -> str:
    end_s = time.monotonic() + _DEADLINE_S
    while True:
        ended = process.poll() is not None
        if (found := _LISTENS.search(log.read_text(errors="replace"))) and not ended:
            return found[1]
        if ended or time.monotonic() > end_s:
            raise LocalClusterError(f"kubectl port-forward to {service} does not listen:\n{tail(log)}")
        time.sleep(_POLL_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
