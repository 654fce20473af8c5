"""Components of an environment as seen from outside their supervisor: start, stop, kill, look at."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prfaas_local import processes, supervisor
from prfaas_local.errors import LocalClusterError
from prfaas_local.supervisor import Specification, Status

_STAGES = 4
"""At most so many stages of components are stopped one after the other."""
_GONE_S = 2.0
"""How long what was stopped may take to be gone from the process table."""


class Supervisor:
    """The supervisor of the environment in `folder`, which is another process.

    Calls are safe from several threads. Every call raises `LocalClusterError` when there is no supervisor.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = processes.mark_of(folder)
        self._lifeline: int | None = None

    def start(self) -> None:
        """Start the process. It ends with everything it owns when this process ends, unless `detach` is called.

        Raises:
            LocalClusterError: it does not start, or one is running for this folder.
        """
        if processes.marked(self.mark):
            raise LocalClusterError(f"the environment in {self.folder} is already running")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / supervisor.SOCKET).unlink(missing_ok=True)
        read, write = os.pipe()
        log = self.folder / "logs" / "supervisor.log"
        log.parent.mkdir(exist_ok=True)
        try:
            with log.open("ab") as output:
                done = subprocess.run(
                    [sys.executable, "-m", supervisor.__name__, str(self.folder.resolve())],
                    stdin=read,
                    stdout=output,
                    stderr=output,
                    env=os.environ | {processes.MARK: self.mark},
                    start_new_session=True,
                    check=False,
                )
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        if done.returncode != 0:
            os.close(write)
            raise LocalClusterError(f"the supervisor did not start:\n{tail(log)}")
        self._lifeline = write

    def detach(self) -> None:
        """Let the environment go on when this process ends."""
        self._ask({"do": "detach"})
        self._cut()

    def shutdown(self, grace_s: float) -> int:
        """Stop everything that is of this environment, whoever started it; return how many processes were left over.

        Works without a supervisor too.
        """
        with suppress(LocalClusterError):
            self._ask({"do": "shutdown", "grace_s": grace_s}, timeout_s=_STAGES * grace_s + 10)
        self._cut()
        left = 0 if processes.wait_gone(self.mark, _GONE_S) else processes.stop_marked(self.mark, grace_s)
        (self.folder / supervisor.SOCKET).unlink(missing_ok=True)
        return left

    def component(self, specification: Specification) -> Component:
        """Return a component of this supervisor; it is not started."""
        return Component(self, specification)

    def status(self) -> dict[str, Status]:
        """Return how all components are that were ever started."""
        return {item["name"]: Status(**item) for item in self._ask({"do": "status"})}

    def ask_start(self, specification: Specification) -> None:
        """Start a component; see `Component.start`."""
        self._ask({"do": "start", "specification": asdict(specification)})

    def ask_stop(self, name: str, grace_s: float) -> None:
        """Stop a component; see `Component.stop`."""
        self._ask({"do": "stop", "name": name, "grace_s": grace_s}, timeout_s=grace_s + 10)

    def _ask(self, request: Mapping[str, Any], timeout_s: float = 10.0) -> Any:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(timeout_s)
                supervisor.through_descriptor(self.folder, connection.connect)
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as answers:
                    line = answers.readline()
        except OSError as error:
            raise LocalClusterError(f"the environment in {self.folder} is not running ({error})") from error
        if not line:
            raise LocalClusterError(f"the environment in {self.folder} is shutting down")
        answer = json.loads(line)
        if "error" in answer:
            raise LocalClusterError(f"the supervisor refuses {request['do']}: {answer['error']}")
        return answer["result"]

    def _cut(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


class Component:
    """One process that the supervisor keeps."""

    def __init__(self, owner: Supervisor, specification: Specification) -> None:
        self._owner = owner
        self.specification = specification

    @property
    def name(self) -> str:
        """`CLUSTER/PROGRAM` or `PROGRAM`."""
        return self.specification.name

    @property
    def log(self) -> Path:
        """The file with its output."""
        return Path(self.specification.log)

    @property
    def status(self) -> Status:
        """How it is."""
        return self._owner.status().get(self.name, Status(self.name, None, 0, None))

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self.status.pid

    def start(self) -> None:
        """Start it, unless it runs."""
        self._owner.ask_start(self.specification)

    def stop(self, grace_s: float = 10.0) -> None:
        """Ask it to end, by force after `grace_s`; it stays ended until `start`."""
        self._owner.ask_stop(self.name, grace_s)

    def kill(self) -> None:
        """End it as a crash does, with its group; it stays ended until `start`, whatever its restart policy."""
        self._owner.ask_stop(self.name, 0.0)

    def check(self) -> None:
        """Raise `LocalClusterError` with the end of its log when it has ended on its own since it was started."""
        status = self.status
        if status.exits:
            raise LocalClusterError(f"{self.name} ended with status {status.last_exit}:\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        return tail(self.log, lines)


def tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def program(name: str) -> Sequence[str]:
    """Return the command of a console script of this distribution, by the interpreter that runs now."""
    script = Path(sys.executable).with_name(name)
    if not script.exists():
        raise LocalClusterError(f"{name} is not beside {sys.executable}; install the distribution in this environment")
    return [str(script)]
