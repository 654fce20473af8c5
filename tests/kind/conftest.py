"""A stand-in for `subprocess.run` that records commands and answers as Docker, kind, kubectl and helm do."""

import base64
import json
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from prfaas_local.kind.clusters import Image, KindClusters
from prfaas_local.kind.environment import KindEnvironment, KindSettings

ROUTE = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Available", "message": ""}]}}


def kubeconfig_of(name: str, server: str) -> str:
    """Return what kind writes."""
    authority = base64.b64encode(f"CA of {name}".encode()).decode()
    cluster = {"server": server, "certificate-authority-data": authority}
    context = f"kind-{name}"
    return yaml.safe_dump(
        {
            "clusters": [{"name": context, "cluster": cluster}],
            "users": [{"name": context, "user": {"client-key-data": "secret"}}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        }
    )


class Recorder:
    """Knows which clusters exist, as kind does."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.applied: list[tuple[str, Any]] = []
        """Kubeconfig's name, and object, of what was applied from standard input."""
        self.values: list[Any] = []
        """Of the charts."""
        self.clusters: set[str] = set()
        self.missing: set[str] = set()
        """Programs that are not installed."""
        self.failing: dict[str, str] = {}
        """What commands that contain the text answer on standard error."""
        self.raising: dict[str, BaseException] = {}
        """What is raised by commands that contain the text."""

    def __call__(
        self, arguments: Sequence[str], /, *, timeout: float, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        document = options.pop("input")
        assert options == {"capture_output": True, "text": True, "check": False}
        assert timeout > 0
        command = shlex.join(arguments)
        if arguments[0] in self.missing:
            raise FileNotFoundError(2, "No such file or directory", arguments[0])
        self.commands.append(command)
        for words, error in self.raising.items():
            if words in command:
                raise error
        for words, stderr in self.failing.items():
            if words in command:
                return subprocess.CompletedProcess(arguments, 1, "", stderr)
        if document is not None:
            self._keep(list(arguments), json.loads(document))
        return subprocess.CompletedProcess(arguments, 0, self._answer(list(arguments)), "")

    def _answer(self, arguments: list[str]) -> str:
        name = arguments[arguments.index("--name") + 1] if "--name" in arguments else ""
        match arguments[:3]:
            case ["kind", "get", "clusters"]:
                return "".join(f"{cluster}\n" for cluster in sorted(self.clusters))
            case ["kind", "create", "cluster"]:
                assert name not in self.clusters
                self.clusters.add(name)
                option = next(word for word in arguments if word.startswith("--kubeconfig="))
                Path(option.partition("=")[2]).write_text(kubeconfig_of(name, "https://127.0.0.1:40000"))
            case ["kind", "delete", "cluster"]:
                self.clusters.discard(name)
            case ["kind", "get", "nodes"]:
                return f"{name}-control-plane\n"
            case ["kind", "get", "kubeconfig"]:
                assert "--internal" in arguments
                return kubeconfig_of(name, f"https://{name}-control-plane:6443")
            case ["docker", "inspect", _]:
                return f"172.18.0.{2 + sorted(self.clusters).index(arguments[-1].removesuffix('-control-plane'))} \n"
            case ["kubectl", option, "create"] if arguments[3] == "token":
                return f"token of {arguments[4]} in {_cluster(option)}\n"
            case ["kubectl", _, "get"]:
                return json.dumps(ROUTE if arguments[3] == "iroute" else {"items": []})
        return ""

    def _keep(self, arguments: list[str], document: Any) -> None:
        match arguments:
            case ["kubectl", option, "apply", "-f", "-"]:
                objects = document["items"] if document["kind"] == "List" else [document]
                self.applied += [(_cluster(option), item) for item in objects]
            case ["helm", _, "upgrade", *_]:
                self.values.append(document)
            case _:
                raise AssertionError(arguments)

    def objects(self, cluster: str, kind: str) -> list[Any]:
        """Return what was applied."""
        return [item for where, item in self.applied if where == cluster and item["kind"] == kind]

    def matching(self, words: str) -> list[str]:
        return [command for command in self.commands if words in command]


def _cluster(option: str) -> str:
    return Path(option.removeprefix("--kubeconfig=")).name.removesuffix(".kubeconfig")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def clusters(tmp_path: Path, recorder: Recorder) -> KindClusters:
    return KindClusters(tmp_path / "state", run=recorder)


class Spawner:
    """Starts, in the place of `kubectl port-forward`, a process that says where it listens."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.commands: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.script = 'echo "Forwarding from 127.0.0.1:$0 -> 8080"; exec sleep 60'

    def __call__(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        self.commands.append(shlex.join(command))
        with log.open("ab") as output:
            process = subprocess.Popen(["sh", "-c", self.script, str(self.port)], stdout=output, stderr=output)
        self.processes.append(process)
        return process


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    found = Spawner(41000)
    yield found
    alive = [process for process in found.processes if process.poll() is None]
    for process in alive:
        process.kill()
        process.wait()


@pytest.fixture
def environment(tmp_path: Path, recorder: Recorder, spawner: Spawner) -> KindEnvironment:
    image = Image(("prfaas/sim:1",), Path("Dockerfile"), Path())
    settings = KindSettings((image,), {"prfaas_pool": "prfaas.dev/pool"})
    return KindEnvironment(tmp_path / "state", settings, recorder, spawner, Path)
