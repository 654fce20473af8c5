"""Who makes the clusters: processes of this machine, or kind."""

from __future__ import annotations

from pathlib import Path

from prfaas_cli.environments import LocalEnvironment
from prfaas_cli.installation import POD_LABELS
from prfaas_cli.manifests import Manifests
from prfaas_local.environment import Environment, Settings
from prfaas_local.errors import LocalClusterError
from prfaas_local.kind.clusters import Image
from prfaas_local.kind.environment import KindEnvironment, KindSettings

PROCESSES, KIND = "processes", "kind"
PROVIDERS = (PROCESSES, KIND)
LINK_DELAY_S = 0.001
IMAGES = (
    Image(("prfaas/operator:0.1.0",), Path("operator/Dockerfile"), Path()),
    Image(("prfaas/router:0.1.0",), Path("router/Dockerfile"), Path()),
    Image(("prfaas/sim:0.1.0", "prfaas/tiny:0.1.0"), Path("worker-images/Dockerfile"), Path()),
)
"""What charts and manifests name, from the root of a clone."""


def processes(folder: Path, manifests: Manifests) -> Environment:
    """Return the environment of processes, whose link carries what the manifests' KVLink says."""
    return Environment(folder, Settings(manifests.link_capacity_bps, LINK_DELAY_S, POD_LABELS))


def kind(folder: Path) -> KindEnvironment:
    """Return the environment on kind."""
    return KindEnvironment(folder, KindSettings(IMAGES, POD_LABELS))


def prepared(provider: str, folder: Path, manifests: Manifests) -> tuple[LocalEnvironment, Manifests]:
    """Return an environment, and the manifests as they are applied to it.

    Raises:
        LocalClusterError: the folder holds one of another provider.
    """
    found = provider_of(folder)
    if found not in (None, provider):
        raise LocalClusterError(
            f"{folder} holds an environment of the provider {found!r}; stop it with `prfaas down`, or take another --state-dir"
        )
    if provider == KIND:
        return kind(folder), manifests.with_plain_addresses().written(folder / "manifests")
    return processes(folder, manifests), manifests


def existing(folder: Path) -> LocalEnvironment:
    """Return the environment of a folder, to look at or to stop."""
    return kind(folder) if provider_of(folder) == KIND else _seen(folder)


def provider_of(folder: Path) -> str | None:
    """Return whose environment a folder holds, None when nothing is there."""
    if kind(folder).exists:
        return KIND
    try:
        _seen(folder).check_running()
    except LocalClusterError:
        return None
    return PROCESSES


def _seen(folder: Path) -> Environment:
    """Return an environment of processes that is not started, for which its settings do not matter."""
    return Environment(folder, Settings(1e9, 0.0, POD_LABELS))
