"""Become a container's process: enter a mount namespace, build its root, exec its command.

Run as a file by the interpreter in isolated mode, so it imports the standard library only and starts in milliseconds.
Arguments: the descriptor of a JSON plan, and the descriptor of a pipe that carries an error message when the command
could not be executed and is closed by a successful exec.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC = 32, 1024, 2048, 4096, 16384
MS_PRIVATE, MS_RELATIME = 1 << 18, 1 << 21
PR_SET_PDEATHSIG = 1

# A read-only remount in a user namespace must repeat the flags that the mount already has.
_KEPT_FLAGS = (
    (os.ST_NOSUID, MS_NOSUID),
    (os.ST_NODEV, MS_NODEV),
    (os.ST_NOEXEC, MS_NOEXEC),
    (os.ST_NOATIME, MS_NOATIME),
    (os.ST_NODIRATIME, MS_NODIRATIME),
    (os.ST_RELATIME, MS_RELATIME),
)

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Carry out the plan; on failure report and exit with 128, the code of a command that cannot be started."""
    plan_descriptor, report_descriptor = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(report_descriptor, False)
    try:
        with os.fdopen(plan_descriptor) as file:
            plan = json.load(file)
        if plan["operations"]:
            enter_namespace()
            build_root(plan["root"], plan["operations"])
        execute(plan)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        os.write(report_descriptor, f"{error.strerror}{where}".encode())
    except ValueError as error:
        os.write(report_descriptor, str(error).encode())
    sys.exit(128)


def enter_namespace() -> None:
    """Leave the machine's mount namespace; without root, through a user namespace that maps the user to itself."""
    if os.geteuid() == 0:
        check(libc.unshare(CLONE_NEWNS), "unshare")
    else:
        uid, gid = os.geteuid(), os.getegid()
        check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
        for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(content)
    mount("none", "/", MS_REC | MS_PRIVATE)


def build_root(root: str, operations: list[list[str]]) -> None:
    """Assemble the new root on a tmpfs and change into it."""
    mount("tmpfs", root, MS_NOSUID | MS_NODEV, filesystem=b"tmpfs", data=b"mode=755,size=4m")
    for kind, target, source in operations:
        inside = root + target
        if kind == "directory":
            os.makedirs(inside, exist_ok=True)
        elif kind == "file":
            os.makedirs(os.path.dirname(inside), exist_ok=True)
            os.close(os.open(inside, os.O_CREAT | os.O_WRONLY, 0o644))
        elif kind == "link":
            os.symlink(source, inside)
        elif kind == "bind":
            try:
                mount(source, inside, MS_BIND | MS_REC)
            except FileNotFoundError:
                # A name of the machine that went away since planning; a volume's source is checked beforehand.
                continue
        elif kind == "read_only":
            kept = os.statvfs(inside).f_flag
            flags = sum(ours for theirs, ours in _KEPT_FLAGS if kept & theirs)
            mount("none", inside, MS_BIND | MS_REMOUNT | MS_RDONLY | flags)
    os.chroot(root)
    os.chdir("/")


def execute(plan: dict[str, object]) -> None:
    """Tie the process to the agent's life and exec the command. Returns only by raising."""
    directory, arguments, environment = plan["directory"], plan["arguments"], plan["environment"]
    if not isinstance(directory, str) or not isinstance(arguments, list) or not isinstance(environment, dict):
        raise ValueError("the launch plan is malformed")  # noqa: TRY004  reported as bad input, not as a bug
    os.chdir(directory)
    # Set after the namespaces: a change of credentials clears it.
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != plan["parent"]:
        raise ValueError("the node agent went away before the command started")
    path = find(arguments[0], str(environment.get("PATH", os.defpath)))
    os.execve(path, arguments, environment)


def find(command: str, search_path: str) -> str:
    """Return the path of an executable, by the rules of a shell. Raises ValueError as container runtimes word it."""
    if "/" in command:
        return command
    for directory in search_path.split(":"):
        candidate = os.path.join(directory, command)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise ValueError(f'exec: "{command}": executable file not found in $PATH')


def mount(source: str, target: str, flags: int, *, filesystem: bytes | None = None, data: bytes | None = None) -> None:
    """Call mount(2). Raises OSError with the target as file name."""
    check(libc.mount(os.fsencode(source), os.fsencode(target), filesystem, ctypes.c_ulong(flags), data), target)


def check(result: int, what: str) -> None:
    """Raise the C library's error when a call failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    main()
