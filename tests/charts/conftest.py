"""The real helm, and a real cluster to install into."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prfaas_local import binaries
from prfaas_local.cluster import Cluster
from prfaas_local.testing import control_plane

CHARTS = Path(__file__).resolve().parents[2] / "charts"


class HelmError(Exception):
    """helm failed; the text is what it said."""


def run_helm(*arguments: str) -> str:
    """Run helm and return its output."""
    done = subprocess.run(
        [str(binaries.find("helm")), *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise HelmError(done.stdout + done.stderr)
    return done.stdout


@pytest.fixture(scope="session")
def helm() -> Callable[..., str]:
    """Run helm with the given arguments and return its output."""
    return run_helm


@pytest.fixture(scope="session")
def helm_error() -> type[Exception]:
    """What `helm` and `template` raise."""
    return HelmError


@pytest.fixture(scope="session")
def template() -> Callable[..., list[dict[str, Any]]]:
    """Render a chart with `--set` values and return its objects, without the CRDs."""

    def render(chart: str, *values: str) -> list[dict[str, Any]]:
        # The client-side rendering knows no cluster, so the version is given.
        text = run_helm(
            "template", "prfaas", str(CHARTS / chart), "--namespace=prfaas-system", "--kube-version=1.36.3",
            *(f"--set={value}" for value in values),
        )  # fmt: skip
        return [found for found in yaml.safe_load_all(text) if found]

    return render


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with the namespaces of two tenants."""
    with control_plane(tmp_path_factory.mktemp("charts")) as found:
        for namespace in ("team-a", "team-b"):
            found.kubectl("create", "namespace", namespace)
        yield found
