"""Conversions between pools that have autoscalers: advice that yields to them, and never a fight."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_core import autoscaling, roles
from prfaas_core.autoscaling import Ceiling, Floor, Reading, ScalingReason, TargetType
from prfaas_core.roles import (
    Advice,
    Autoscaler,
    History,
    Observed,
    RolesReason,
    Settings,
    Split,
    TakenBack,
    Wish,
    decide,
)

SETTINGS = Settings(min_gain=0.05, window_s=60, period_s=10, expiry_s=100)
MORE_DECODE = Split(10, 2, 12, 8)
READY = History(Wish(1, 0))


def scaler(wanted: int | None = 3, *, least: int = 1, most: int = 6, unchanged_s: float = math.inf) -> Autoscaler:
    return Autoscaler(least, most, wanted, unchanged_s, settle_s=30)


def seen(
    prefill: Autoscaler, decode: Autoscaler, split: Split | None = MORE_DECODE, sizes: tuple[int, int] = (3, 3)
) -> Observed:
    return Observed(*sizes, True, split, scalers=(prefill, decode))


@pytest.mark.parametrize(
    ("prefill", "decode", "reason"),
    [
        (scaler(), scaler(), RolesReason.CONVERTED),
        (scaler(2), scaler(4), RolesReason.CONVERTED),
        (scaler(4), scaler(), RolesReason.AUTOSCALER_OPPOSES),
        (scaler(), scaler(2), RolesReason.AUTOSCALER_OPPOSES),
        (scaler(None), scaler(), RolesReason.AUTOSCALER_SILENT),
        (scaler(), scaler(None), RolesReason.AUTOSCALER_SILENT),
        (scaler(unchanged_s=29), scaler(), RolesReason.AUTOSCALER_SETTLING),
        (scaler(), scaler(unchanged_s=29), RolesReason.AUTOSCALER_SETTLING),
        # The planner's best split is out of bounds, and so is every one.
        (scaler(least=3), scaler(), RolesReason.BEST_SPLIT),
        (scaler(), scaler(most=3), RolesReason.BEST_SPLIT),
        (scaler(most=2), scaler(most=3), RolesReason.AT_BOUNDS),
    ],
)
def test_autoscalers_come_first(prefill: Autoscaler, decode: Autoscaler, reason: RolesReason) -> None:
    found = decide(seen(prefill, decode), SETTINGS, READY, 100)
    assert found.reason is reason
    advice = Advice(1, 2, 4, 8, 100) if reason is RolesReason.CONVERTED else None
    assert found.history.advice == advice


def test_a_conversion_is_followed_by_a_pause() -> None:
    history = replace(READY, converted_s=50)
    assert decide(seen(scaler(), scaler()), SETTINGS, history, 109).reason is RolesReason.COOLING_DOWN
    assert decide(seen(scaler(), scaler()), SETTINGS, history, 110).reason is RolesReason.CONVERTED


ADVICE = History(None, Advice(1, 2, 4, 8, 100), 100)


@pytest.mark.parametrize(
    ("prefill", "decode", "stands"),
    [(2, 4, True), (3, 3, True), (None, None, True), (1, 9, True), (4, 4, False), (3, 2, False)],
)
def test_advice_falls_when_an_autoscaler_wants_more_back_than_was_moved(
    prefill: int | None, decode: int | None, stands: bool
) -> None:
    found = roles.relieved(ADVICE, (scaler(prefill), scaler(decode)), SETTINGS, 150)
    assert (found == ADVICE) is stands
    if not stands:
        assert found == History(None, None, 150, TakenBack(1, 8))


def test_advice_yields_to_bounds_that_are_new() -> None:
    """A floor by the clock, say. Nobody took anything back, so the next conversion only has to wait."""
    for gives, gets in ((scaler(least=3), scaler()), (scaler(), scaler(most=3))):
        assert roles.relieved(ADVICE, (gives, gets), SETTINGS, 150) == History(None, None, 150)


def test_advice_falls_when_the_planner_is_silent() -> None:
    heard = decide(seen(scaler(2), scaler(4), Split(10, 2, 10, 8), (2, 4)), SETTINGS, ADVICE, 190).history
    silent = seen(scaler(2), scaler(4), None, (2, 4))
    assert decide(silent, SETTINGS, heard, 289).history.advice is not None
    assert decide(silent, SETTINGS, heard, 290).history.advice is None
    assert roles.relieved(ADVICE, None, SETTINGS, 101).advice is None


def test_what_was_taken_back_is_done_again_when_both_ask_or_the_load_is_another() -> None:
    burnt = replace(READY, taken_back=TakenBack(1, 8))
    assert decide(seen(scaler(), scaler()), SETTINGS, burnt, 100).reason is RolesReason.AUTOSCALER_OPPOSES
    assert decide(seen(scaler(2), scaler(4)), SETTINGS, burnt, 100).reason is RolesReason.CONVERTED
    more = seen(scaler(), scaler(), Split(10, 2, 12, 11))
    assert decide(more, SETTINGS, burnt, 100).reason is RolesReason.CONVERTED
    back = seen(scaler(), scaler(), Split(10, 5, 12, 8))
    assert decide(back, SETTINGS, replace(burnt, wish=Wish(-1, 0)), 100).reason is RolesReason.CONVERTED


@dataclass
class Pool:
    """A pool with its autoscaler: workers start after `start_s`, and go at once."""

    replicas: int
    rules: autoscaling.Settings
    load: float
    target_type: TargetType
    steepness: float
    start_s: float
    history: autoscaling.History = field(default_factory=autoscaling.History)
    wanted: int | None = None
    changed_s: float = -math.inf
    started_s: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def ready(self, now_s: float) -> int:
        return self.replicas - sum(at_s + self.start_s > now_s for at_s in self.started_s)

    def look(self, now_s: float, floors: tuple[Floor, ...], ceilings: tuple[Ceiling, ...]) -> None:
        """Read a signal of a constant load: the work itself, or a latency that grows ever steeper as workers get few."""
        ready = self.ready(now_s)
        value = self.load
        if self.target_type is TargetType.VALUE:
            value = 1e3 if ready == 0 else min((self.load / ready) ** self.steepness, 1e3)
        reading = Reading("load", 1.0, self.target_type, value, window_s=10)
        found = autoscaling.decide(
            autoscaling.Observed(self.replicas, ready, (reading,), floors=floors, ceilings=ceilings),
            self.rules, self.history, now_s,
        )  # fmt: skip
        self.history, self.wanted = found.history, found.wanted
        if found.replicas != self.replicas:
            self.changed_s = now_s
            self.started_s = [at_s for at_s in self.started_s if at_s + self.start_s > now_s][: found.replicas]
            self.started_s += [now_s] * max(0, found.replicas - self.replicas)
            self.replicas = found.replicas
        self.sizes.append(self.replicas)

    def scaler(self, now_s: float) -> Autoscaler:
        return Autoscaler(
            self.rules.min_replicas, self.rules.max_replicas, self.wanted, now_s - self.changed_s,
            self.rules.startup_s + self.rules.down.window_s + 10,
        )  # fmt: skip

    def turns(self) -> int:
        """Return how often growth became shrinking, or the other way round."""
        steps = [b - a for a, b in itertools.pairwise(self.sizes) if a != b]
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(steps))


@dataclass(frozen=True)
class Loop:
    """Two pools, and a planner that knows what an instance of either carries."""

    prefill: Pool
    decode: Pool
    prefill_rps: float
    decode_rps: float
    drain_s: float

    def split(self) -> Split:
        total = self.prefill.replicas + self.decode.replicas
        seen = Observed(self.prefill.replicas, self.decode.replicas, True, None, scalers=self.scalers(0.0))
        lowest, highest = roles.prefill_bounds(seen)
        best = max(range(lowest, highest + 1), key=lambda count: self.rate(count, total - count), default=1)
        rate = self.rate(self.prefill.replicas, self.decode.replicas)
        return Split(rate, best, self.rate(best, total - best), asked_rps=1.0)

    def rate(self, prefill: int, decode: int) -> float:
        return min(prefill * self.prefill_rps, decode * self.decode_rps)

    def scalers(self, now_s: float) -> tuple[Autoscaler, Autoscaler]:
        return self.prefill.scaler(now_s), self.decode.scaler(now_s)

    def run(self, duration_s: float, step_s: float = 10.0) -> list[float]:
        """Return the times of conversions, as pools settle on a constant load."""
        rules, history = Settings(window_s=120, period_s=60), History()
        moves: list[float] = []
        for step in range(int(duration_s / step_s)):
            now_s = step * step_s
            history = roles.relieved(history, self.scalers(now_s), rules, now_s)
            if step % 6 == 0:
                settled = all(pool.ready(now_s) == pool.replicas for pool in (self.prefill, self.decode))
                seen = Observed(
                    self.prefill.replicas, self.decode.replicas, settled, self.split(), self.drain_s,
                    self.decode.start_s, self.scalers(now_s),
                )  # fmt: skip
                found = decide(seen, rules, history, now_s)
                history = found.history
                moves += [now_s] if found.to_decode else []
            self.prefill.look(now_s, *_limits(history.advice, prefill=True))
            self.decode.look(now_s, *_limits(history.advice, prefill=False))
        return moves


def _limits(advice: Advice | None, *, prefill: bool) -> tuple[tuple[Floor, ...], tuple[Ceiling, ...]]:
    if advice is None:
        return (), ()
    size = advice.prefill if prefill else advice.decode
    if (advice.to_decode > 0) == prefill:
        return (), (Ceiling(size, ScalingReason.PLANNER_CEILING, hard=True),)
    return (Floor(size, ScalingReason.PLANNER_FLOOR),), ()


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    least = draw(st.integers(1, 3))
    most = draw(st.integers(least, 10))
    start_s = draw(st.sampled_from([0.0, 20.0, 90.0]))
    tolerance = draw(st.sampled_from([0.0, 0.1, 0.3]))
    window_s = draw(st.sampled_from([0.0, 60.0, 300.0]))
    rules = autoscaling.Settings(
        least, most, replace(autoscaling.UP, tolerance=tolerance),
        replace(autoscaling.DOWN, tolerance=tolerance, window_s=window_s), startup_s=start_s + 10, period_s=10,
    )  # fmt: skip
    return Pool(draw(st.integers(least, most)), rules, draw(st.floats(0.5, 9)), TargetType.AVERAGE_VALUE, 1.0, start_s)


LOOPS = st.builds(
    Loop, pools(), pools(), st.floats(0.1, 10), st.floats(0.1, 10), st.sampled_from([0.0, 60.0, 300.0])
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(LOOPS)
def test_the_closed_loop_settles_on_a_constant_load(loop: Loop) -> None:
    moves = loop.run(7200)
    for pool in (loop.prefill, loop.decode):
        assert all(pool.rules.min_replicas <= size <= pool.rules.max_replicas for size in pool.sizes)
        assert len(set(pool.sizes[-240:])) == 1, pool.sizes
        assert pool.turns() <= 2, pool.sizes
    assert all(at_s < 3600 for at_s in moves)


@settings(max_examples=60, deadline=None)
@given(LOOPS, st.floats(1, 4))
def test_conversions_end_where_autoscalers_follow_latencies(loop: Loop, steepness: float) -> None:
    """A latency may rise so steeply that a pool which gave an instance asks for all that it can have, and back again."""
    for pool in (loop.prefill, loop.decode):
        pool.target_type, pool.steepness = TargetType.VALUE, steepness
    assert all(at_s < 3600 for at_s in loop.run(7200))
