"""Recorded traffic for a simulation: a trace, or the request log of routers.

A router writes one JSON line a request. These are read; lines of other events are passed over:

| field | what |
| --- | --- |
| `timestamp`, `total_s` | when the request ended, and how long it took: it arrived the difference earlier |
| `route` | NAMESPACE/NAME; lines of other routes are passed over |
| `prompt_tokens` | length of the prompt |
| `output_tokens`, `max_tokens` | length of the answer as its `usage` said; else what the client asked for at most |
| `block_tokens`, `blocks` | digests of the prompt's whole blocks, 8 hex digits each, which cover what is before them: equal digests are equal prefixes |
| `outcome`, `destination`, `stream`, `ttft_s` | what came of it; streamed answers show their first token |
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prfaas_cli import trace
from prfaas_cli.trace import TraceError, TraceRequest
from prfaas_core import errors
from prfaas_core.lengths import Lengths
from prfaas_core.simulation import Arrival
from prfaas_core.simulation import traffic as simulated

_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a log says came of its requests; seconds, of those with an answer.

    Attributes:
        ttft_s: in order of arrival.
        remote_share: part of the answered requests whose prefill ran in another cluster.
    """

    ttft_s: tuple[float, ...]
    remote_share: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests in order of arrival, the first one at 0 s.

    Attributes:
        lengths: uncached lengths if no prefix is ever evicted.
        output_tokens: mean length of the answers.
        recorded: what came of them; None for a trace.
        notes: what was assumed, in sentences.
    """

    arrivals: tuple[Arrival, ...]
    lengths: Lengths
    output_tokens: float
    recorded: Recorded | None = None
    notes: tuple[str, ...] = ()

    def faster(self, speed: float) -> Traffic:
        """Return the same requests, arriving `speed` times faster."""
        errors.positive("speed", speed)
        arrivals = tuple((at_s / speed, tokens, output, keys) for at_s, tokens, output, keys in self.arrivals)
        return Traffic(arrivals, self.lengths, self.output_tokens, self.recorded, self.notes)


def of_trace(requests: Sequence[TraceRequest], block_tokens: int, starts_s: Sequence[float] | None = None) -> Traffic:
    """Return the traffic of a trace.

    Args:
        requests: at least one.
        block_tokens: of the prefix caches; need not be the trace's own.
        starts_s: when each request arrives, in the same order; None: when the trace says.
    """
    times_s = [request.arrival_s for request in requests] if starts_s is None else list(starts_s)
    first_s = min(times_s)
    numbers: dict[tuple[int, ...], int] = {}
    rows = []
    for at_s, request in sorted(zip(times_s, requests, strict=True), key=lambda pair: pair[0]):
        blocks = [numbers.setdefault(ids, len(numbers)) for ids in _blocks(request, block_tokens)]
        rows.append((at_s - first_s, request.input_tokens, request.output_tokens, blocks))
    return _traffic(tuple(simulated.trace(rows, block_tokens)), block_tokens)


def of_log(paths: Sequence[Path], route: str, block_tokens: int, limit: int | None = None) -> Traffic:
    """Return the first `limit` requests of the logs of a route's routers.

    Args:
        paths: files of JSON lines, one for each router or each of its starts.
        route: NAMESPACE/NAME.
        block_tokens: of the prefix caches; the log has to have the same.
        limit: None for all.

    Raises:
        TraceError: a file is missing, has no request of the route, or lacks a field; the message says what helps.
    """
    rows: list[_Row] = []
    others: set[str] = set()
    for path in paths:
        for where, line in _lines(path):
            if line.get("route") == route:
                rows.append(_Row.read(line, where, block_tokens))
            else:
                others.add(str(line.get("route")))
    if not rows:
        seen = f"; it has requests of {', '.join(sorted(others))}" if others else ""
        raise TraceError(
            f"--log {', '.join(map(str, paths))}: no request of the route {route}{seen}. Give the log of its routers, "
            "or choose the route with --route"
        )
    rows = sorted(rows, key=lambda row: row.arrived_s)[:limit]
    known = [row.output_tokens for row in rows if row.output_tokens is not None]
    if not known:
        raise TraceError(
            f"--log {', '.join(map(str, paths))}: no request has output_tokens or max_tokens, so nothing is known about answers; "
            "have clients send stream_options.include_usage or max_tokens"
        )
    typical = max(1, round(sum(known) / len(known)))
    notes = []
    if len(known) < len(rows):
        notes.append(
            f"{len(rows) - len(known)} requests have no known answer length; taken as the mean, {typical} tokens"
        )
    arrivals = tuple(
        (row.arrived_s - rows[0].arrived_s, row.prompt_tokens, row.output_tokens or typical, row.keys) for row in rows
    )
    answered = [row for row in rows if row.ttft_s is not None]
    recorded = None
    if answered:
        crossed = sum(row.destination == "remote_prefill" for row in answered)
        recorded = Recorded(tuple(row.ttft_s for row in answered if row.ttft_s is not None), crossed / len(answered))
    found = _traffic(arrivals, block_tokens)
    return Traffic(found.arrivals, found.lengths, found.output_tokens, recorded, tuple(notes))


def _traffic(arrivals: tuple[Arrival, ...], block_tokens: int) -> Traffic:
    seen: set[bytes] = set()
    lengths = []
    for _, tokens, _, keys in arrivals:
        # Keys cover everything before them, so that the last known one says how much is cached.
        hits = next((depth for depth in range(len(keys), 0, -1) if keys[depth - 1] in seen), 0)
        seen.update(keys)
        lengths.append(max(1, tokens - hits * block_tokens))
    return Traffic(arrivals, Lengths.of(lengths), sum(output for _, _, output, _ in arrivals) / len(arrivals))


def _blocks(request: TraceRequest, block_tokens: int) -> Iterator[tuple[int, ...]]:
    """Yield, for each whole block of the caches, the ids of the trace's blocks that it covers a part of."""
    for start in range(0, request.input_tokens - block_tokens + 1, block_tokens):
        yield request.block_ids[start // trace.BLOCK_TOKENS : -(-(start + block_tokens) // trace.BLOCK_TOKENS)]


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the request lines of a log, each with its place. A router's log may hold other events, and tracebacks."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file, start=1):
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and line.get("event") == "request":
                    yield f"log {path}, line {number}", line
    except OSError as error:
        raise TraceError(f"--log {path}: {error.strerror}; give the JSON log of a router") from error


@dataclass(frozen=True, slots=True)
class _Row:
    arrived_s: float
    prompt_tokens: int
    output_tokens: int | None
    keys: tuple[bytes, ...]
    destination: str
    ttft_s: float | None

    @classmethod
    def read(cls, line: dict[str, Any], where: str, block_tokens: int) -> _Row:
        fields: Iterable[str] = ("timestamp", "total_s", "prompt_tokens", "block_tokens", "blocks")
        missing = [field for field in fields if field not in line]
        if missing:
            raise TraceError(
                f"{where}: has no {', '.join(missing)}; it is of a router that did not write that yet. Record the traffic "
                "again, or give a trace with --trace"
            )
        try:
            ended_s = datetime.datetime.fromisoformat(line["timestamp"]).timestamp()
            total_s = errors.non_negative("total_s", line["total_s"])
            tokens = errors.count("prompt_tokens", line["prompt_tokens"], minimum=1)
            own_tokens = errors.count("block_tokens", line["block_tokens"], minimum=1)
            digests = bytes.fromhex(line["blocks"])
            outputs = [line[field] for field in ("output_tokens", "max_tokens") if line.get(field)]
            output = errors.count("output_tokens", outputs[0], minimum=1) if outputs else None
        except (errors.CoreError, ValueError, TypeError, AttributeError) as error:
            raise TraceError(f"{where}: {error}") from error
        if own_tokens != block_tokens:
            raise TraceError(
                f"{where}: block_tokens={own_tokens}, but the manifests' prefixCache.blockTokens is {block_tokens}; give the "
                "manifests that were in force"
            )
        size = _DIGITS // 2
        # The first byte of an answer that is not streamed comes with its last token.
        ttft_s = line.get("ttft_s") if line.get("outcome") == "ok" and line.get("stream") else None
        return cls(
            ended_s - total_s,
            tokens,
            output,
            tuple(digests[start : start + size] for start in range(0, len(digests), size)),
            str(line.get("destination")),
            float(ttft_s) if isinstance(ttft_s, int | float) else None,
        )
