"""Which mounts give a process its volumes at their paths, without touching the machine's own directories.

A container sees the machine's root with its volumes laid over it. The new root is a tmpfs in a mount namespace of the
container. Directories off the way to a volume are bound as they are; those on the way are made anew and their other
children bound one by one. Planning is pure: it reads the machine through `Tree` and returns operations that
`launcher` carries out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol


class Tree(Protocol):
    """What planning needs to know of the machine's file system."""

    def entries(self, path: str) -> list[str]:
        """Return the names in a directory; empty when there is no such directory."""

    def link(self, path: str) -> str | None:
        """Return where a symbolic link points, or None when the path is none."""

    def is_directory(self, path: str) -> bool:
        """Return whether the path, which is no link, is a directory."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One file or directory of the machine that appears at a path of the container."""

    source: str
    target: str
    read_only: bool = False
    source_is_directory: bool = True


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of the launcher. Paths in `target` are inside the new root."""

    kind: str
    """directory, file, link, bind or read_only."""
    target: str
    source: str = ""


class MountError(ValueError):
    """Volume mounts that contradict each other or the machine."""


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    mount: Mount | None = None


class Machine:
    """The real file system as a `Tree`."""

    def entries(self, path: str) -> list[str]:
        """Return the sorted names in a directory, or nothing."""
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def link(self, path: str) -> str | None:
        """Return the target of a symbolic link."""
        try:
            return os.readlink(path)
        except OSError:
            return None

    def is_directory(self, path: str) -> bool:
        """Return whether the path is a directory itself."""
        return os.path.isdir(path)


def plan(mounts: Sequence[Mount], tree: Tree) -> list[Operation]:
    """Return the operations that build a root with the mounts in it.

    Raises `MountError` when two mounts claim one path, a path is relative, or a file is in a path's way.
    """
    root = _Node()
    for mount in mounts:
        if not mount.target.startswith("/"):
            raise MountError(f"mountPath {mount.target!r} must be absolute")
        node = root
        for part in PurePosixPath(resolve(mount.target, tree)).parts[1:]:
            node = node.children.setdefault(part, _Node())
        if node is root:
            raise MountError("mountPath / would hide the machine; mount below it")
        if node.mount:
            raise MountError(f"mountPath {mount.target!r} is used by two volume mounts")
        node.mount = mount
    operations = list(_assemble("", root, tree))
    # Last, because mount points inside a volume may have to be created first.
    operations += [Operation("read_only", resolve(mount.target, tree)) for mount in mounts if mount.read_only]
    return operations


def resolve(path: str, tree: Tree) -> str:
    """Return the absolute path with the machine's symbolic links followed, as far as it exists."""
    done: list[str] = []
    left = list(reversed(PurePosixPath(path).parts[1:]))
    for _ in range(256):
        if not left:
            return "/" + "/".join(done)
        part = left.pop()
        if part == "..":
            done = done[:-1]
            continue
        target = tree.link("/" + "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        parts = PurePosixPath(target).parts
        if target.startswith("/"):
            done, parts = [], parts[1:]
        left.extend(reversed(parts))
    raise MountError(f"mountPath {path!r}: too many levels of symbolic links")


def _assemble(path: str, node: _Node, tree: Tree) -> Iterator[Operation]:
    for name in tree.entries(path or "/"):
        child = f"{path}/{name}"
        if name in node.children:
            continue
        target = tree.link(child)
        if target is not None:
            yield Operation("link", child, target)
        else:
            yield Operation("directory" if tree.is_directory(child) else "file", child)
            yield Operation("bind", child, child)
    for name, branch in node.children.items():
        child = f"{path}/{name}"
        if branch.mount:
            yield from _place(child, branch)
        elif tree.entries(child) or tree.is_directory(child) or not _exists(child, tree):
            yield Operation("directory", child)
            yield from _assemble(child, branch, tree)
        else:
            raise MountError(f"cannot mount below {child}: it is a file of the machine")


def _place(path: str, node: _Node) -> Iterator[Operation]:
    mount = node.mount
    if mount is not None:
        yield Operation("directory" if mount.source_is_directory else "file", path)
        yield Operation("bind", path, mount.source)
    else:
        yield Operation("directory", path)
    for name, branch in node.children.items():
        yield from _place(f"{path}/{name}", branch)


def _exists(path: str, tree: Tree) -> bool:
    parent, _, name = path.rpartition("/")
    return name in tree.entries(parent or "/")
