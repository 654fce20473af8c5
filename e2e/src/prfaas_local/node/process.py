"""Processes of containers: start through the launcher, wait through a pidfd, signal the whole group."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from prfaas_local.node import launcher
from prfaas_local.node.mounts import Operation


class StartError(RuntimeError):
    """The command could not be executed."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that one process needs to start."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    operations: Sequence[Operation]
    root: Path
    """An empty directory on which the new root is mounted; used when there are operations."""
    log: Path


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended."""

    code: int
    """128 + signal when a signal ended it."""
    signal: int | None


class Process:
    """A running process in a session of its own."""

    def __init__(self, popen: subprocess.Popen[bytes], exited: asyncio.Future[Exit]) -> None:
        self._popen = popen
        self._exited = exited
        self.pid = popen.pid

    @classmethod
    async def start(cls, launch: Launch) -> Process:
        """Start a process and wait until its command is executed. Raises `StartError`.

        The calling thread must live as long as the agent: the kernel kills the process when that thread ends.
        """
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        launch.root.mkdir(parents=True, exist_ok=True)
        plan = os.memfd_create("plan")
        report_read, report_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.write(plan, _encode(launch))
            os.lseek(plan, 0, os.SEEK_SET)
            with launch.log.open("ab", buffering=0) as log:
                popen = subprocess.Popen(  # noqa: ASYNC220  vfork and exec, a millisecond; a thread would be its parent
                    [sys.executable, "-I", "-S", launcher.__file__, str(plan), str(report_write)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(plan, report_write),
                    cwd="/",
                    env={},
                )
        except BaseException:
            os.close(report_read)
            raise
        finally:
            os.close(plan)
            os.close(report_write)
        process = cls(popen, _watch(popen))
        try:
            message = await _read_all(report_read)
        except asyncio.CancelledError:
            process.signal(signal.SIGKILL)
            raise
        if message:
            await process.wait()
            raise StartError(message.decode(errors="replace"))
        return process

    async def wait(self) -> Exit:
        """Wait for the end of the process. Its descendants that kept its session are killed then."""
        return await asyncio.shield(self._exited)

    @property
    def running(self) -> bool:
        """Whether the process has not been reaped."""
        return not self._exited.done()

    def signal(self, number: int) -> None:
        """Send a signal to the process group; nothing happens when it is gone."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def run_for(self, timeout_s: float) -> Exit | None:
        """Wait for the end, at most so long; kill the process and return None when it takes longer."""
        try:
            return await asyncio.wait_for(self.wait(), timeout_s)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()
            return None


def _encode(launch: Launch) -> bytes:
    return orjson.dumps(
        {
            "root": str(launch.root),
            "operations": [[item.kind, item.target, item.source] for item in launch.operations],
            "arguments": list(launch.arguments),
            "environment": dict(launch.environment),
            "directory": launch.directory,
            "parent": os.getpid(),
        }
    )


def _watch(popen: subprocess.Popen[bytes]) -> asyncio.Future[Exit]:
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[Exit] = loop.create_future()
    descriptor = os.pidfd_open(popen.pid)

    def reap() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        # Before reaping, while the group id cannot belong to anybody else.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, signal.SIGKILL)
        code = popen.wait()
        if not exited.done():
            exited.set_result(Exit(code, None) if code >= 0 else Exit(128 - code, -code))

    loop.add_reader(descriptor, reap)
    return exited


async def _read_all(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()
    content = b""

    def readable() -> None:
        nonlocal content
        with suppress(BlockingIOError):
            chunk = os.read(descriptor, 65536)
            content += chunk
            if not chunk and not done.done():
                done.set_result(content)

    loop.add_reader(descriptor, readable)
    try:
        return await done
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
