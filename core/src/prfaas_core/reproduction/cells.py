"""One published number or statement, next to ours."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass


class Origin(enum.StrEnum):
    """Where our side of a cell comes from."""

    PUBLISHED = "published"
    """An input that the paper states: it agrees because it is copied."""
    FIT = "our fit"
    """Follows from a value that the paper leaves open and that we chose so that this cell comes out."""
    DERIVED = "derived"
    """Computed from published values and fits, without having been used for any of them: this is what can fail."""
    NOT_REPRODUCIBLE = "not reproducible"
    """The paper gives the result and not what it follows from; the note says what is missing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        row, column: its place.
        published: the paper's value; None where it prints none.
        ours: None where there is nothing to compute.
        half_unit: half a unit of the last digit that the paper prints: what rounding explains.
        note: why it does not match, or what is missing.
    """

    row: str
    column: str
    published: float | str | None
    ours: float | str | None
    origin: Origin
    half_unit: float = 0.0
    note: str = ""

    @property
    def relative_error(self) -> float | None:
        """(ours - published) / published; None where one of them is no number."""
        if isinstance(self.published, str) or isinstance(self.ours, str) or not self.published or self.ours is None:
            return None
        return self.ours / self.published - 1

    @property
    def matches(self) -> bool | None:
        """Whether ours rounds to what is published; None where there is nothing to compare."""
        if self.published is None or self.ours is None:
            return None
        if isinstance(self.published, str) or isinstance(self.ours, str):
            return self.published == self.ours
        return math.isclose(self.published, self.ours, rel_tol=1e-9, abs_tol=self.half_unit * (1 + 1e-9))


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the paper, or one of ours.

    Attributes:
        name: such as "Table 5".
        title: what it shows.
        cells: row by row.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
