"""The Dockerfiles are sound as far as can be told without Docker."""

import json
import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((REPOSITORY / "worker-images").rglob("Dockerfile"))
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "ENTRYPOINT", "ARG"}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_a_dockerfile_is_sound(dockerfile: Path) -> None:
    """Known instructions, pinned bases, copies of what is there, one entry point without a shell."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert {line.split()[0] for line in lines} <= INSTRUCTIONS
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert re.search(r":v?(\d|\$\{\w+_VERSION\})", base), f"{base} is not pinned"
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (REPOSITORY / source).exists(), source
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)
    assert all(isinstance(part, str) for part in json.loads(entry))
    assert f"docker build -f {dockerfile.relative_to(REPOSITORY)} " in text


def test_the_image_without_a_gpu_holds_both_workers() -> None:
    """It installs the extra that both need, from everything that the wheel is made of, and does not run as root."""
    text = (REPOSITORY / "worker-images/Dockerfile").read_text()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert re.search(rf"^COPY {package.split('/')[0]} ", text, re.MULTILINE), package
    assert "'.[workers]'" in text
    assert {"prfaas-sim", "prfaas-tiny"} <= set(project["project"]["scripts"])
    assert re.search(r"^USER 65532:65532$", text, re.MULTILINE)
