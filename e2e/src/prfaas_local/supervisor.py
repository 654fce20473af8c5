"""The process that owns all processes of one environment: `python -m prfaas_local.supervisor FOLDER`.

It starts components, keeps them running, and stops them in the reverse order of their stages. It is told what to do
over a Unix socket in FOLDER: one JSON object a line, one line back. It goes on when the process that started it ends, but
only after it was told so (`detach`): until then standard input is the lifeline, and its end means that whoever is
setting the environment up was interrupted or killed.

Only the standard library is imported, so that it starts in a moment and stays small.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prfaas_local.processes import MARK

SOCKET = "supervisor.sock"
BACKOFF_FIRST_S = 0.25
BACKOFF_MOST_S = 10.0
STABLE_S = 20.0
"""A component that ran so long starts again without a wait."""
GRACE_S = 10.0
"""How long a component may take to end when the supervisor itself is told to end by a signal or by its lifeline."""


@dataclass(frozen=True, slots=True)
class Specification:
    """What a component is.

    Attributes:
        name: `CLUSTER/PROGRAM` or `PROGRAM`; unique.
        command: program and arguments.
        environment: all variables; the mark is added.
        log: file that gets its output, appended.
        restart: start it again, with back-off, whenever it ends.
        stage: components of higher stages are stopped first.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    log: str
    restart: bool
    stage: int


@dataclass(frozen=True, slots=True)
class Status:
    """How a component is.

    Attributes:
        pid: None while it does not run.
        exits: how often it ended on its own since it was last told to start.
        last_exit: status of the last end on its own; negative: the signal.
    """

    name: str
    pid: int | None
    exits: int
    last_exit: int | None


class _Component:
    """One component: at most one process at a time, started again as its specification wants."""

    def __init__(self, specification: Specification) -> None:
        self.specification = specification
        self._exits = 0
        self._last_exit: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def status(self) -> Status:
        pid = self._process.pid if self._process is not None else None
        return Status(self.specification.name, pid, self._exits, self._last_exit)

    def start(self) -> None:
        """Start it and keep it so, unless it runs."""
        if self._process is not None:
            return
        if self._keeper is not None:
            self._keeper.cancel()
        self._exits, self._last_exit = 0, None
        self._spawn()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self, grace_s: float) -> None:
        """End it, by force after `grace_s`; it stays ended until it is started again."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        if self._process is None:
            return
        if grace_s > 0:
            self._signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), grace_s)
        self._signal(signal.SIGKILL)
        await self._ended.wait()

    async def _keep(self) -> None:
        wait_s = BACKOFF_FIRST_S
        while True:
            started_s = time.monotonic()
            await self._ended.wait()
            self._exits += 1
            if not self.specification.restart:
                return
            if time.monotonic() - started_s > STABLE_S:
                wait_s = BACKOFF_FIRST_S
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, BACKOFF_MOST_S)
            self._spawn()

    def _spawn(self) -> None:
        specification = self.specification
        Path(specification.log).parent.mkdir(parents=True, exist_ok=True)
        with open(specification.log, "ab") as log:
            try:
                process = subprocess.Popen(
                    specification.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**specification.environment, MARK: os.environ[MARK]},
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"{specification.command[0]}: {error.strerror}\n".encode())
                self._last_exit = 127
                self._ended.set()
                return
        self._process = process
        self._ended.clear()
        descriptor = os.pidfd_open(process.pid)
        loop = asyncio.get_running_loop()

        def reap() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            # What it left in its group, while the group's id cannot belong to anybody else.
            self._signal(signal.SIGKILL)
            self._last_exit = process.wait()
            self._process = None
            self._ended.set()

        loop.add_reader(descriptor, reap)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class _Supervisor:
    """All components, and the requests about them."""

    def __init__(self) -> None:
        self._components: dict[str, _Component] = {}
        self._over = asyncio.Event()
        self._grace_s = GRACE_S
        self._stopping: asyncio.Task[None] | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Answer requests until told to shut down."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._over.set)
        loop.add_reader(sys.stdin.fileno(), self._over.set)
        server = await asyncio.start_unix_server(self._converse, sock=listener)
        await self._over.wait()
        await self._stop_all()
        server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            async for line in reader:
                try:
                    answer = {"result": await self._answer(json.loads(line))}
                except (ValueError, KeyError, TypeError) as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, request: dict[str, Any]) -> Any:
        match request["do"]:
            case "start":
                specification = Specification(**request["specification"])
                component = self._components.setdefault(specification.name, _Component(specification))
                component.specification = specification
                component.start()
                return asdict(component.status)
            case "stop":
                await self._components[request["name"]].stop(request["grace_s"])
                return None
            case "status":
                return [asdict(component.status) for component in self._components.values()]
            case "detach":
                asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
                return None
            case "shutdown":
                self._grace_s = request["grace_s"]
                await self._stop_all()
                self._over.set()
                return None
            case unknown:
                raise ValueError(f"{unknown!r} is none of start, stop, status, detach, shutdown")

    async def _stop_all(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop_stages())
        await self._stopping

    async def _stop_stages(self) -> None:
        stages = sorted({component.specification.stage for component in self._components.values()}, reverse=True)
        for stage in stages:
            members = [one for one in self._components.values() if one.specification.stage == stage]
            await asyncio.gather(*(component.stop(self._grace_s) for component in members))


def listen(folder: Path) -> socket.socket:
    """Return a socket that listens in `folder`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    through_descriptor(folder, listener.bind)
    listener.listen()
    return listener


def through_descriptor(folder: Path, use: Callable[[str], None]) -> None:
    """Call `use` with a path of the socket in `folder` that is short enough, however long the folder's own path is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        use(f"/proc/self/fd/{descriptor}/{SOCKET}")
    finally:
        os.close(descriptor)


def main() -> None:
    """Listen, go to the background and serve; the call returns in the foreground once the socket listens."""
    if MARK not in os.environ:
        sys.exit(f"{MARK} is not set; the supervisor is started by prfaas_local.components.Supervisor.start")
    listener = listen(Path(sys.argv[1]))
    if os.fork() != 0:
        # Without the interpreter's clean-up, which would close what both have.
        os._exit(0)
    asyncio.run(_Supervisor().serve(listener))


if __name__ == "__main__":
    main()
