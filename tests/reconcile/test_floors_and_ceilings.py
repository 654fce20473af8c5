"""Budgets, schedules and forecasts as the API servers see them: who is held back, who is raised, and what it says."""

import time

import pytest

pytestmark = pytest.mark.cluster

POOL, BUDGET = "PrefillPool/west-prefill", "Budget/gpus"


def budget(**spec):
    return {"apiVersion": "prfaas.dev/v1alpha1", "kind": "Budget", "metadata": {"name": "gpus"}, "spec": spec}


@pytest.fixture
def pool(tenant, prometheus):
    """A tenant whose remote prefill pool, of eight H200 a worker, has one worker, of four at most, and wants no more."""
    # A total asks for the same while workers start.
    signal = {"name": "Query", "query": 'wait{cluster="west"}', "targetType": "AverageValue", "targetValue": 0.5}
    spec = tenant.bodies[POOL]["spec"]
    spec["drain"] = {"timeoutSeconds": 0}
    spec["scaling"]["signals"] = [signal]
    tenant.apply(*(key for key in tenant.bodies if not key.startswith("Budget/")))
    prometheus.values |= {"nixl_bytes_transferred_sum": "0", "request_success_total": "0.5"}
    prometheus.values["wait{"] = "0.2"
    tenant.set_ready("prfaas.dev/pool=west-prefill", 1, "10.30")
    return tenant


def desired(tenant, replicas, reason):
    """Wait until the pool asks for so many workers, after a decision for them with a reason, and return that."""

    def decision(found):
        status = found.get("status", {}).get("autoscaling", {})
        if status.get("desiredReplicas") != replicas:
            return None
        taken = (item for item in status["decisions"] if (item["toReplicas"], item["reason"]) == (replicas, reason))
        return next(taken, None)

    return decision(tenant.wait(POOL, decision, f"asks for {replicas} by {reason}"))


def test_a_budget_holds_back_and_takes_away_only_when_it_is_lowered(pool, prometheus, operator):
    pool.apply(budget(accelerators={"count": 16, "name": "H200"}))
    pool.wait_reason(BUDGET, "Ready", "Available")
    prometheus.values["wait{"] = "5"
    seen = desired(pool, 2, "BudgetCeiling")
    assert "budget gpus grants 2 replicas: 8 of 16 accelerators H200 are in use" in seen["message"]
    pool.set_ready("prfaas.dev/pool=west-prefill", 2, "10.30")
    found = pool.wait(BUDGET, lambda f: f.get("status", {}).get("heldBack"), "names who is held back")["status"]
    assert found["heldBack"] == [
        {"kind": "PrefillPool", "name": "west-prefill", "wantedReplicas": 4, "grantedReplicas": 2, "short": ["accelerators H200"]}
    ]  # fmt: skip
    assert found["resources"] == [{"resource": "accelerators H200", "used": 16, "limit": 16}]
    assert pool.condition(BUDGET, "Ready")["reason"] == "Available"
    assert operator.metric("prfaas_operator_budget_held_back_replicas") == 2
    end_s = time.monotonic() + 60
    while not any(event["reason"] == "HeldBack" for event in pool.client.list("Event", pool.namespace)):
        assert time.monotonic() < end_s, "no event"

    pool.merge(BUDGET, {"spec": {"accelerators": {"count": 8}}})
    desired(pool, 1, "BudgetCeiling")
    pool.delete(BUDGET)
    desired(pool, 4, "AtMaximum")
    assert operator.metric("prfaas_operator_budget_used") == 0


def test_money_counts_once_profiles_say_a_price(pool, prometheus):
    """A pool whose price is not known does not grow; fixed pools count with what they have."""
    pool.apply(budget(costPerHour=50))
    unknown = pool.wait_reason(BUDGET, "Ready", "CostUnknown")
    assert "ModelProfile case-study-h200 gives no accelerator.costPerHour; set it" in unknown["message"]
    prometheus.values["wait{"] = "5"
    desired(pool, 1, "BudgetCeiling")
    # 2 local prefill and 2 decode workers of 8 accelerators.
    pool.merge("ModelProfile/case-study-h20", {"spec": {"accelerator": {"costPerHour": 0.5}}})
    pool.merge("ModelProfile/case-study-h200", {"spec": {"accelerator": {"costPerHour": 1}}})
    desired(pool, 4, "AtMaximum")
    found = pool.wait(
        BUDGET, lambda f: f.get("status", {}).get("message") == "costPerHour 48 of 50", "counts all pools"
    )["status"]
    assert found["pools"] == 3


def test_a_labelled_pool_and_a_link(pool, prometheus):
    """Only pools with the labels count, and one behind a link that is full does not grow."""
    pool.merge(POOL, {"metadata": {"labels": {"team": "a"}}})
    # The link may carry 640 Mbit/s, and its spec's utilisation is no matter here.
    pool.merge(POOL, {"spec": {"scaling": {"maxLinkUtilisation": 1}}})
    pool.apply(budget(pools={"matchLabels": {"team": "a"}}, links=[{"name": "west-to-east", "share": 0.5}]))
    # Half of 100 MB/s came over the link, from the one worker behind it: 400 Mbit/s of the 320 there are.
    prometheus.values["nixl_bytes_transferred_sum"] = "100e6"
    pool.wait_reason(BUDGET, "Ready", "BudgetExceeded")
    found = pool.get(BUDGET)["status"]
    assert [use["resource"] for use in found["resources"]] == ["bit/s of link west-to-east"]
    assert found["resources"][0]["used"] > found["resources"][0]["limit"] == 320e6
    assert found["pools"] == 1
    prometheus.values["wait{"] = "5"
    desired(pool, 1, "BudgetCeiling")
    prometheus.values["nixl_bytes_transferred_sum"] = "1e6"
    desired(pool, 4, "AtMaximum")
    pool.merge(BUDGET, {"spec": {"links": [{"name": "nowhere"}]}})
    assert "no KVLink nowhere" in pool.wait_reason(BUDGET, "Ready", "LinkNotFound")["message"]


def test_schedules_are_floors_and_bad_ones_are_named(pool, prometheus):
    prometheus.values["wait{"] = "0.5"
    always = {"start": "* * * * *", "end": "0 0 1 1 *", "timeZone": "Europe/Berlin", "minReplicas": 3}
    pool.merge(POOL, {"spec": {"scaling": {"schedules": [always]}}})
    pool.set_ready("prfaas.dev/pool=west-prefill", 3, "10.30")
    seen = desired(pool, 3, "ScheduledFloor")
    assert "schedules[0] asks for at least 3 until" in seen["message"]
    pool.merge(POOL, {"spec": {"scaling": {"schedules": [always | {"timeZone": "Europe/Nowhere"}]}}})
    found = pool.wait_reason(POOL, "Ready", "InvalidSpec")
    assert found["message"].startswith("spec.scaling.schedules[0].timeZone: 'Europe/Nowhere' is not in the time zone")
    assert pool.condition(POOL, "Stalled")["status"] == "True"
    with pytest.raises(Exception, match="timeZone"):
        pool.merge(POOL, {"spec": {"scaling": {"schedules": [always | {"timeZone": "../etc"}]}}})


@pytest.mark.slow
def test_a_forecast_is_shown_and_raises_the_floor_only_where_it_is_asked_to(pool, prometheus, operator):
    """A history of 1.5 at all times is continued by 1.5, which asks for three workers of 0.5; at the moment there is 0.2."""
    # The history is asked for by a query that has the other one in it.
    prometheus.values = {"avg_over_time((wait{": "1.5", **prometheus.values}
    forecast = {"mode": "Show", "horizonSeconds": 60, "seasonSeconds": 3600}
    pool.merge(POOL, {"spec": {"scaling": {"forecast": forecast}}})

    def predicted(found):
        return found.get("status", {}).get("autoscaling", {}).get("forecast", {}).get("predictedReplicas") == 3

    seen = pool.wait(POOL, predicted, "shows what is predicted", 50)["status"]["autoscaling"]
    assert seen["desiredReplicas"] == 1
    assert "3 workers by target 0.5" in seen["forecast"]["message"]
    assert operator.metric("prfaas_operator_forecast_replicas") == 3
    pool.merge(POOL, {"spec": {"scaling": {"forecast": forecast | {"mode": "Floor"}}}})
    desired_soon = pool.wait(POOL, lambda f: f["status"]["autoscaling"]["desiredReplicas"] == 3, "has as many")
    assert "ForecastFloor" in {item["reason"] for item in desired_soon["status"]["autoscaling"]["decisions"]}
