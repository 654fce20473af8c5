"""What happens when the agent or the API server dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

Json = dict[str, Any]
SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
SPAWN = "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); print(child.pid, flush=True); time.sleep(600)"


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def sleeper(node: Any, make_pod: Callable[..., Json]) -> Iterator[int]:
    """A pod that sleeps; the id of its process."""
    node.apply(make_pod("sleeper", SLEEP))
    node.wait(lambda: node.log("sleeper") != "", "the pod")
    node.wait(lambda: node.ready("sleeper"), "its readiness")
    yield int(node.log("sleeper"))
    node.delete("pod", "sleeper", "--force", "--grace-period=0")
    node.wait(lambda: node.gone("pod", "sleeper"), "its end")


def test_pods_die_with_the_agent_and_the_next_one_starts_them_again(
    node: Any, make_pod: Callable[..., Json], sleeper: int
) -> None:
    node.apply(make_pod("spawn", SPAWN))
    node.wait(lambda: node.log("spawn") != "", "the other pod")
    orphan, address = int(node.log("spawn")), node.address("sleeper")
    node.agent.kill()
    node.wait(lambda: not alive(sleeper), "the end of the pod's process")
    node.agent.start()
    node.wait(lambda: not alive(orphan), "the end of what left the pod's session")
    node.wait(lambda: node.status("sleeper")["restartCount"] == 1 and node.ready("sleeper"), "the restart")
    assert node.address("sleeper") == address
    assert node.status("sleeper")["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    node.delete("pod", "spawn", "--force", "--grace-period=0")


def test_pods_run_on_without_the_api_server_and_changes_arrive_afterwards(
    node: Any, make_pod: Callable[..., Json], sleeper: int
) -> None:
    uid = node.get("pod", "sleeper")["metadata"]["uid"]
    log = node.state_dir / "pods" / f"default_sleeper_{uid}" / "main" / "1.log"
    node.cluster.apiserver.kill()
    try:
        os.kill(sleeper, signal.SIGKILL)
        node.wait(lambda: log.exists() and log.read_text() != "", "the restart without an API server")
        assert alive(int(log.read_text()))
    finally:
        node.cluster.apiserver.start()
        node.cluster.wait_ready()
    node.wait(lambda: node.status("sleeper")["restartCount"] == 1, "the restart to be told")
    node.apply(make_pod("after", SLEEP))
    node.wait(lambda: node.ready("after"), "a new pod")
    node.delete("pod", "after", "--force", "--grace-period=0")


def test_pods_that_were_deleted_while_no_agent_ran_are_cleaned_up(node: Any, make_pod: Callable[..., Json]) -> None:
    node.apply(make_pod("gone", SLEEP))
    node.wait(lambda: node.ready("gone"), "the pod")
    uid = node.get("pod", "gone")["metadata"]["uid"]
    node.agent.kill()
    node.delete("pod", "gone", "--force", "--grace-period=0")
    node.agent.start()
    node.wait(lambda: not (node.state_dir / "volumes" / uid).exists(), "the end of its volumes")
