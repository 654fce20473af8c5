"""The last snapshot that was served, on disk, so that a restarted router serves while the operator is away."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from google.protobuf.message import DecodeError

from prfaas_protocol import configuration_pb2 as pb

_MAGIC = b"prfaas-snapshot-1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


class DamagedError(ValueError):
    """The file is not a whole snapshot."""


class LastKnownGood:
    """One file that holds one snapshot with its checksum."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "snapshot.bin"

    def save(self, snapshot: pb.Snapshot) -> None:
        """Write the snapshot; a crash leaves the old file or the new one, never a half."""
        content = snapshot.SerializeToString(deterministic=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(_MAGIC + hashlib.sha256(content).digest() + content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)

    def load(self) -> pb.Snapshot | None:
        """Return the snapshot; None when there is none.

        Raises:
            DamagedError: the file was cut or changed.
        """
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        digest, content = raw[len(_MAGIC) :][:_DIGEST_BYTES], raw[len(_MAGIC) + _DIGEST_BYTES :]
        if not raw.startswith(_MAGIC) or hashlib.sha256(content).digest() != digest:
            raise DamagedError(f"{self._path}: the checksum differs; the file is ignored and written anew")
        try:
            return pb.Snapshot.FromString(content)
        except DecodeError as error:
            raise DamagedError(f"{self._path}: not a snapshot: {error}") from error
