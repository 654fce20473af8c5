"""Processes that outlived an earlier agent with the same state directory.

The kernel kills a container's process when the agent dies, but not what that process started. Each container's
environment names the agent's state directory, and children inherit it, so the next agent finds them.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

MARKER = "PRFAAS_LOCAL_NODE"
"""Variable of every container: the state directory of its agent."""


def kill_leftovers(state_dir: Path) -> int:
    """Kill all processes that carry the marker of this state directory. Return how many there were."""
    wanted = f"{MARKER}={state_dir}".encode()
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # The descriptor keeps the id from meaning another process between the look and the signal.
            descriptor = os.pidfd_open(int(entry.name))
        except OSError:
            continue
        try:
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    killed += 1
        finally:
            os.close(descriptor)
    if killed:
        logger.info("killed %d processes of an earlier agent", killed)
    return killed
