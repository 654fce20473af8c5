"""Recorded signals: a CSV file, or what Prometheus answered to range queries."""

from __future__ import annotations

import csv
import datetime
import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

READY, DEMAND, PANIC = "ready", "demand", " panic"
"""Columns beside the signals': pods that serve, what routers want; and the ending of a signal over the panic window."""


class SeriesError(ValueError):
    """A series that cannot be replayed; the message names file, line, column and value."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One column: values at times, both in order; where there is no value, there is no sample."""

    times_s: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, now_s: float) -> tuple[float, float] | None:
        """Return the newest value up to now, and its age in seconds; None before the first."""
        index = bisect_right(self.times_s, now_s) - 1
        return (self.values[index], now_s - self.times_s[index]) if index >= 0 else None


@dataclass(frozen=True, slots=True)
class Series:
    """What was recorded; times are Unix time if the record says when it was, else seconds from some beginning."""

    columns: Mapping[str, Samples]
    begin_s: float
    end_s: float

    @property
    def step_s(self) -> float:
        """Return the usual time between two samples."""
        gaps = sorted(
            after - before for samples in self.columns.values() for before, after in pairwise(samples.times_s)
        )
        return gaps[len(gaps) // 2] if gaps else math.inf


def of_csv(path: Path, known: Sequence[str]) -> Series:
    """Read a CSV file with a column `time` (seconds, or ISO 8601) and one for each signal.

    An empty cell is a time without a value. `NaN` and `Inf` are values, as Prometheus has them.

    Args:
        path: the file.
        known: names that columns may have beside `time`.

    Raises:
        SeriesError: the file is missing or empty, has another column, or a cell that is no number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise SeriesError(f"--csv {path}: {error.strerror}; give a file with a column time and one a signal") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SeriesError(f"--csv {path}: not a CSV file in UTF-8 ({error})") from error
    header = [name.strip() for name in rows[0]] if rows else []
    if "time" not in header:
        raise SeriesError(f"--csv {path}: the first line has no column time; it has {', '.join(header) or 'nothing'}")
    for name in header:
        if name != "time" and name not in known:
            raise SeriesError(f"--csv {path}: column {name} is no signal of the pool; there may be {', '.join(known)}")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in header if name != "time"}
    before_s = -math.inf
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        where = f"--csv {path}, line {number}"
        if len(row) != len(header):
            raise SeriesError(f"{where}: {len(row)} cells; {len(header)} are expected, as in the first line")
        cells = dict(zip(header, row, strict=True))
        at_s = _time(cells.pop("time"), where)
        if at_s <= before_s:
            raise SeriesError(f"{where}: time {at_s:g} is not after {before_s:g}; order the lines by time")
        before_s = at_s
        for name, cell in cells.items():
            if cell.strip():
                found[name].append((at_s, _number(cell, f"{where}, column {name}")))
    return _series(found, f"--csv {path}")


def of_prometheus(files: Mapping[str, Path], known: Sequence[str]) -> Series:
    """Read the JSON answers to range queries (`/api/v1/query_range`), one for each signal, of one series each.

    Raises:
        SeriesError: a file is missing, is no such answer, or holds none or several series; or the name is none of `known`.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for name, path in files.items():
        where = f"--prometheus {name}={path}"
        if name not in known:
            raise SeriesError(f"{where}: {name} is no signal of the pool; there may be {', '.join(known)}")
        try:
            answer = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SeriesError(f"{where}: {error.strerror}; save the answer of /api/v1/query_range there") from error
        except ValueError as error:
            raise SeriesError(f"{where}: not JSON ({error})") from error
        found[name] = sorted(_matrix(answer, where))
    return _series(found, "--prometheus")


def _matrix(answer: Any, where: str) -> list[tuple[float, float]]:
    try:
        if answer["status"] != "success":
            raise SeriesError(f"{where}: status {answer['status']}; {answer.get('error', 'ask again')}")
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if kind != "matrix":
            raise SeriesError(f"{where}: a {kind}; ask /api/v1/query_range, which answers with a matrix")
        if len(result) != 1:
            raise SeriesError(f"{where}: {len(result)} series; ask for one, with sum, avg or the pool's labels")
        return [(float(at_s), _number(str(value), where)) for at_s, value in result[0]["values"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, SeriesError):
            raise
        raise SeriesError(f"{where}: no answer of Prometheus to a range query ({error!r})") from error


def _series(found: Mapping[str, Sequence[tuple[float, float]]], where: str) -> Series:
    times_s = [at_s for samples in found.values() for at_s, _ in samples]
    if not times_s:
        raise SeriesError(f"{where}: holds no values")
    columns = {
        name: Samples(tuple(at_s for at_s, _ in samples), tuple(value for _, value in samples))
        for name, samples in found.items()
    }
    return Series(columns, min(times_s), max(times_s))


def _time(cell: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        pass
    try:
        moment = datetime.datetime.fromisoformat(cell.strip())
    except ValueError as error:
        raise SeriesError(f"{where}: time {cell!r}; give seconds or ISO 8601, such as 2026-03-01T08:00:00Z") from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _number(cell: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise SeriesError(f"{where}: {cell!r} is no number; leave the cell empty where there is no value") from error
