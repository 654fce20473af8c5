"""What each link is believed to carry, as the operator keeps it."""

import pytest

from prfaas_core.link_capacity import LinkReport, LinkState
from prfaas_operator import api
from prfaas_operator.api.kv_link import LinkCapacity
from prfaas_operator.objects import Ref
from prfaas_operator.scaling.capacities import LinkCapacities

LINK = Ref("KVLink", "t", "west-to-east")
NOMINAL_BPS = 80e6


def link(gbps=0.1, capacity=None):
    body = {
        "metadata": {"name": LINK.name, "namespace": LINK.namespace},
        "spec": {"fromClusterRef": {"name": "west"}, "toClusterRef": {"name": "east"}, "capacityGbps": gbps, "share": 0.8},
    }  # fmt: skip
    found = api.KVLink.read({"apiVersion": "prfaas.dev/v1alpha1", "kind": "KVLink", **body})
    return found.model_copy(update={"status": api.KVLinkStatus(capacity=capacity)})


def report(bps):
    return LinkReport(moved_bits=bps, moving_s=1, busy_s=1, seen_s=1, transfers=8, age_s=0)


@pytest.fixture
def reports():
    return []


@pytest.fixture
def changed():
    return []


@pytest.fixture
def capacities(reports, changed):
    return LinkCapacities(links=list, reports=lambda _: reports, on_change=changed.append)


def test_only_what_changes_the_plans_is_told(capacities, reports, changed):
    capacities.review(LINK, link())
    reports.append(report(NOMINAL_BPS))
    capacities.review(LINK, link())
    told = len(changed)
    reports[:] = [report(1.2 * NOMINAL_BPS)]
    capacities.review(LINK, link())
    assert len(changed) == told
    for part in (0.2, 0.21, 0.19):
        reports[:] = [report(part * NOMINAL_BPS)]
        capacities.review(LINK, link())
    assert len(changed) == told + 1
    belief = capacities.believed(LINK, link())
    assert (belief.state, belief.bps) == (LinkState.SLOW, pytest.approx(0.18 * NOMINAL_BPS))


def test_an_edit_of_the_link_counts_at_once(capacities, reports):
    assert capacities.believed(LINK, link(0.2)).bps == pytest.approx(2 * NOMINAL_BPS)
    reports.append(report(NOMINAL_BPS))
    capacities.review(LINK, link())
    assert capacities.believed(LINK, link(0.05)).bps == pytest.approx(NOMINAL_BPS / 2)
    assert capacities.believed(LINK, link(0.2)).bps == pytest.approx(2 * NOMINAL_BPS)


def test_a_new_operator_holds_what_the_status_says(capacities):
    slow = LinkCapacity(state=LinkState.SLOW, usable_bps=1e7, measured_bps=1.1e7)
    belief = capacities.believed(LINK, link(capacity=slow))
    assert (belief.state, belief.bps) == (LinkState.HELD, 1e7)
    capacities.review(LINK, link(capacity=slow))
    assert capacities.believed(LINK, link()).state is LinkState.HELD
