"""What a link carries is found from its transfers, whatever its load, and believed with care."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_core import link_capacity
from prfaas_core.errors import InvalidValueError
from prfaas_core.link_capacity import Belief, Estimate, LinkReport, LinkState, LinkWindow, Moving, believe, combine

NOMINAL_BPS = 80e6


@dataclass(slots=True, eq=False)
class _Transfer:
    window: LinkWindow
    moving: Moving
    left_bits: float


class SharedLink:
    """A link that its transfers share evenly, and the windows of the routers that send over it."""

    def __init__(self, capacity_bps: float, routers: int = 1) -> None:
        self.capacity_bps = capacity_bps
        self.now_s = 0.0
        self.windows = [LinkWindow() for _ in range(routers)]
        self._left: list[_Transfer] = []

    def send(self, router: int, size_bytes: float) -> None:
        window = self.windows[router]
        self._left.append(_Transfer(window, window.start(self.now_s, size_bytes), 8 * size_bytes))

    def run(self, until_s: float) -> None:
        while self._left:
            each_bps = self.capacity_bps / len(self._left)
            first = min(self._left, key=lambda entry: entry.left_bits)
            end_s = self.now_s + first.left_bits / each_bps
            if end_s > until_s:
                break
            self._advance(end_s, each_bps)
            self._left.remove(first)
            first.window.finish(end_s, first.moving)
        if self._left:
            self._advance(until_s, self.capacity_bps / len(self._left))
        self.now_s = until_s

    def _advance(self, until_s: float, each_bps: float) -> None:
        for entry in self._left:
            entry.left_bits -= (until_s - self.now_s) * each_bps
        self.now_s = until_s

    def estimate_bps(self) -> float:
        found = combine(report for window in self.windows if (report := window.report(self.now_s)) is not None)
        assert found is not None
        return found.capacity_bps


def serve(link: SharedLink, rate_rps: float, seconds: float, seed: int = 1) -> None:
    """Poisson arrivals of transfers of 0.3 to 1 MB."""
    rng = random.Random(seed)
    end_s = link.now_s + seconds
    while (at_s := link.now_s + rng.expovariate(rate_rps)) < end_s:
        link.run(at_s)
        link.send(rng.randrange(len(link.windows)), rng.uniform(3e5, 1e6))
    link.run(end_s)


@pytest.mark.parametrize("load", [0.05, 0.3, 0.7, 0.95, 2.0])
def test_the_load_does_not_matter_to_one_router(load: float) -> None:
    link = SharedLink(NOMINAL_BPS)
    serve(link, load * NOMINAL_BPS / 5.2e6, 60)
    assert link.estimate_bps() == pytest.approx(NOMINAL_BPS, rel=0.15)


@pytest.mark.parametrize("load", [0.05, 0.3, 0.7, 2.0])
def test_routers_that_share_a_link_are_put_together(load: float) -> None:
    """Each alone sees a part of a full link; together they see all of it."""
    link = SharedLink(NOMINAL_BPS, routers=4)
    serve(link, load * NOMINAL_BPS / 5.2e6, 90)
    assert link.estimate_bps() == pytest.approx(NOMINAL_BPS, rel=0.3)
    if load > 1:
        alone = combine([report for window in link.windows[:1] if (report := window.report(link.now_s))])
        assert alone is not None
        assert alone.capacity_bps < 0.5 * NOMINAL_BPS


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_a_drop_shows_within_ten_seconds(load: float) -> None:
    link = SharedLink(NOMINAL_BPS)
    serve(link, load * NOMINAL_BPS / 5.2e6, 60)
    link.capacity_bps /= 5
    serve(link, load * NOMINAL_BPS / 5.2e6, 10, seed=2)
    assert link.estimate_bps() < 0.4 * NOMINAL_BPS
    link.capacity_bps *= 5
    serve(link, 0.1 * NOMINAL_BPS / 5.2e6, 60, seed=3)
    assert link.estimate_bps() == pytest.approx(NOMINAL_BPS, rel=0.15)


def test_a_stalled_link_shows_before_anything_ends() -> None:
    link = SharedLink(NOMINAL_BPS)
    serve(link, 5, 30)
    link.run(31)
    link.send(0, 1e6)
    (report,) = [window.report(39) for window in link.windows]
    assert report is not None
    assert report.age_s == 0
    estimate = combine([report])
    assert estimate is not None
    assert estimate.capacity_bps < 0.5 * NOMINAL_BPS


def test_the_hand_over_is_taken_off_and_never_all_of_the_time() -> None:
    window, swift = LinkWindow(), LinkWindow()
    for number in range(20):
        window.finish(number + 0.12, window.start(number, 1e6), 0.02)
        swift.finish(number + 0.01, swift.start(number, 1e6), 0.02)
    found, bound = combine([window.report(20) or _nothing()]), combine([swift.report(20) or _nothing()])
    assert found is not None
    assert bound is not None
    assert found.capacity_bps == pytest.approx(80e6)
    assert bound.capacity_bps == pytest.approx(8e9)


def test_what_failed_or_waited_for_something_else_tells_nothing() -> None:
    window = LinkWindow()
    window.finish(30, window.start(0, 1e6), telling=False)
    assert window.report(30) is None


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_report_that_makes_no_sense_is_refused(value: float) -> None:
    with pytest.raises(InvalidValueError, match="moved_bits"):
        LinkReport(value, 1, 1, 1, 1, 0)


def test_old_reports_do_not_count() -> None:
    fresh = LinkReport(8e6, 1, 1, 2, 5, 1)
    old = LinkReport(8e9, 1, 1, 2, 5, link_capacity.FRESH_S + 1)
    assert combine([fresh, old]) == combine([fresh])
    assert combine([old]) is None
    assert combine([]) is None


def estimate(part: float, transfers: float = 10, busy: float = 0.5) -> Estimate:
    return Estimate(part * NOMINAL_BPS, transfers, 0, busy)


@pytest.mark.parametrize(
    ("found", "state", "part"),
    [
        (None, LinkState.UNMEASURED, 1.0),
        (estimate(0.2, transfers=2), LinkState.UNMEASURED, 1.0),
        (estimate(0.8), LinkState.NOMINAL, 1.0),
        (estimate(7), LinkState.NOMINAL, 1.0),
        (estimate(0.5), LinkState.SLOW, 0.45),
        (estimate(0.0), LinkState.SLOW, 0.01),
        (estimate(0.5, busy=0.1), LinkState.UNMEASURED, 1.0),
    ],
)
def test_only_what_is_clearly_below_nominal_counts(found: Estimate | None, state: LinkState, part: float) -> None:
    belief = believe(None, found, NOMINAL_BPS, 0)
    assert belief.state is state
    assert belief.bps == pytest.approx(part * NOMINAL_BPS)


def test_a_slow_link_needs_more_than_noise_to_move() -> None:
    belief = believe(None, estimate(0.5), NOMINAL_BPS, 0)
    assert believe(belief, estimate(0.55), NOMINAL_BPS, 2).bps == belief.bps
    assert believe(belief, estimate(0.8), NOMINAL_BPS, 2).state is LinkState.SLOW
    assert believe(belief, estimate(0.9), NOMINAL_BPS, 2).state is LinkState.NOMINAL
    assert believe(belief, estimate(0.2), NOMINAL_BPS, 2).bps == pytest.approx(0.18 * NOMINAL_BPS)


def test_a_link_that_is_hardly_used_does_not_become_slow_and_does_not_stop_being_it() -> None:
    idle = estimate(0.5, busy=0.05)
    assert believe(believe(None, estimate(1.0), NOMINAL_BPS, 0), idle, NOMINAL_BPS, 2).state is LinkState.NOMINAL
    slow = believe(None, estimate(0.5), NOMINAL_BPS, 0)
    assert believe(slow, idle, NOMINAL_BPS, 2) == Belief(LinkState.SLOW, slow.bps, slow.measured_bps, 2)
    assert believe(slow, estimate(1.0, busy=0.01), NOMINAL_BPS, 2).state is LinkState.NOMINAL


def test_a_slow_link_without_traffic_is_held_and_then_probed() -> None:
    belief = believe(None, estimate(0.1), NOMINAL_BPS, 0)
    seen = []
    for now_s in range(0, 200, 2):
        belief = believe(belief, None, NOMINAL_BPS, now_s)
        seen.append((belief.state, round(belief.bps / NOMINAL_BPS, 3)))
    assert list(dict.fromkeys(seen)) == [
        (LinkState.HELD, 0.09),
        (LinkState.PROBING, 0.18),
        (LinkState.PROBING, 0.36),
        (LinkState.PROBING, 0.72),
        (LinkState.UNMEASURED, 1.0),
    ]
    assert believe(Belief(LinkState.PROBING, 0.2 * NOMINAL_BPS, None, 0), estimate(0.1), NOMINAL_BPS, 1).bps < 1e7


beliefs = st.builds(
    Belief,
    st.sampled_from(LinkState),
    st.floats(1, 1e12),
    st.none() | st.floats(0, 1e12),
    st.floats(0, 100),
)


@given(
    st.none() | beliefs,
    st.none() | st.builds(Estimate, st.floats(0, 1e13), st.floats(0, 100), st.floats(0, 100), st.floats(0, 1)),
    st.floats(1, 1e12),
)
def test_a_belief_is_above_nothing_and_at_most_nominal(
    before: Belief | None, found: Estimate | None, nominal_bps: float
) -> None:
    belief = believe(before, found, nominal_bps, 200)
    assert 0 < belief.bps <= nominal_bps
    if belief.state in (LinkState.NOMINAL, LinkState.UNMEASURED):
        assert belief.bps == nominal_bps


def _nothing() -> LinkReport:
    raise AssertionError("nothing was reported")
