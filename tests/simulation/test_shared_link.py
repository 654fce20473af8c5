"""Pools behind one link share what it carries, what is on it, and what is measured of it."""

from dataclasses import replace

import pytest

from prfaas_core import errors, routing, simulation
from prfaas_core.profiles import Curve, Profile
from prfaas_core.simulation import DecodePool, Link, PrefillPool, Scenario

SECOND = Curve((1, 100_000), (1.0, 1.0))
BYTES = Curve((1, 100_000), (1e9, 1e9))
PROFILE = Profile("m", 131_072, 4.0, "G", 1, SECOND, BYTES, 64, 0.01, 0, 512)
LINK = Link(8e9, name="line", cost_per_gb=2.0)


def scenario(*links, **changes):
    """Remote pools of one worker each: a second of prefill, then 1 GB, which a link carries in a second."""
    remote = tuple(PrefillPool(f"remote-{index}", PROFILE, 1, link) for index, link in enumerate(links))
    return Scenario(decode=DecodePool("d", PROFILE, 1), local=None, remote=remote, threshold_tokens=0, **changes)


def both(links, **changes):
    """Two requests at once, one for each pool."""
    return simulation.simulate(scenario(*links, **changes), [(0.0, 1000, 1, ()), (0.0, 1000, 1, ())])


def test_two_transfers_at_once_get_half_each():
    assert list(both([LINK, LINK]).ttft_s) == pytest.approx([3.0, 3.0])
    apart = [LINK, replace(LINK, name="other")]
    assert list(both(apart).ttft_s) == pytest.approx([2.0, 2.0])
    nameless = [replace(LINK, name="")] * 2
    assert list(both(nameless).ttft_s) == pytest.approx([2.0, 2.0])


def test_bytes_are_counted_by_pool_and_paid_once():
    result = both([LINK, LINK])
    assert result.link_bytes == pytest.approx({"remote-0": 1e9, "remote-1": 1e9})
    assert result.link_taken_bytes == result.link_bytes
    assert result.link_cost == pytest.approx(4.0)


def test_a_change_of_the_link_is_felt_by_all():
    half = replace(LINK, changes=(simulation.LinkChange(0.5, 4e9),))
    assert list(both([half, half]).ttft_s) == pytest.approx([5.0, 5.0])


def test_the_router_sees_what_all_pools_have_on_the_way():
    seen = []

    def policy(request, view):
        seen.append([pool.link.backlog_bytes for pool in view.remote_prefill])
        return routing.decide(request, view)

    both([LINK, LINK], policy=policy)
    assert seen == [[0.0, 0.0], [1e9, 1e9]]


def test_the_controller_sees_the_use_of_the_whole_link():
    seen = []

    def controller(observation):
        seen.append([observation.pools[f"remote-{index}"] for index in range(2)])
        return simulation.control.Orders()

    arrivals = [(float(at_s), 1000, 1, ()) for at_s in range(10)]
    simulation.simulate(scenario(LINK, LINK, controller=controller, control_period_s=5.0), arrivals, end_s=10.5)
    one, other = seen[-1]
    assert one.line == other.line == "line"
    assert one.link_utilisation == other.link_utilisation == pytest.approx(1.0, abs=0.21)
    assert one.link_rate_rps == other.link_rate_rps == pytest.approx(1.0, abs=0.21)


def test_a_shared_link_has_one_description():
    with pytest.raises(errors.InvalidValueError, match=r"remote\[1\]\.link"):
        scenario(LINK, replace(LINK, capacity_bps=1e9))
