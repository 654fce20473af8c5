"""A running control plane for tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prfaas_local import processes
from prfaas_local.cluster import Cluster, Network

_numbers = itertools.count()


@contextmanager
def control_plane(folder: Path, name: str = "test") -> Iterator[Cluster]:
    """Start a control plane, and stop it in the end whatever happens.

    The addresses come from the process id, so that test runs beside each other do not meet.
    """
    number, mark = next(_numbers), f"test-{os.getpid()}-{folder.name}"
    network = Network(f"127.{200 + os.getpid() % 16}.{(os.getpid() >> 4) % 256}.{1 + number % 250}", 216, 217)
    cluster = Cluster(name, folder, network, mark)
    try:
        cluster.start()
        cluster.wait_ready()
        yield cluster
    finally:
        cluster.stop()
        processes.stop_marked(mark, grace_s=2)
