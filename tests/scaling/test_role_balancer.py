"""Roles as the operator keeps them: what it decided is in the route's status, and is told when it is news."""

import pytest

from prfaas_core.roles import Observed, Settings, Split
from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.route_plan import RolesStatus
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import Ref
from prfaas_operator.scaling.roles import ExchangingRoute, RoleBalancer

ROUTE = Ref("InferenceRoute", "t", "chat")
AT_ONCE = Settings(min_gain=0.05, window_s=0, period_s=1)
MORE_DECODE = Split(rate_rps=10, best_prefill=1, best_rps=15)


@pytest.fixture
def told():
    return []


@pytest.fixture
def balancer(told):
    def changed(ref, to_decode, why):
        told.append((to_decode, why))

    return RoleBalancer(routes=list, on_change=changed, metrics=Metrics(), interval_s=1)


def route(split=MORE_DECODE, *, refusal="", status=None, settled=True, settings=AT_ONCE):
    return ExchangingRoute(ROUTE, settings, status, refusal, lambda: Observed(3, 3, settled, split))


def test_a_conversion_is_counted_and_told(balancer, told):
    balancer.decide(route())
    assert balancer.to_decode(ROUTE, None) == 1
    assert told == [(1, "one of 3 prefill and 3 decode changes its role, since 1 and 5 would carry 50% more")]
    view = balancer.view(ROUTE)
    assert (view.active, view.reason, view.wanted_prefill) == (True, Reason.ROLES_PLANNED, 1)
    assert view.status.last_conversion_time == view.status.last_decision.time
    balancer.decide(route(settled=False))
    assert balancer.to_decode(ROUTE, None) == 1


def test_the_same_decision_again_is_no_news(balancer, told):
    lasting = Settings(min_gain=0.05, window_s=1e6, period_s=1)
    for best_rps in (15, 14, 16):
        balancer.decide(route(Split(10, 1, best_rps), settings=lasting))
    assert len(told) == 1
    balancer.decide(route(None, settings=lasting))
    assert told[-1] == (0, "3 prefill and 3 decode hold: too little is measured to plan")
    assert balancer.view(ROUTE).reason is Reason.INPUTS_MISSING


def test_a_new_operator_goes_on_from_the_status(balancer):
    before = RolesStatus(to_decode=-1)
    assert balancer.to_decode(ROUTE, before) == -1
    balancer.decide(route(None, status=before))
    assert balancer.to_decode(ROUTE, RolesStatus()) == -1
    balancer.decide(route(status=before))
    assert balancer.to_decode(ROUTE, None) == 0


def test_a_refusal_keeps_what_was_converted(balancer, told):
    balancer.decide(route())
    balancer.decide(route(refusal="DecodePool d has scaling"))
    view = balancer.view(ROUTE)
    assert (view.active, view.reason, view.message) == (False, Reason.ROLES_REFUSED, "DecodePool d has scaling")
    assert balancer.to_decode(ROUTE, None) == 1
    assert told[-1] == (0, "DecodePool d has scaling")
