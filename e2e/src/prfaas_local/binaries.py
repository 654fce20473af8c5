"""Where the programs of the control plane come from: KUBEBUILDER_ASSETS, the cache, or a build with Go.

The sources are the Go modules in `e2e/controlplane`, one folder a module. What a build makes is kept outside the work tree,
under a name made from everything that goes into it, so that a change of versions builds anew and nothing else does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prfaas_local.errors import LocalClusterError

SOURCES = Path(__file__).resolve().parents[2] / "controlplane"
KUBERNETES_VERSION = "v1.36.3"
GO_MINIMUM = (1, 26)
_LDFLAGS = (
    f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION} "
    "-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
)


@dataclass(frozen=True, slots=True)
class Module:
    """One Go module: the package that is built, and the names its program is called by."""

    folder: str
    package: str
    program: str
    names: tuple[str, ...]


KUBERNETES = Module(
    "kubernetes", ".", "kubernetes", ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
)
HELM = Module("helm", "helm.sh/helm/v4/cmd/helm", "helm", ("helm",))
PROMETHEUS = Module("prometheus", "github.com/prometheus/prometheus/cmd/prometheus", "prometheus", ("prometheus",))
MODULES = (KUBERNETES, HELM, PROMETHEUS)


def find(
    name: str, progress: Callable[[str], None] = lambda _: None, environment: Mapping[str, str] = os.environ
) -> Path:
    """Return the path of a program, building it when it is nowhere else.

    Raises:
        LocalClusterError: the name is unknown, or Go is missing, too old, or fails.
    """
    assets = environment.get("KUBEBUILDER_ASSETS")
    if assets:
        candidate = Path(assets) / name
        if os.access(candidate, os.X_OK):
            return candidate
    module = next((module for module in MODULES if name in module.names), None)
    if module is None:
        known = ", ".join(name for module in MODULES for name in module.names)
        raise LocalClusterError(f"{name!r} is not a program of the local clusters; there are {known}")
    folder = _folder(module, environment)
    target = folder / name
    if not target.exists():
        _build(module, folder, progress)
    return target


def _cache(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "/tmp")) / ".cache")  # noqa: S108 - last resort
    return Path(base) / "prfaas" / "controlplane"


def _folder(module: Module, environment: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(f"{module}{_LDFLAGS}{os.uname().machine}".encode())
    source = SOURCES / module.folder
    for path in sorted(source.glob("*")):
        if path.suffix in (".go", ".mod", ".sum"):
            digest.update(path.name.encode() + path.read_bytes())
    return _cache(environment) / f"{module.folder}-{digest.hexdigest()[:16]}"


def _build(module: Module, folder: Path, progress: Callable[[str], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if (folder / module.names[0]).exists():
            return
        _check_go()
        progress(f"building {module.folder} with Go; the first time this takes minutes")
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            fresh = Path(scratch) / "bin"
            fresh.mkdir()
            done = subprocess.run(
                ["go", "build", "-trimpath", "-ldflags", _LDFLAGS, "-o", str(fresh / module.program), module.package],
                cwd=SOURCES / module.folder,
                env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise LocalClusterError(f"go build of {module.folder} failed:\n{done.stderr[-3000:]}")
            for name in module.names:
                if name != module.program:
                    (fresh / name).symlink_to(module.program)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)


def _check_go() -> None:
    wanted = ".".join(map(str, GO_MINIMUM))
    try:
        text = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise LocalClusterError(
            f"Go {wanted} or newer builds the local control plane, and `go` does not run ({error}); "
            "install it, or set KUBEBUILDER_ASSETS to a folder with the programs"
        ) from error
    match = re.match(r"go(\d+)\.(\d+)", text)
    if match is None or (int(match[1]), int(match[2])) < GO_MINIMUM:
        raise LocalClusterError(f"{text} is too old to build the local control plane; Go {wanted} or newer is needed")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep two processes from building the same thing at once."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Have every program ready, so that nothing that comes later waits for a build."""
    for module in MODULES:
        for name in module.names:
            print(find(name, print))  # noqa: T201 - the command's output


if __name__ == "__main__":
    main()
