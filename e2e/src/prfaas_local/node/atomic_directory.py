"""Directories whose files change all at once, with the kubelet's layout.

`DIR/NAME` links to `..data/NAME`, `..data` links to a folder with the time in its name, and an update renames a new
`..data` over the old one. A reader that opens files through `..data` sees one version or the other.
"""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

DATA = "..data"


@dataclass(frozen=True, slots=True)
class File:
    """Content and mode of one projected file."""

    content: bytes
    mode: int = 0o644


def write(directory: Path, files: Mapping[str, File]) -> bool:
    """Make the directory hold exactly these files. Return whether anything changed."""
    directory.mkdir(parents=True, exist_ok=True)
    current = directory / DATA
    if current.is_symlink() and _read(current) == dict(files):
        return False
    old = directory / current.readlink() if current.is_symlink() else None
    stamp = datetime.datetime.now(datetime.UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
    fresh = Path(tempfile.mkdtemp(prefix=stamp, dir=directory))
    fresh.chmod(0o755)
    for name, file in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.rename(current)
    visible = {PurePosixPath(name).parts[0] for name in files}
    for name in visible:
        path = directory / name
        if not path.is_symlink():
            path.symlink_to(f"{DATA}/{name}")
    for path in directory.iterdir():
        if path.is_symlink() and not path.name.startswith("..") and path.name not in visible:
            path.unlink()
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return True


def _read(data: Path) -> dict[str, File]:
    found: dict[str, File] = {}
    root = data.resolve()
    for parent, _, names in os.walk(root):
        for name in names:
            path = Path(parent) / name
            found[str(path.relative_to(root))] = File(path.read_bytes(), path.stat().st_mode & 0o7777)
    return found
