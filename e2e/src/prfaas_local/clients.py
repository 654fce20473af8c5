"""kubectl and helm, as the administrator of one cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prfaas_local import binaries
from prfaas_local.errors import LocalClusterError

_TIMEOUT_S = 120.0


class Run(Protocol):
    """`subprocess.run`, as far as it is used here."""

    def __call__(
        self,
        arguments: Sequence[str],
        /,
        *,
        input: str | None,  # noqa: A002 - the parameter of `subprocess.run`
        capture_output: bool,
        text: bool,
        check: bool,
        timeout: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of one cluster.

    Attributes:
        kubeconfig: of its administrator.
        run: `subprocess.run`, or what a test puts in its place.
        find: returns the path of a program by its name.
    """

    kubeconfig: Path
    run: Run = subprocess.run
    find: Callable[[str], Path] = binaries.find

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output.

        Raises:
            LocalClusterError: it failed; the message is kubectl's own.
        """
        return self._output("kubectl", arguments, stdin)

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Run helm and return its output.

        Raises:
            LocalClusterError: it failed; the message is helm's own.
        """
        return self._output("helm", arguments, stdin)

    def token(self, namespace: str, service_account: str, duration: str) -> str:
        """Return a token of a ServiceAccount.

        Raises:
            LocalClusterError: there is no such ServiceAccount.
        """
        return self.kubectl(
            "create", "token", service_account, f"--namespace={namespace}", f"--duration={duration}"
        ).strip()

    def _output(self, program: str, arguments: Sequence[str], stdin: str | None) -> str:
        command = [str(self.find(program)), f"--kubeconfig={self.kubeconfig}", *arguments]
        shown = f"{program} {' '.join(arguments)}"
        try:
            done = self.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise LocalClusterError(f"{shown}: no answer within {error.timeout:.0f} s") from None
        if done.returncode != 0:
            raise LocalClusterError(f"{shown}: {done.stderr.strip()}")
        return done.stdout
