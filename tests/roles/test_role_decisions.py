"""Instances change roles one at a time, for a gain that lasts, and never for ever back and forth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core.errors import InvalidValueError
from prfaas_core.roles import History, Observed, RolesDecision, RolesReason, Settings, Split, Wish, decide

SETTINGS = Settings(min_gain=0.05, window_s=60, period_s=10)


def observed(prefill: int, decode: int, split: Split | None, settled: bool = True) -> Observed:
    return Observed(prefill, decode, settled, split)


@pytest.mark.parametrize(
    ("seen", "wish", "to_decode", "reason"),
    [
        (observed(3, 3, Split(10, 2, 12)), Wish(1, 0), 1, RolesReason.CONVERTED),
        (observed(3, 3, Split(10, 5, 12)), Wish(-1, 0), -1, RolesReason.CONVERTED),
        (observed(3, 3, Split(0, 2, 12)), Wish(1, 0), 1, RolesReason.CONVERTED),
        (observed(3, 3, Split(10, 2, 12)), None, 0, RolesReason.STABILIZING),
        (observed(3, 3, Split(10, 2, 12)), Wish(1, 50), 0, RolesReason.STABILIZING),
        (observed(3, 3, Split(10, 2, 12)), Wish(-1, 0), 0, RolesReason.STABILIZING),
        (observed(3, 3, Split(10, 2, 12), settled=False), Wish(1, 0), 0, RolesReason.CONVERSION_RUNNING),
        (observed(3, 3, Split(10, 2, 10.4)), Wish(1, 0), 0, RolesReason.GAIN_TOO_SMALL),
        (observed(3, 3, Split(0, 2, 0)), Wish(1, 0), 0, RolesReason.GAIN_TOO_SMALL),
        (observed(3, 3, Split(10, 3, 10)), Wish(1, 0), 0, RolesReason.BEST_SPLIT),
        (observed(1, 3, Split(10, 0, 20)), Wish(1, 0), 0, RolesReason.BEST_SPLIT),
        (observed(3, 1, Split(10, 4, 20)), Wish(-1, 0), 0, RolesReason.BEST_SPLIT),
        (observed(3, 3, None), Wish(1, 0), 0, RolesReason.INPUTS_MISSING),
        (observed(3, 3, Split(math.nan, 2, 12)), Wish(1, 0), 0, RolesReason.INPUTS_MISSING),
        (observed(3, 3, Split(10, 2, math.inf)), Wish(1, 0), 0, RolesReason.INPUTS_MISSING),
        (observed(1, 1, Split(10, 1, 12)), Wish(1, 0), 0, RolesReason.TOO_FEW_INSTANCES),
        (observed(0, 3, Split(10, 1, 12)), Wish(-1, 0), 0, RolesReason.TOO_FEW_INSTANCES),
    ],
)
def test_decisions(seen: Observed, wish: Wish | None, to_decode: int, reason: RolesReason) -> None:
    found = decide(seen, SETTINGS, History(wish), 100)
    assert (found.to_decode, found.reason) == (to_decode, reason)
    assert found.next_look_s == 110


def test_a_gap_in_what_is_known_starts_the_window_anew() -> None:
    split = Split(10, 2, 12)
    history = decide(observed(3, 3, split), SETTINGS, History(), 0).history
    assert history.wish == Wish(1, 0)
    assert decide(observed(3, 3, None), SETTINGS, history, 50).history.wish is None
    assert decide(observed(3, 3, split, settled=False), SETTINGS, history, 50).history.wish == history.wish
    assert decide(observed(3, 3, split), SETTINGS, history, 60).reason is RolesReason.CONVERTED


@pytest.mark.parametrize(
    ("drain_s", "start_s", "net_gain", "reason"),
    [
        (0, 0, 0.2, RolesReason.CONVERTED),
        # Two conversions of 180 s in an hour: 0.2 * 0.9, less a third of the rate for a tenth of the time.
        (120, 60, 0.2 * 0.9 - 0.1 / 3, RolesReason.CONVERTED),
        (300, 300, 0.2 * (2 / 3) - (1 / 3) / 3, RolesReason.GAIN_TOO_SMALL),
        # What is not earned back before the horizon is none.
        (7200, 0, -1 / 3, RolesReason.GAIN_TOO_SMALL),
    ],
)
def test_a_gain_has_to_earn_the_drain_and_the_start(
    drain_s: float, start_s: float, net_gain: float, reason: RolesReason
) -> None:
    seen = Observed(3, 3, True, Split(10, 1, 12), drain_s, start_s)
    found = decide(seen, SETTINGS, History(Wish(1, 0)), 100)
    assert found.gain == pytest.approx(0.2)
    assert found.net_gain == pytest.approx(net_gain)
    assert found.reason is reason


def run(prefill: int, decode: int, rates: list[float], steps: int, settings: Settings) -> list[RolesDecision]:
    """Decide again and again about instances that carry `rates` with 1, 2... of them prefilling."""
    best = max(range(1, prefill + decode), key=lambda count: rates[count - 1])
    found, history = [], History()
    for step in range(steps):
        split = Split(rates[prefill - 1], best, rates[best - 1])
        decision = decide(observed(prefill, decode, split), settings, history, step * settings.period_s)
        prefill, decode, history = prefill - decision.to_decode, decode + decision.to_decode, decision.history
        found.append(decision)
    return found


counts = st.integers(1, 8)


@given(counts, counts, st.lists(st.floats(0, 100), min_size=16, max_size=16), st.floats(0, 0.5), st.floats(0, 100))
def test_the_same_input_moves_one_way_and_ends(
    prefill: int, decode: int, rates: list[float], min_gain: float, window_s: float
) -> None:
    decisions = run(prefill, decode, rates, 200, Settings(min_gain, window_s, 10))
    moves = [decision.to_decode for decision in decisions]
    assert len({move for move in moves if move}) <= 1
    assert not any(moves[-50:])
    assert prefill - sum(moves) >= 1
    assert decode + sum(moves) >= 1


@given(counts, counts, st.none() | st.builds(Split, st.floats(), st.integers(-5, 30), st.floats()), st.booleans())
def test_bounds_hold_whatever_is_said(prefill: int, decode: int, split: Split | None, settled: bool) -> None:
    found = decide(observed(prefill, decode, split, settled), SETTINGS, History(Wish(1, -100)), 0)
    assert found.to_decode in (-1, 0, 1)
    assert prefill - found.to_decode >= 1
    assert decode + found.to_decode >= 1
    if not settled or split is None:
        assert found.to_decode == 0


@pytest.mark.parametrize("changes", [{"min_gain": -0.1}, {"window_s": math.nan}, {"period_s": 0.0}, {"horizon_s": 0.0}])
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InvalidValueError):
        Settings(**changes)
