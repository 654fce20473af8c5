"""Generate the gRPC stubs of `prfaas_protocol` next to their `.proto` files.

`make generate` runs it, and a test compares what it would write with what is committed.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

SOURCE_ROOT = Path(__file__).resolve().parent.parent / "core" / "src"
PACKAGE = "prfaas_protocol"


def generate(target: Path) -> list[Path]:
    """Write the stubs of every .proto below `target` and return their paths, sorted."""
    protos = sorted((SOURCE_ROOT / PACKAGE).glob("*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    arguments = [
        "protoc",
        f"--proto_path={SOURCE_ROOT}",
        f"--proto_path={well_known}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        f"--grpc_python_out={target}",
        *(str(proto) for proto in protos),
    ]
    status = protoc.main(arguments)
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")
    return sorted((target / PACKAGE).glob("*_pb2*"))


def differences() -> list[str]:
    """Return the names of the committed stubs that are missing, stale or left over."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = {path.name: path.read_bytes() for path in generate(Path(folder))}
    committed = {path.name: path.read_bytes() for path in (SOURCE_ROOT / PACKAGE).glob("*_pb2*")}
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        stale = differences()
        if stale:
            raise SystemExit(f"stale stubs: {', '.join(stale)}; run `make generate`")
    else:
        for written in generate(SOURCE_ROOT):
            print(written.relative_to(SOURCE_ROOT.parent.parent))
