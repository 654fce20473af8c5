"""A stand-in for `subprocess.run` that records commands and answers as Docker and kind do."""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from prfaas_local.kind.clusters import KindClusters


class Recorder:
    """Knows which clusters exist, as kind does."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.clusters: set[str] = set()
        self.missing: set[str] = set()
        """Programs that are not installed."""
        self.failing: dict[str, str] = {}
        """What commands that contain the text answer on standard error."""
        self.raising: dict[str, BaseException] = {}
        """What is raised by commands that contain the text."""

    def __call__(
        self, arguments: Sequence[str], /, *, capture_output: bool, text: bool, check: bool, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        assert capture_output
        assert text
        assert not check
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
                Path(option.partition("=")[2]).write_text(f"of {name}")
            case ["kind", "delete", "cluster"]:
                self.clusters.discard(name)
            case ["kind", "get", "nodes"]:
                return f"{name}-control-plane\n"
            case ["kind", "get", "kubeconfig"]:
                return f"internal of {name}" if "--internal" in arguments else f"of {name}"
            case ["docker", "inspect", _]:
                return f"172.18.0.{2 + sorted(self.clusters).index(arguments[-1].removesuffix('-control-plane'))} \n"
        return ""

    def matching(self, words: str) -> list[str]:
        return [command for command in self.commands if words in command]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def clusters(tmp_path: Path, recorder: Recorder) -> KindClusters:
    return KindClusters(tmp_path / "state", run=recorder)
