"""Forwards to Services: one for each, made again when it has ended, and ended with its owner."""

from pathlib import Path
from typing import Any

import pytest

from prfaas_local import processes
from prfaas_local.errors import LocalClusterError
from prfaas_local.kind.forwarding import Forwards

KUBECTL = ("kubectl", "--kubeconfig=east.kubeconfig")


@pytest.fixture
def forwards(tmp_path: Path, spawner: Any) -> Forwards:
    return Forwards(tmp_path, spawner)


def test_a_service_is_forwarded_once_to_a_port_that_kubectl_chose(forwards: Forwards, spawner: Any) -> None:
    first = forwards.url(KUBECTL, "demo", "chat-router", 8080)
    assert first == forwards.url(KUBECTL, "demo", "chat-router", 8080) == "http://127.0.0.1:41000"
    assert spawner.commands == [
        "kubectl --kubeconfig=east.kubeconfig port-forward --namespace=demo --address=127.0.0.1 service/chat-router :8080"
    ]
    spawner.port = 41001
    assert forwards.url(KUBECTL, "demo", "other", 8080) == "http://127.0.0.1:41001"


def test_one_that_has_ended_is_made_again(forwards: Forwards, spawner: Any) -> None:
    forwards.url(KUBECTL, "demo", "chat-router", 8080)
    spawner.processes[0].kill()
    spawner.processes[0].wait()
    spawner.port = 41001
    assert forwards.url(KUBECTL, "demo", "chat-router", 8080) == "http://127.0.0.1:41001"


def test_what_kubectl_says_when_it_fails_is_told(forwards: Forwards, spawner: Any) -> None:
    spawner.script = 'echo "error: no endpoints available" >&2; exit 1'
    with pytest.raises(LocalClusterError, match="chat-router does not listen:\nerror: no endpoints available"):
        forwards.url(KUBECTL, "demo", "chat-router", 8080)


def test_closing_ends_all(forwards: Forwards, spawner: Any) -> None:
    forwards.url(KUBECTL, "demo", "a", 1)
    forwards.url(KUBECTL, "demo", "b", 1)
    forwards.close()
    assert [process.returncode for process in spawner.processes] == [-15, -15]
    forwards.close()


def test_a_forward_of_a_killed_process_is_found_by_the_environments_mark(tmp_path: Path) -> None:
    """The real start, of a script in the place of kubectl."""
    script = tmp_path / "kubectl"
    script.write_text('#!/bin/sh\necho "Forwarding from 127.0.0.1:41000 -> 8080"\nexec sleep 60\n')
    script.chmod(0o700)
    forwards = Forwards(tmp_path)
    try:
        assert forwards.url((str(script),), "demo", "a", 1) == "http://127.0.0.1:41000"
        assert processes.stop_marked(processes.mark_of(tmp_path), 5) == 1
    finally:
        forwards.close()
