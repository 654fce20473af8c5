"""A pool that is scaled, as its manifests describe it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from prfaas_cli.plan_manifests import Document, ManifestError, Objects
from prfaas_core.autoscaling import Floor, Settings, TargetType
from prfaas_core.profiles import Profile
from prfaas_operator import api
from prfaas_operator.api.scaling import Scaling, Signal
from prfaas_operator.children.metadata import Role
from prfaas_operator.scaling import schedule
from prfaas_operator.scaling import settings as scaling_settings


@dataclass(frozen=True, slots=True)
class SizedBy:
    """One signal of a pool.

    Attributes:
        title: its name in the pool's status, which tells it from the others.
        guard: the operator adds it so that the pool does not shrink too far.
    """

    title: str
    signal: Signal
    guard: bool = False

    @property
    def target_type(self) -> TargetType:
        """How its target is meant."""
        return scaling_settings.target_type(self.signal)

    @property
    def work(self) -> bool:
        """Whether it counts work in hand."""
        return scaling_settings.is_work(self.signal)


@dataclass(frozen=True, slots=True)
class ScaledPool:
    """A pool with `spec.scaling`, as the operator would decide on it."""

    name: str
    prefills: bool
    profile: Profile
    scaling: Scaling
    settings: Settings
    signals: tuple[SizedBy, ...]

    @property
    def panic_window_s(self) -> float | None:
        """Return the short window; None when bursts are answered like everything else."""
        return self.settings.panic.window_s if self.settings.panic is not None else None

    def floors(self, now: datetime) -> tuple[Floor, ...]:
        """Return what the schedules ask for.

        Raises:
            ManifestError: a time zone or a time is not known.
        """
        found = schedule.in_force(self.scaling.schedules, now)
        if found.fault:
            raise ManifestError(f"{self.name}: {found.fault}")
        return (found.floor,) if found.floor is not None else ()


def read(documents: Iterable[Document], name: str | None, period_s: float) -> ScaledPool:
    """Return the pool called `name`, or the only one that has `scaling`; it is looked at every `period_s`.

    Raises:
        ManifestError: there is no such pool, or there are several, or it is not valid.
    """
    objects = Objects(documents)
    pools: dict[tuple[str, str], api.Pool] = {**objects.all(api.PrefillPool), **objects.all(api.DecodePool)}
    scaled = {key: pool for key, pool in pools.items() if pool.spec.scaling is not None}
    known = ", ".join(sorted(key[1] for key in scaled))
    if not scaled:
        raise ManifestError("the manifests hold no PrefillPool or DecodePool with spec.scaling; add its file with -f")
    if name is None and len(scaled) > 1:
        raise ManifestError(f"--pool is missing; the manifests scale {known}")
    chosen = {key: pool for key, pool in scaled.items() if name in (None, key[1])}
    if not chosen:
        raise ManifestError(f"--pool {name}: no pool with spec.scaling is called so; there are {known}")
    (namespace, pool_name), pool = next(iter(chosen.items()))
    scaling = pool.spec.scaling
    assert scaling is not None  # noqa: S101  chosen by it
    prefills = isinstance(pool, api.PrefillPool)
    profile = objects.profile(namespace, pool.spec.profile_ref.name, f"{type(pool).__name__} {pool_name}")
    role: Role = "prefill" if prefills else "decode"
    own = scaling_settings.signals(scaling, role, profile)
    signals = (*own, *scaling_settings.guards(own, role, profile))
    return ScaledPool(
        pool_name,
        prefills,
        profile,
        scaling,
        scaling_settings.core_settings(scaling, role, period_s),
        tuple(
            SizedBy(title, signal, guard=index >= len(own))
            for index, (title, signal) in enumerate(zip(scaling_settings.titles(signals), signals, strict=True))
        ),
    )
