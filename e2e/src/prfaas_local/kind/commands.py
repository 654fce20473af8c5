"""Runs the programs that `kind` needs, and turns their failures into errors that say what was run and what it answered."""

from __future__ import annotations

import shlex
import subprocess

from prfaas_local.clients import Run
from prfaas_local.errors import LocalClusterError

WAY_OUT = "or take the provider `processes`, which needs no containers"
_ADVICE = {"kind": f"install it from https://kind.sigs.k8s.io, {WAY_OUT}"}
_TAIL_CHARACTERS = 3000


class Commands:
    """Runs commands through `run`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def output(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """Run a command and return what it printed.

        Raises:
            LocalClusterError: it is not installed, failed, or took longer than `timeout_s`.
        """
        program, shown = arguments[0], shlex.join(arguments)
        try:
            done = self._run(arguments, input=None, capture_output=True, text=True, check=False, timeout=timeout_s)
        except OSError as error:
            advice = _ADVICE.get(program, "install it")
            raise LocalClusterError(f"`{program}` does not run ({error.strerror}); {advice}") from error
        except subprocess.TimeoutExpired as error:
            raise LocalClusterError(f"`{shown}` took more than {timeout_s:.0f} s") from error
        if done.returncode != 0:
            told = (done.stderr.strip() or done.stdout.strip())[-_TAIL_CHARACTERS:]
            raise LocalClusterError(f"`{shown}` failed with status {done.returncode}:\n{told}")
        return done.stdout
