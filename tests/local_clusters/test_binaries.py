"""Programs are looked for in KUBEBUILDER_ASSETS, then in the cache, and only then built."""

from pathlib import Path

import pytest

from prfaas_local import binaries
from prfaas_local.errors import LocalClusterError


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_order_is_assets_cache_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "KUBEBUILDER_ASSETS": str(tmp_path / "assets")}
    built: list[Path] = []

    def build(module: binaries.Module, folder: Path, _: object) -> None:
        built.append(folder)
        for name in module.names:
            program(folder / name)

    monkeypatch.setattr(binaries, "_build", build)
    first = binaries.find("etcd", environment=environment)
    assert first.parent == built[0]
    assert binaries.find("kube-scheduler", environment=environment).parent == built[0]
    assert len(built) == 1
    given = program(tmp_path / "assets" / "etcd")
    assert binaries.find("etcd", environment=environment) == given
    assert binaries.find("kube-scheduler", environment=environment).parent == built[0]


def test_a_program_that_is_not_one_is_refused() -> None:
    with pytest.raises(LocalClusterError, match=r"'kubelet' is not a program.*kube-apiserver"):
        binaries.find("kubelet", environment={"HOME": "/nowhere"})


@pytest.mark.parametrize(("go", "message"), [(None, "KUBEBUILDER_ASSETS"), ("go1.20.3", "too old")])
def test_go_that_is_missing_or_old_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: str | None, message: str
) -> None:
    if go is not None:
        program(tmp_path / "bin" / "go").write_text(f"#!/bin/sh\necho {go}\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(LocalClusterError, match=message):
        binaries.find("helm", environment={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert not list((tmp_path / "cache").rglob("helm"))
