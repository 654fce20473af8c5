"""Read request traces and turn their rows into prompts.

A trace is JSON lines in the form of the Mooncake release: `timestamp` (ms since the start), `input_length` and
`output_length` (tokens) and `hash_ids`, the ids of the prompt's 512-token blocks in order. The trace holds no text, so
the prompt of a row is made up from its block ids: equal ids give equal tokens, and with them the prefix hits of the
original.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_TOKENS = 512
VOCABULARY_TOKENS = 50_000


class TraceError(ValueError):
    """A trace file that cannot be replayed; the message names the file, the line, the field and the value."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace.

    Attributes:
        arrival_s: seconds since the start of the trace.
        input_tokens: length of the prompt, at least 1.
        output_tokens: length of the answer, at least 1.
        block_ids: ids of the prompt's blocks of 512 tokens, the last one possibly partial.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...]

    def prompt(self) -> npt.NDArray[np.uint32]:
        """Return the prompt's token ids, shape `(input_tokens,)`, the same for the same block ids."""
        positions = np.arange(BLOCK_TOKENS, dtype=np.uint64)
        ids = np.asarray(self.block_ids, dtype=np.uint64)[:, None]
        # A multiplicative hash of (block, position): tokens look unlike each other, which keeps block hashes apart.
        mixed = (ids * np.uint64(0x9E3779B97F4A7C15) + positions * np.uint64(0xC2B2AE3D27D4EB4F)) >> np.uint64(20)
        tokens: npt.NDArray[np.uint32] = (mixed % np.uint64(VOCABULARY_TOKENS)).astype(np.uint32).reshape(-1)
        return tokens[: self.input_tokens]


def load(path: Path, limit: int | None = None) -> tuple[TraceRequest, ...]:
    """Return the first `limit` requests of a trace file, in order of arrival.

    Raises:
        TraceError: the file is missing, empty, or one of its lines is not a valid request.
    """
    try:
        with path.open(encoding="utf-8") as file:
            requests = tuple(parse(file, source=str(path), limit=limit))
    except OSError as error:
        raise TraceError(f"trace {path}: {error.strerror}; give the path of a trace with --trace") from error
    except UnicodeDecodeError as error:
        raise TraceError(f"trace {path}: not UTF-8 text at byte {error.start}; a trace is JSON lines") from error
    if not requests:
        raise TraceError(f"trace {path}: holds no requests; one JSON object a line is expected")
    return tuple(sorted(requests, key=lambda request: request.arrival_s))


def parse(lines: Iterable[str], source: str, limit: int | None = None) -> Iterator[TraceRequest]:
    """Yield the requests of JSON lines; blank lines are passed over.

    Raises:
        TraceError: a line is not a valid request; the message names `source`, the line and the field.
    """
    count = 0
    for number, line in enumerate(lines, start=1):
        if limit is not None and count >= limit:
            return
        if not line.strip():
            continue
        where = f"trace {source}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise TraceError(f"{where}: not JSON ({error}); one object a line is expected") from error
        if not isinstance(row, dict):
            raise TraceError(f"{where}: {type(row).__name__} instead of an object")
        yield _request(row, where)
        count += 1


def _request(row: dict[str, Any], where: str) -> TraceRequest:
    timestamp_ms = row.get("timestamp")
    if isinstance(timestamp_ms, bool) or not isinstance(timestamp_ms, int | float) or not 0 <= timestamp_ms < 1e15:
        raise TraceError(f"{where}: timestamp={timestamp_ms!r}; milliseconds since the start, 0 or more, are expected")
    lengths = {}
    for field in ("input_length", "output_length"):
        value = row.get(field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise TraceError(f"{where}: {field}={value!r}; a whole number of tokens, 1 or more, is expected")
        lengths[field] = value
    block_ids = row.get("hash_ids")
    if not isinstance(block_ids, list) or not all(
        isinstance(block, int) and not isinstance(block, bool) and 0 <= block < 2**63 for block in block_ids
    ):
        raise TraceError(f"{where}: hash_ids={str(block_ids)[:80]}; a list of whole numbers, 0 or more, is expected")
    needed = -(-lengths["input_length"] // BLOCK_TOKENS)
    if len(block_ids) != needed:
        raise TraceError(
            f"{where}: {len(block_ids)} hash_ids for input_length={lengths['input_length']}; "
            f"{needed} blocks of {BLOCK_TOKENS} tokens are expected"
        )
    return TraceRequest(timestamp_ms / 1000, lengths["input_length"], lengths["output_length"], tuple(block_ids))
