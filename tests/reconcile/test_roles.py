"""Two pools that exchange instances, as the API servers see it."""

import contextlib
import queue
import threading
import time

import grpc
import pytest

from prfaas_core.traffic import bucket_of
from prfaas_protocol import configuration_pb2 as pb
from prfaas_protocol import configuration_pb2_grpc as rpc

pytestmark = pytest.mark.cluster

ROUTE = "InferenceRoute/chat"
PREFILL, DECODE = "PrefillPool/east-prefill", "DecodePool/east-decode"


@pytest.fixture
def exchanging(tenant):
    """A tenant whose local prefill and decode pools have three workers each, and a route that may convert at once."""
    prefill, decode = tenant.body(PREFILL), tenant.body(DECODE)
    for pool in (prefill, decode):
        pool["spec"].pop("scaling", None)
        pool["spec"]["replicas"] = 3
    route = tenant.body(ROUTE)
    route["spec"]["policy"]["roles"] = {"mode": "Auto", "stabilizationWindowSeconds": 0}
    tenant.apply(*(key for key in tenant.bodies if key not in (ROUTE, PREFILL, DECODE)), prefill, decode, route)
    tenant.bodies |= {PREFILL: prefill, DECODE: decode, ROUTE: route}
    tenant.set_ready("prfaas.dev/pool=east-decode", 3)
    tenant.set_ready("prfaas.dev/pool=east-prefill", 3)
    tenant.set_ready("prfaas.dev/pool=west-prefill", 1, "10.30")
    tenant.set_ready("prfaas.dev/route=chat", 1)
    return tenant


def replicas(tenant):
    return tuple(tenant.get(f"Deployment/{name}")["spec"]["replicas"] for name in ("east-prefill", "east-decode"))


def wait_replicas(tenant, *numbers):
    """Wait until the pools have these numbers: an instance that is given away drains first."""
    tenant.wait(ROUTE, lambda _: replicas(tenant) == numbers, f"has {numbers} workers")


def decided(tenant, reason):
    def check(found):
        decision = found.get("status", {}).get("roles", {}).get("lastDecision", {})
        return decision.get("reason") == reason

    return tenant.wait(ROUTE, check, f"decides {reason}")


@pytest.fixture
def report_short_prompts(operator, exchanging):
    """Tell the operator, as the route's router, of many prompts of 500 tokens; the stream ends with the test."""
    out, channels = queue.SimpleQueue(), []

    def report():
        credentials = grpc.ssl_channel_credentials(operator.authority.certificate)
        channels.append(grpc.secure_channel(operator.address, credentials))
        hello = pb.Hello(
            route_namespace=exchanging.namespace, route_name="chat", cluster="east", router="router-a"
        )  # fmt: skip
        buckets = [pb.LengthBucket(index=bucket_of(500), count=900.0, tokens=900.0 * 500)]
        out.put(pb.RouterMessage(hello=hello))
        out.put(pb.RouterMessage(traffic=pb.Traffic(uncached_lengths=buckets)))
        token = exchanging.client.token("chat-router", exchanging.namespace)
        call = rpc.RouterConfigurationStub(channels[-1]).Stream(
            iter(out.get, None), metadata=[("authorization", f"Bearer {token}")]
        )
        threading.Thread(target=_read, args=(call,), daemon=True).start()

    yield report
    out.put(None)
    for channel in channels:
        channel.close()


def _read(call):
    with contextlib.suppress(grpc.RpcError, ValueError):
        list(call)


def test_instances_move_one_by_one_and_specs_stay(exchanging, report_short_prompts, prometheus, operator):
    """Nothing moves before answers are measured, the next one only when the last is complete; an apply of the specs and a new
    operator change nothing, and `Fixed` undoes it."""
    decided(exchanging, "InputsMissing")
    report_short_prompts()
    prometheus.values["vllm:generation_tokens_total"] = "2000"
    decided(exchanging, "ConversionRunning")
    wait_replicas(exchanging, 2, 4)
    plan = exchanging.wait(ROUTE, lambda found: found["status"]["plan"].get("decode") == 4, "plans with it")
    assert plan["status"]["plan"]["wantedDecode"] == 5
    assert plan["status"]["roles"]["toDecode"] == 1
    assert exchanging.condition(ROUTE, "RolesActive")["reason"] == "RolesPlanned"
    assert "what roles make of 3" in exchanging.condition(PREFILL, "ScalingActive")["message"]

    exchanging.apply(PREFILL, DECODE, ROUTE)
    looked = operator.metric("prfaas_operator_role_decisions_total")
    end_s = time.monotonic() + 60
    while operator.metric("prfaas_operator_role_decisions_total") < looked + 5:
        assert time.monotonic() < end_s, "no decisions"
    assert replicas(exchanging) == (2, 4)

    operator.kill()
    operator.start()
    exchanging.wait_reason(ROUTE, "RolesActive", "InputsMissing")
    assert replicas(exchanging) == (2, 4)

    exchanging.merge(ROUTE, {"spec": {"policy": {"roles": {"mode": "Fixed"}}}})
    for name in ("east-prefill", "east-decode"):
        exchanging.wait(f"Deployment/{name}", lambda found: found["spec"]["replicas"] == 3, "is as its spec says")
    exchanging.wait(ROUTE, lambda found: "roles" not in found["status"], "forgets what was converted")


def test_a_second_instance_moves_when_the_first_is_complete(exchanging, report_short_prompts, prometheus):
    report_short_prompts()
    prometheus.values["vllm:generation_tokens_total"] = "2000"
    decided(exchanging, "ConversionRunning")
    wait_replicas(exchanging, 2, 4)
    exchanging.set_ready("prfaas.dev/pool=east-decode", 4)
    exchanging.wait("Deployment/east-decode", lambda found: found["spec"]["replicas"] == 5, "gets another")
    exchanging.set_ready("prfaas.dev/pool=east-decode", 5)
    decided(exchanging, "BestSplit")
    wait_replicas(exchanging, 1, 5)
    # A smaller spec leaves less to convert, and each role its instance.
    exchanging.merge(PREFILL, {"spec": {"replicas": 2}})
    exchanging.wait("Deployment/east-decode", lambda found: found["spec"]["replicas"] == 4, "gives one back")
    assert replicas(exchanging) == (1, 4)


def test_pools_that_cannot_exchange_are_refused_with_the_way_out(exchanging):
    scaling = {"minReplicas": 1, "maxReplicas": 3, "signals": [{"name": "DecodeRequests", "targetValue": 5}]}
    exchanging.merge(DECODE, {"spec": {"replicas": None, "scaling": scaling}})
    found = exchanging.wait_reason(ROUTE, "RolesActive", "RolesRefused")
    assert found["message"] == (
        "DecodePool east-decode has scaling, and PrefillPool east-prefill has replicas; give both scaling, or both replicas, "
        "or set roles.mode Fixed"
    )
    exchanging.merge(DECODE, {"spec": {"scaling": None, "replicas": 3}})
    exchanging.wait_reason(ROUTE, "RolesActive", "InputsMissing")
    second = exchanging.body(ROUTE)
    second["metadata"]["name"] = "other"
    second["spec"]["policy"]["roles"] = {"mode": "Fixed"}
    exchanging.apply(second)
    assert "belongs to the route other too" in exchanging.wait_reason(ROUTE, "RolesActive", "RolesRefused")["message"]
    assert exchanging.wait_reason("InferenceRoute/other", "RolesActive", "FixedRoles")


def scaling(query, most):
    """Sizes by a total that the test says, and settles at once."""
    at_once = {"stabilizationWindowSeconds": 0}
    return {
        "minReplicas": 1, "maxReplicas": most, "startupSeconds": 0,
        "signals": [{"name": "Query", "query": query, "targetType": "AverageValue", "targetValue": 1, "windowSeconds": 5}],
        "behavior": {"scaleUp": at_once, "scaleDown": at_once},
    }  # fmt: skip


def test_pools_with_autoscalers_are_advised_and_get_their_way(exchanging, report_short_prompts, prometheus):
    """A conversion keeps the sum, within the bounds, and a pool that needs its instance gets it back at once."""
    prometheus.values |= {"prefill_work": "3", "decode_work": "3"}
    for key, query in ((PREFILL, "prefill_work"), (DECODE, "decode_work")):
        exchanging.merge(key, {"spec": {"replicas": None, "scaling": scaling(query, 4)}})
        exchanging.wait(key, lambda f: f["status"].get("autoscaling", {}).get("desiredReplicas") == 3, "asks for 3")
    report_short_prompts()
    prometheus.values["vllm:generation_tokens_total"] = "2000"
    advised = exchanging.wait(ROUTE, lambda f: f["status"].get("roles", {}).get("advice"), "advises")
    assert advised["status"]["roles"]["advice"] == {"toDecode": 1, "prefillReplicas": 2, "decodeReplicas": 4}
    assert advised["status"]["roles"]["toDecode"] == 0

    def sized(key, replicas, reason):
        def check(found):
            status = found["status"]["autoscaling"]
            taken = [(item["toReplicas"], item["reason"]) for item in status.get("decisions", [])]
            return status["desiredReplicas"] == replicas and (replicas, reason) in taken

        exchanging.wait(key, check, f"has {replicas} by {reason}")

    sized(PREFILL, 2, "PlannerCeiling")
    sized(DECODE, 4, "PlannerFloor")
    exchanging.set_ready("prfaas.dev/pool=east-decode", 4)
    # The best split is 1 and 5, which is more than the decode pool's maximum.
    decided(exchanging, "BestSplit")
    prometheus.values["prefill_work"] = "4"
    sized(PREFILL, 4, "AboveTarget")
    sized(DECODE, 3, "BelowTarget")
    exchanging.wait(ROUTE, lambda found: "advice" not in found["status"]["roles"], "takes its advice back")
