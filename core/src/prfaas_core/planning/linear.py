"""The linear program of an assignment: every item goes one of several ways, ways use limited rows.

    minimise  overrun * excess + sum of cost[k][w] x[k][w]
    so that   sum over w of x[k][w] = 1                        for every item k
              sum of use x <= limit[i] + excess                for every row i
              x >= 0, excess >= 0

Revised simplex with generalised upper bounding (Dantzig and Van Slyke, J. Computer and System Sciences 1, 1967): each item's
own equation is kept implicitly by a key way, so the basis has only as many rows as there are resources, however many
items there are. The answer carries its dual prices and with them a bound: `gap` is what it may be above the optimum.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

Entries = tuple[tuple[int, float], ...]
"""Uses of one item on one way: (row, amount)."""

_EPSILON = 1e-12
_TOLERANCE = 1e-9
_NOISE = 1e-12


class _Kind(enum.Enum):
    SLACK = enum.auto()
    EXCESS = enum.auto()
    WAY = enum.auto()


@dataclass(frozen=True, slots=True)
class Program:
    """The data. `uses[k][w]` are the rows that item k uses on way w, None where it cannot go that way; `costs[k][w]` the price
    of that, and None in place of all costs for none."""

    uses: Sequence[Sequence[Entries | None]]
    limits: Sequence[float]
    costs: Sequence[Sequence[float]] | None = None
    overrun: float = 1.0


@dataclass(frozen=True, slots=True)
class Solution:
    """The optimum, as far as `gap` tells.

    Attributes:
        fractions: by item, `(way, fraction)` of the ways it takes, fractions above 0.
        excess: by how much every limit is overrun.
        prices: by row, what one unit less of it would add to the objective; 0 or more.
        value, gap: the objective, and the most that it lies above the optimum.
        pivots: steps taken.
    """

    fractions: tuple[tuple[tuple[int, float], ...], ...]
    excess: float
    prices: tuple[float, ...]
    value: float
    gap: float
    pivots: int


def solve(program: Program, start: Sequence[int], most_pivots: int | None = None) -> Solution:
    """Return the optimum; `start` is a first way for each item, and a good one saves steps."""
    tableau = _Tableau(program, list(start))
    limit = most_pivots if most_pivots is not None else 200 + 40 * (len(program.limits) + len(program.uses))
    pivots = 0
    while pivots < limit and tableau.step():
        pivots += 1
    return tableau.solution(pivots)


class _Tableau:
    """A basis and its inverse. `_items[i]` is what is basic in row i: (kind, item or row, way)."""

    def __init__(self, program: Program, keys: list[int]) -> None:
        self._program, self._keys = program, keys
        rows = len(program.limits)
        self._columns = _columns(program)
        used = [0.0] * rows
        for item, way in enumerate(keys):
            for row, amount in self._uses(item, way):
                used[row] += amount
        # Savings below this are rounding of the dual prices, not savings: pivoting on them would go on for ever.
        self._noise = _NOISE * program.overrun * sum(used) / len(keys)
        slack = [limit - use for limit, use in zip(program.limits, used, strict=True)]
        self._inverse = [[float(row == column) for column in range(rows)] for row in range(rows)]
        self._items = [(_Kind.SLACK, row, 0) for row in range(rows)]
        self._in_item: dict[int, list[int]] = {}
        self._duals = [0.0] * rows
        self._values = slack
        worst = min(range(rows), key=slack.__getitem__)
        if slack[worst] < 0:
            # The excess makes the tightest row exact and lifts every other by as much.
            excess = -slack[worst]
            for row in range(rows):
                self._inverse[row][worst] = -1.0
            self._items[worst] = (_Kind.EXCESS, 0, 0)
            self._values = [value + excess for value in slack]
            self._values[worst] = excess
            self._duals[worst] = -program.overrun

    def step(self) -> bool:
        """Move to a better basis; return False when there is none."""
        prices = [-dual for dual in self._duals]
        found = self._entering(prices)
        if found is None:
            return False
        kind, item, way, reduced = found
        direction = self._direction(kind, item, way)
        length, row, key_of = self._blocking(kind, item, direction)
        self._values = [max(0.0, value - length * part) for value, part in zip(self._values, direction, strict=True)]
        if key_of is not None and key_of == item and item not in self._in_item:
            self._keys[item] = way
            return True
        if key_of is not None:
            row = self._replace_key(key_of)
            direction = self._direction(kind, item, way)
        self._pivot(row, direction, reduced, (kind, item, way), length)
        return True

    def _entering(self, prices: list[float]) -> tuple[_Kind, int, int, float] | None:
        lowest = min(range(len(prices)), key=prices.__getitem__)
        if prices[lowest] < -_EPSILON:
            return _Kind.SLACK, lowest, 0, prices[lowest]
        scale = sum(prices)
        excess_cost = self._program.overrun - scale
        if excess_cost < -_EPSILON * max(1.0, scale):
            return _Kind.EXCESS, 0, 0, excess_cost
        best, found = -self._noise, None
        for item, (offers, key) in enumerate(zip(self._offers(prices), self._keys, strict=True)):
            cheapest = min(offers)
            saving = cheapest - offers[key]
            if saving < best and saving < -_TOLERANCE * abs(offers[key]):
                best, found = saving, (_Kind.WAY, item, offers.index(cheapest), saving)
        return found

    def _uses(self, item: int, way: int) -> Entries:
        return self._program.uses[item][way] or ()

    def _offers(self, prices: list[float]) -> list[tuple[float, ...]]:
        """Return, by item, the price of each way."""
        by_way = []
        for rows, amounts, costs in self._columns:
            total = costs
            for row, uses in zip(rows, amounts, strict=True):
                price = prices[row]
                if price:
                    total = [before + price * use for before, use in zip(total, uses, strict=True)]
            by_way.append(total)
        return list(zip(*by_way, strict=True))

    def _direction(self, kind: _Kind, item: int, way: int) -> list[float]:
        """Return the inverse times the entering column, taken against the item's key."""
        if kind is _Kind.SLACK:
            return [row[item] for row in self._inverse]
        if kind is _Kind.EXCESS:
            return [-sum(row) for row in self._inverse]
        entries = [
            *self._uses(item, way),
            *((row, -amount) for row, amount in self._uses(item, self._keys[item])),
        ]
        return [sum(amount * row[column] for column, amount in entries) for row in self._inverse]

    def _blocking(self, kind: _Kind, entering: int, direction: list[float]) -> tuple[float, int, int | None]:
        """Return how far the entering variable may grow, and what stops it: a row of the basis, or an item's key."""
        length, row, key_of = math.inf, -1, None
        for index, (part, value) in enumerate(zip(direction, self._values, strict=True)):
            if part > _EPSILON and value < length * part:
                length, row = value / part, index
        for item, rows in self._in_item.items():
            fall = (kind is _Kind.WAY and item == entering) - sum(direction[index] for index in rows)
            if fall > _EPSILON:
                left = max(0.0, 1 - sum(self._values[index] for index in rows))
                if left < length * fall:
                    length, row, key_of = left / fall, -1, item
        if kind is _Kind.WAY and entering not in self._in_item and length > 1:
            length, row, key_of = 1.0, -1, entering
        return length, row, key_of

    def _replace_key(self, item: int) -> int:
        """Make a basic way of the item its key; the row that it had then holds the old key, which is at zero."""
        row, *others = self._in_item[item]
        _, _, way = self._items[row]
        for other in others:
            self._inverse[row] = [a + b for a, b in zip(self._inverse[row], self._inverse[other], strict=True)]
        self._inverse[row] = [-part for part in self._inverse[row]]
        self._items[row] = (_Kind.WAY, item, self._keys[item])
        self._keys[item] = way
        self._values[row] = 0.0
        return row

    def _pivot(
        self, row: int, direction: list[float], reduced: float, item: tuple[_Kind, int, int], value: float
    ) -> None:
        leaving, index, _ = self._items[row]
        if leaving is _Kind.WAY:
            rows = self._in_item[index]
            rows.remove(row)
            if not rows:
                del self._in_item[index]
        factor = direction[row]
        pivot = [part / factor for part in self._inverse[row]]
        for other, part in enumerate(direction):
            if part and other != row:
                self._inverse[other] = [a - part * b for a, b in zip(self._inverse[other], pivot, strict=True)]
        self._inverse[row] = pivot
        self._duals = [dual + reduced * part for dual, part in zip(self._duals, pivot, strict=True)]
        self._items[row] = item
        self._values[row] = value
        if item[0] is _Kind.WAY:
            self._in_item.setdefault(item[1], []).append(row)

    def solution(self, pivots: int) -> Solution:
        """Return what the basis says, with the bound of its prices."""
        excess = 0.0
        parts: list[dict[int, float]] = [{} for _ in self._keys]
        for (kind, item, way), value in zip(self._items, self._values, strict=True):
            if kind is _Kind.EXCESS:
                excess = value
            elif kind is _Kind.WAY and value > 0:
                parts[item][way] = min(1.0, value)
        for item, key in enumerate(self._keys):
            parts[item][key] = max(0.0, 1 - sum(parts[item].values()))
        prices = [max(0.0, -dual) for dual in self._duals]
        total = sum(prices)
        if total > self._program.overrun:
            prices = [price * self._program.overrun / total for price in prices]
        offers = self._offers(prices)
        bound = sum(map(min, offers)) - sum(map(mul, prices, self._program.limits))
        value = self._program.overrun * excess
        if self._program.costs is not None:
            value += sum(
                fraction * self._program.costs[item][way]
                for item, found in enumerate(parts)
                for way, fraction in found.items()
            )
        return Solution(
            fractions=tuple(tuple(sorted((w, f) for w, f in found.items() if f > _EPSILON)) for found in parts),
            excess=excess,
            prices=tuple(prices),
            value=value,
            gap=max(0.0, value - bound),
            pivots=pivots,
        )


def _columns(program: Program) -> list[tuple[list[int], list[list[float]], list[float]]]:
    """Return, by way, its rows, its use of each over all items, and its costs over all items."""
    found = []
    for way in range(max(map(len, program.uses))):
        entries = [ways[way] if way < len(ways) else None for ways in program.uses]
        amounts: dict[int, list[float]] = {}
        costs = [0.0] * len(entries)
        for item, used in enumerate(entries):
            if used is None:
                costs[item] = math.inf
                continue
            if program.costs is not None:
                costs[item] = program.costs[item][way]
            for row, amount in used:
                amounts.setdefault(row, [0.0] * len(entries))[item] += amount
        found.append((list(amounts), list(amounts.values()), costs))
    return found
