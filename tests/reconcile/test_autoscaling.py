"""The loop from Prometheus to the number of workers, and the meters of links."""

import pytest
from click.testing import CliRunner

from prfaas_cli.main import cli

pytestmark = pytest.mark.cluster

POOL = "PrefillPool/west-prefill"
DECODE = "DecodePool/east-decode"
LINK = "KVLink/west-to-east"
PODS = "prfaas.dev/pool=west-prefill"
WAIT = 'wait{cluster="west"}'


def replicas(number):
    return lambda found: found["spec"]["replicas"] == number


@pytest.fixture
def pool(tenant, prometheus):
    """A tenant with a pool of 1 to 4 workers, one of them there and at its target of 0.5 s."""
    prometheus.values[WAIT] = "0.5"
    body = tenant.body(POOL)
    body["spec"]["scaling"]["startupSeconds"] = 1
    body["spec"]["scaling"]["behavior"]["scaleDown"] = {"stabilizationWindowSeconds": 1}
    tenant.apply("MemberCluster/west", "ModelProfile/case-study-h200", body)
    tenant.set_ready(PODS, 1)
    tenant.wait_reason(POOL, "ScalingActive", "SignalObserved")
    tenant.wait_reason(POOL, "Ready", "Available")
    return tenant


def test_a_pool_follows_its_signal(pool, prometheus):
    """Above the target the pool grows, below it shrinks; the status has the query and the decision."""
    assert pool.get("Deployment/west-prefill")["spec"]["replicas"] == 1
    prometheus.values[WAIT] = "1.4"
    pool.wait("Deployment/west-prefill", replicas(3), "has three replicas")
    pool.set_ready(PODS, 3)
    prometheus.values[WAIT] = "0.5"
    pool.wait_reason(POOL, "Ready", "Available")
    found = pool.wait(
        POOL, lambda f: f["status"]["autoscaling"]["lastDecision"]["reason"] == "WithinTolerance", "is at its target"
    )["status"]
    assert found["desiredReplicas"] == found["autoscaling"]["desiredReplicas"] == 3
    (signal,) = found["autoscaling"]["signals"]
    assert (signal["name"], signal["query"], signal["value"], signal["proposedReplicas"]) == ("Query", WAIT, 0.5, 3)
    assert found["autoscaling"]["lastScaleTime"]
    newest = found["autoscaling"]["decisions"][0]
    assert (newest["fromReplicas"], newest["toReplicas"], newest["reason"]) == (1, 3, "AboveTarget")
    events = pool.client.list("Event", pool.namespace)
    assert any(event["reason"] == "Scaled" and "1 to 3 replicas" in event["message"] for event in events)
    prometheus.values[WAIT] = "0"
    pool.wait("Deployment/west-prefill", replicas(1), "shrinks to its minimum")


def test_a_pool_without_signals_has_those_of_its_side(pool):
    """Two lines size a pool, and the status has the signals with what is asked."""
    pool.merge(POOL, {"spec": {"scaling": {"signals": None, "behavior": None}}})

    def names(found):
        return [signal["name"] for signal in found["status"]["autoscaling"]["signals"]]

    found = pool.wait(
        POOL, lambda f: names(f) == ["PrefillLoad[1]", "PrefillLoad[2]", "PrefillQueueWait"], "is sized by the defaults"
    )
    signals = found["status"]["autoscaling"]["signals"]
    assert [signal["targetValue"] for signal in signals] == [0.7, 0.9, 2]
    for signal, window in zip(signals, ("[300s]", "[60s]", "[60s]"), strict=True):
        assert window in signal["query"]


def test_explain_says_what_was_seen_and_decided(pool, prometheus):
    """`prfaas explain pool` has the signal, its query, the decision, those before it, and when the next look is due."""
    prometheus.values[WAIT] = "1"
    pool.wait("Deployment/west-prefill", replicas(2), "has two replicas")
    pool.wait(POOL, lambda f: f["status"]["autoscaling"].get("decisions"), "says so")
    arguments = ["explain", "pool", "west-prefill", f"--kubeconfig={pool.client.cluster.admin_kubeconfig}"]
    answer = CliRunner().invoke(cli, [*arguments, f"--namespace={pool.namespace}", "--promql"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0, answer.output
    for said in (
        "PrefillPool", "1 to 4 allowed", "ReplicasOwned", "ScalingActive", f"Query: {WAIT}", "0.5", "looks again every 0.3 s",
        "1 to 2",
    ):  # fmt: skip
        assert said in answer.output, answer.output
    answer = CliRunner().invoke(cli, [*arguments[:2], "nobody", *arguments[3:]])
    assert (answer.exit_code, "no PrefillPool or DecodePool nobody in any namespace" in answer.output) == (1, True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"value": None}, "SignalMissing", id="empty"),
        pytest.param({"value": "NaN"}, "SignalInvalid", id="nan"),
        pytest.param({"value": "+Inf"}, "SignalInvalid", id="infinite"),
        pytest.param({"value": "9", "age_s": 600}, "PrometheusClockSkewed", id="skewed"),
        pytest.param({"value": "9", "status": 503}, "PrometheusFailed", id="error"),
    ],
)
def test_without_a_signal_replicas_hold(pool, prometheus, change, reason):
    """What is not known changes nothing, and the condition says what is wrong."""
    prometheus.values[WAIT] = "1"
    pool.wait("Deployment/west-prefill", replicas(2), "has two replicas")
    prometheus.age_s, prometheus.status = change.get("age_s", 0), change.get("status", 200)
    prometheus.values[WAIT] = change["value"]
    held = pool.wait_reason(POOL, "ScalingActive", reason)
    assert held["status"] == "False"
    assert "2 replicas hold" in held["message"]
    asked = len(prometheus.asked)
    pool.wait(POOL, lambda _: len(prometheus.asked) > asked + 5, "is asked about again")
    assert pool.get("Deployment/west-prefill")["spec"]["replicas"] == 2


def test_scaling_goes_on_from_the_status(pool, prometheus, operator):
    """A restarted operator without a signal asks for what was there, not for the minimum."""
    prometheus.values[WAIT] = "1.5"
    pool.wait("Deployment/west-prefill", replicas(3), "has three replicas")
    pool.wait(POOL, lambda f: f["status"]["autoscaling"]["desiredReplicas"] == 3, "says so")
    prometheus.values[WAIT] = None
    operator.kill()
    generation = pool.get("Deployment/west-prefill")["metadata"]["generation"]
    operator.start()
    pool.wait_reason(POOL, "ScalingActive", "SignalMissing")
    assert pool.get("Deployment/west-prefill")["metadata"]["generation"] == generation


def test_kubectl_scale_is_refused_on_a_scaled_pool(pool):
    """The API server refuses a number beside `scaling`."""
    with pytest.raises(Exception, match="replicas 2 and scaling are both given"):
        pool.client.cluster.kubectl("scale", "pfp/west-prefill", "--replicas=2", f"--namespace={pool.namespace}")


def test_a_link_is_metered(tenant, prometheus):
    """Bits, bytes and money of a link, and whether it is scarce; what cannot be read keeps its last value."""
    tenant.apply()
    waiting = tenant.wait_reason(LINK, "Ready", "SignalMissing")
    assert waiting["status"] == "Unknown"
    assert tenant.get(LINK)["status"]["bandwidth"] == "Scarce"
    prometheus.values["request_success_total"] = "0.5"  # the part of the pools behind the link
    prometheus.values["nixl_bytes_transferred_sum"] = "40e6"  # bytes a second that decode receives
    tenant.wait_reason(LINK, "Ready", "Available")
    found = tenant.wait(LINK, lambda f: f["status"].get("bytesTotal"), "has counted")["status"]
    assert found["usedBps"] == pytest.approx(160e6)
    assert found["utilisation"] == pytest.approx(0.25)
    assert found["bandwidth"] == "Abundant"
    assert found["costTotal"] == pytest.approx(found["bytesTotal"] / 1e9 * 0.01, rel=1e-3)
    tenant.wait(
        "InferenceRoute/chat", lambda f: f.get("status", {}).get("bandwidth") == "Abundant", "takes the link's word"
    )
    prometheus.values["nixl_bytes_transferred_sum"] = "160e6"
    tenant.wait(LINK, lambda f: f["status"]["bandwidth"] == "Scarce", "is scarce at 80 per cent and above")
    prometheus.values["nixl_bytes_transferred_sum"] = None
    tenant.wait_reason(LINK, "Ready", "SignalMissing")
    assert tenant.get(LINK)["status"]["usedBps"] == pytest.approx(640e6)
