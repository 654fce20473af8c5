"""Roles as the operator keeps them: what it decided is in the route's status, and is told when it is news."""

import asyncio
from dataclasses import replace

import pytest

from prfaas_core.autoscaling import Ceiling, Floor, ScalingReason
from prfaas_core.roles import Autoscaler, Observed, Settings, Split
from prfaas_operator.api.conditions import Reason
from prfaas_operator.api.route_plan import RolesAdvice, RolesStatus
from prfaas_operator.metrics import Metrics
from prfaas_operator.objects import Ref
from prfaas_operator.scaling.roles import ExchangingRoute, RoleBalancer

ROUTE, PREFILL, DECODE = Ref("InferenceRoute", "t", "chat"), Ref("PrefillPool", "t", "p"), Ref("DecodePool", "t", "d")
AT_ONCE = Settings(min_gain=0.05, window_s=0, period_s=1)
MORE_DECODE = Split(rate_rps=10, best_prefill=1, best_rps=15)
CONTENT = (Autoscaler(1, 6, 3), Autoscaler(1, 6, 3))


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


def scaled(scalers=CONTENT, *, sizes=(3, 3), split=MORE_DECODE, status=None):
    return ExchangingRoute(
        ROUTE, AT_ONCE, status, "", lambda: Observed(*sizes, True, split, scalers=scalers), PREFILL, DECODE,
        lambda: scalers,
    )  # fmt: skip


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


def test_pools_with_autoscalers_get_advice(balancer, told):
    balancer.decide(scaled())
    assert told == [(1, "one of 3 prefill and 3 decode changes its role, since 1 and 5 would carry 50% more")]
    assert balancer.to_decode(ROUTE, None) == 0
    assert balancer.view(ROUTE).status.advice == RolesAdvice(to_decode=1, prefill_replicas=2, decode_replicas=4)
    why = "route chat advises at {} {}, since an instance changed its role"
    assert balancer.ceilings(PREFILL) == (Ceiling(2, ScalingReason.PLANNER_CEILING, why.format("most", 2), hard=True),)
    assert balancer.floors(DECODE) == (Floor(4, ScalingReason.PLANNER_FLOOR, why.format("least", 4)),)
    assert balancer.floors(PREFILL) == balancer.ceilings(DECODE) == ()
    assert balancer.floors(replace(DECODE, name="other")) == ()


def test_advice_falls_at_once_when_a_pool_wants_its_instance_back(balancer, told):
    balancer.decide(scaled())
    balancer.decide(scaled((Autoscaler(1, 6, 4), Autoscaler(1, 6, 4)), sizes=(2, 4), split=Split(10, 2, 10)))
    assert balancer.floors(PREFILL) == balancer.ceilings(PREFILL) == ()
    assert balancer.floors(DECODE) == ()
    assert balancer.view(ROUTE).status.advice is None
    # The next one waits until both ask for it.
    balancer.decide(scaled())
    assert told[-1][1].startswith("3 prefill and 3 decode hold: the autoscalers ask for 3 and 3; 1 and 5 would carry")


def test_advice_that_falls_between_two_looks_is_told(balancer, told):
    wanted = [CONTENT]
    looked = scaled()
    balancer.decide(replace(looked, scalers=lambda: wanted[0]))
    wanted[0] = (Autoscaler(1, 6, 9), Autoscaler(1, 6, 3))
    assert balancer.ceilings(PREFILL) == ()
    assert balancer.view(ROUTE).status.advice is None
    assert len(told) == 2


async def test_advice_outlasts_the_operator(told):
    status = RolesStatus(advice=RolesAdvice(to_decode=-1, prefill_replicas=4, decode_replicas=2))
    balancer = RoleBalancer(
        routes=lambda: [scaled((Autoscaler(1, 6, None), Autoscaler(1, 6, None)), status=status)],
        on_change=lambda *_: None, metrics=Metrics(), interval_s=1e6,
    )  # fmt: skip
    task = asyncio.create_task(balancer.run())
    await asyncio.sleep(0)
    assert [floor.replicas for floor in balancer.floors(PREFILL)] == [4]
    assert [ceiling.replicas for ceiling in balancer.ceilings(DECODE)] == [2]
    task.cancel()
