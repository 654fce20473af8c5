"""Running control planes for tests, and waiting for what happens in them."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prfaas_local import flags
from prfaas_local.cluster import Cluster
from prfaas_local.components import Supervisor
from prfaas_local.errors import LocalClusterError
from prfaas_local.network import Network

_OCTETS = range(40, 126, 2)
_POLL_S = 0.02


def wait(condition: Callable[[], Any], what: str, deadline_s: float = 60.0) -> Any:
    """Return the first true value of a condition.

    Raises:
        AssertionError: it had none within the deadline.
    """
    end_s = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= end_s:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        time.sleep(_POLL_S)


@contextmanager
def control_plane(
    folder: Path, name: str = "test", *, autoscaler_sync_s: float = flags.AUTOSCALER_SYNC_S
) -> Iterator[Cluster]:
    """Start a control plane, and stop it in the end whatever happens, also when this process is killed."""
    with free_network() as network:
        supervisor = Supervisor(folder)
        cluster = Cluster(name, folder, network, supervisor, autoscaler_sync_s=autoscaler_sync_s)
        try:
            supervisor.start()
            cluster.start()
            cluster.wait_ready()
            yield cluster
        finally:
            # Nobody needs the state any more, so nothing gets time to write it.
            supervisor.shutdown(grace_s=0)


@contextmanager
def free_network() -> Iterator[Network]:
    """Reserve loopback ranges, so that test runs beside each other do not meet."""
    octets = list(_OCTETS)
    random.shuffle(octets)
    for octet in octets:
        with socket.socket(socket.AF_UNIX) as reservation:
            try:
                # An abstract address: the kernel forgets it with the process.
                reservation.bind(f"\0prfaas-local-127.{octet}")
            except OSError:
                continue
            yield Network(pods=octet, services=octet + 1)
            return
    raise LocalClusterError(f"all of 127.{_OCTETS.start}.0.0 to 127.{_OCTETS.stop}.0.0 is in use by tests")
