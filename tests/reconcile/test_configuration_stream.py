"""Routers on the operator's gRPC service, over TLS, with tokens of real ServiceAccounts."""

import queue
import statistics
import threading
import time

import grpc
import pytest

from prfaas_core.traffic import bucket_of
from prfaas_protocol import configuration_pb2 as pb
from prfaas_protocol import configuration_pb2_grpc as rpc

pytestmark = pytest.mark.cluster

ROUTE = "InferenceRoute/chat"
DECODE = "prfaas.dev/pool=east-decode"
LOCAL = "prfaas.dev/pool=east-prefill"
REMOTE = "prfaas.dev/pool=west-prefill"


class Router:
    """A router's side of the stream. It acknowledges by itself unless `refuse` is set."""

    def __init__(self, operator, token, namespace, *, name="router-a", route="chat", cluster="east", version=0):
        self.snapshots = []
        self.refuse = ""
        self.error = None
        self._news = threading.Condition()
        self._out = queue.SimpleQueue()
        credentials = grpc.ssl_channel_credentials(operator.authority.certificate)
        self._channel = grpc.secure_channel(operator.address, credentials)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        hello = pb.Hello(
            route_namespace=namespace, route_name=route, cluster=cluster, router=name, version=version,
            software_version="test",
        )  # fmt: skip
        self.send(pb.RouterMessage(hello=hello))
        self._call = rpc.RouterConfigurationStub(self._channel).Stream(iter(self._out.get, None), metadata=metadata)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def send(self, message):
        self._out.put(message)

    def _read(self):
        try:
            for snapshot in self._call:
                answer = (
                    pb.RouterMessage(nack=pb.Nack(version=snapshot.version, reason=self.refuse))
                    if self.refuse
                    else pb.RouterMessage(ack=pb.Ack(version=snapshot.version))
                )
                self.send(answer)
                with self._news:
                    self.snapshots.append((time.monotonic(), snapshot))
                    self._news.notify_all()
        except grpc.RpcError as error:
            with self._news:
                self.error = error
                self._news.notify_all()

    def wait(self, check, what, deadline_s=60):
        """Return (time, snapshot) of the first snapshot of which a check is true."""
        end_s = time.monotonic() + deadline_s
        with self._news:
            while True:
                for entry in self.snapshots:
                    if check(entry[1]):
                        return entry
                assert self.error is None, self.error
                assert self._news.wait(end_s - time.monotonic()), f"{what}: {self.snapshots[-1:]}"

    def wait_error(self, deadline_s=60):
        end_s = time.monotonic() + deadline_s
        with self._news:
            while self.error is None:
                assert self._news.wait(end_s - time.monotonic()), "the stream goes on"
        return self.error

    def close(self):
        self.send(None)
        self._call.cancel()
        self._thread.join(10)
        self._channel.close()


@pytest.fixture
def connect(operator, tenant):
    """Open streams as the routers of the tenant's route; they end with the test."""
    opened = []

    def open_(token=None, **hello):
        if token is None:
            token = tenant.client.token("chat-router", tenant.namespace)
        router = Router(operator, token, tenant.namespace, **hello)
        opened.append(router)
        return router

    yield open_
    for router in opened:
        router.close()


@pytest.fixture
def serving(tenant):
    """A tenant with a route whose workers are ready."""
    tenant.apply()
    tenant.set_ready(DECODE, 2)
    tenant.set_ready(LOCAL, 2)
    tenant.set_ready(REMOTE, 1, network="10.30")
    tenant.set_ready("prfaas.dev/route=chat", 1)
    tenant.wait_reason(ROUTE, "Ready", "RoutersPending")
    return tenant


def complete(snapshot):
    return len(snapshot.decode.endpoints) == 2 and snapshot.remote_prefill[0].pool.endpoints


def test_a_router_gets_everything(serving, connect):
    """The snapshot has the pools, with addresses as the decode cluster sees them; the status has the router."""
    router = connect()
    _, snapshot = router.wait(complete, "a complete snapshot")
    assert snapshot.model.name == "prfaas-1t"
    assert snapshot.policy.mode == pb.Policy.ENFORCE
    assert len(snapshot.local_prefill.endpoints) == 2
    (remote,) = snapshot.remote_prefill
    (endpoint,) = remote.pool.endpoints
    assert endpoint.kv_address_own.startswith("10.30.")
    assert endpoint.address == endpoint.kv_address_seen == endpoint.kv_address_own.replace("10.30.", "10.130.", 1)
    assert remote.link.capacity_bps == pytest.approx(0.8e9)
    assert remote.pool.kv_fingerprint == snapshot.decode.kv_fingerprint
    assert not snapshot.decode.endpoints[0].kv_address_own
    serving.wait_reason(ROUTE, "Ready", "Available")
    status = serving.get(ROUTE)["status"]
    assert status["routersReady"] == "1/1"
    assert status["configuration"]["version"] == snapshot.version
    assert status["configuration"]["routers"] == [
        {"name": "router-a", "cluster": "east", "version": snapshot.version, "acknowledged": True, "message": ""}
    ]
    router.close()
    serving.wait_reason(ROUTE, "Programmed", "RoutersPending")


def test_endpoints_follow_the_pods(serving, connect):
    """A pod that is no longer ready leaves the configuration; a new version says so."""
    router = connect()
    _, before = router.wait(complete, "a complete snapshot")
    pod = serving.pods(DECODE)[0]
    condition = {**pod["status"]["conditions"][0], "status": "False"}
    serving.client.merge_status(
        "Pod", pod["metadata"]["name"], serving.namespace, {"status": {"conditions": [condition]}}
    )
    _, after = router.wait(lambda snapshot: len(snapshot.decode.endpoints) == 1, "one decode worker")
    assert after.version > before.version
    assert after.decode.endpoints[0].name != pod["metadata"]["name"]


def test_a_threshold_reaches_the_router_within_a_second(serving, connect, record_property):
    """From the edit on the hub to the router: at most a second in the median."""
    router = connect()
    router.wait(complete, "a complete snapshot")
    delays_s = []
    for tokens in range(5001, 5016):
        started_s = time.monotonic()
        serving.merge(ROUTE, {"spec": {"policy": {"threshold": tokens}}})
        arrived_s, _ = router.wait(lambda found, t=tokens: found.policy.threshold_tokens == t, f"threshold {tokens}")
        delays_s.append(arrived_s - started_s)
    median_s = statistics.median(delays_s)
    record_property("threshold_edit_median_s", median_s)
    print(f"threshold edit to router: median {median_s * 1000:.0f} ms, max {max(delays_s) * 1000:.0f} ms")
    assert median_s <= 1.0
    versions = [snapshot.version for _, snapshot in router.snapshots]
    assert versions == sorted(set(versions))


def test_a_refusal_is_reported(serving, connect):
    """What a router refuses, and why, is in the status; it goes when the router accepts again."""
    router = connect()
    _, good = router.wait(complete, "a complete snapshot")
    serving.wait_reason(ROUTE, "Programmed", "RoutersAcknowledged")
    router.refuse = "policy.threshold_tokens: 666 is not a number I like"
    serving.merge(ROUTE, {"spec": {"policy": {"threshold": 666}}})
    found = serving.wait_reason(ROUTE, "Programmed", "ConfigurationRefused")
    assert "666 is not a number I like" in found["message"]
    (report,) = serving.get(ROUTE)["status"]["configuration"]["routers"]
    assert (report["version"], report["acknowledged"]) == (good.version, False)
    router.refuse = ""
    serving.merge(ROUTE, {"spec": {"policy": {"threshold": 667}}})
    serving.wait_reason(ROUTE, "Programmed", "RoutersAcknowledged")


def test_only_the_routes_router_is_served(serving, connect, operator):
    """Without a token, with that of another or for another audience, nothing is told."""
    client, namespace = serving.client, serving.namespace
    connect().wait(complete, "the right token works")
    cases = (
        ({"token": "x.y.z"}, grpc.StatusCode.UNAUTHENTICATED),
        ({"token": client.token("chat-router", namespace, "other")}, grpc.StatusCode.UNAUTHENTICATED),
        ({"token": client.token("default", namespace)}, grpc.StatusCode.PERMISSION_DENIED),
        ({"token": client.token("east-decode", namespace)}, grpc.StatusCode.PERMISSION_DENIED),
        ({"cluster": "west"}, grpc.StatusCode.PERMISSION_DENIED),
        ({"cluster": "nowhere"}, grpc.StatusCode.UNAUTHENTICATED),
        ({"route": "other"}, grpc.StatusCode.NOT_FOUND),
        ({"route": ""}, grpc.StatusCode.INVALID_ARGUMENT),
    )
    for arguments, code in cases:
        router = connect(**arguments)
        assert router.wait_error().code() is code, (arguments, router.error)
        assert router.snapshots == []
    router = Router(operator, "", namespace)
    assert router.wait_error().code() is grpc.StatusCode.UNAUTHENTICATED
    router.close()


def test_the_first_message_is_a_hello(serving, operator):
    """A router that begins with anything else is turned away."""
    channel = grpc.secure_channel(operator.address, grpc.ssl_channel_credentials(operator.authority.certificate))
    with channel:
        call = rpc.RouterConfigurationStub(channel).Stream(iter([pb.RouterMessage(ack=pb.Ack(version=1))]))
        with pytest.raises(grpc.RpcError) as error:
            next(call)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_versions_go_on_from_what_a_router_has(serving, connect):
    """A router with a version from before a restore of the hub gets one above it."""
    router = connect(version=5000)
    _, snapshot = router.wait(complete, "a complete snapshot")
    assert snapshot.version == 5001
    assert all(found.version > 5000 for _, found in router.snapshots)


def test_deleting_the_route_ends_its_streams(serving, connect):
    """Routers of a deleted route are told so."""
    router = connect()
    router.wait(complete, "a complete snapshot")
    serving.delete(ROUTE)
    serving.wait_gone(ROUTE)
    assert router.wait_error().code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.slow
def test_a_killed_operator_goes_on_where_it_was(serving, connect, operator):
    """Kill -9 changes nothing in the cluster; afterwards versions go on, and an unchanged configuration keeps its own."""
    router = connect()
    _, before = router.wait(complete, "a complete snapshot")
    serving.wait_reason(ROUTE, "Ready", "Available")
    for pool in ("PrefillPool/east-prefill", "DecodePool/east-decode"):
        serving.wait(pool, lambda f: f["status"]["readyReplicas"] == 2, "is ready")
    for pool in ("DecodePool/east-decode", "PrefillPool/west-prefill"):
        serving.wait(
            pool,
            lambda f: f["status"].get("autoscaling", {}).get("lastDecision", {}).get("reason") == "SignalMissing",
            "says what it was sized by",
        )
    keys = ("Deployment/chat-router", "Deployment/east-decode", "Deployment/west-prefill", "Service/chat-router",
            "ConfigMap/chat-router", "DecodePool/east-decode", "PrefillPool/east-prefill", ROUTE)  # fmt: skip
    resting = {key: serving.get(key)["metadata"]["resourceVersion"] for key in keys}
    newest = router.snapshots[-1][1].version
    operator.kill()
    router.wait_error()
    try:
        assert {key: serving.get(key)["metadata"]["resourceVersion"] for key in keys} == resting
    finally:
        operator.start()
    again = connect(version=newest)
    _, snapshot = again.wait(complete, "the configuration")
    assert snapshot.version == newest
    serving.wait(
        "DecodePool/east-decode", lambda _: operator.metric("prfaas_operator_reconciliations_total") > 10, "looked at"
    )
    serving.wait_reason(ROUTE, "Ready", "Available")
    after = {key: serving.get(key)["metadata"]["resourceVersion"] for key in keys}
    assert after == resting
    serving.merge(ROUTE, {"spec": {"policy": {"threshold": 4321}}})
    _, changed = again.wait(lambda found: found.policy.threshold_tokens == 4321, "the new threshold")
    assert changed.version == newest + 1
    assert before.version <= newest


def test_lengths_that_a_router_reports_move_the_threshold(serving, connect):
    """Short prompts lower it, without delay; a router that says nonsense is not listened to."""
    router = connect()
    _, before = router.wait(complete, "a complete snapshot")
    assert serving.get(ROUTE)["status"]["thresholdSource"] == "Computed"

    def report(count, tokens):
        buckets = [pb.LengthBucket(index=bucket_of(tokens), count=count, tokens=count * tokens)]
        router.send(pb.RouterMessage(traffic=pb.Traffic(uncached_lengths=buckets)))

    report(-5.0, 100)
    router.send(pb.RouterMessage(traffic=pb.Traffic(uncached_lengths=[pb.LengthBucket(index=10_000, count=900)])))
    report(900.0, 2000)
    _, after = router.wait(lambda found: found.policy.threshold_tokens <= 2048, "a threshold for short prompts", 10)
    assert after.policy.threshold_tokens < before.policy.threshold_tokens
    serving.wait(ROUTE, lambda found: found["status"]["thresholdSource"] == "Measured", "the source in the status")


def test_a_slow_link_that_routers_report_raises_the_threshold_until_it_recovers(serving, connect):
    """What transfers show is planned with and told in the link's status; nonsense is not, and neither is what nobody names."""
    router = connect()
    _, before = router.wait(complete, "a complete snapshot")
    usable_bps = 0.8e9 * 0.8

    def report(bps, name="west-to-east"):
        use = pb.LinkUse(name=name, moved_bits=bps, moving_s=1, busy_s=1, seen_s=2, transfers=8)
        router.send(pb.RouterMessage(links=pb.Links(links=[use])))

    def capacity(state):
        return lambda found: found["status"].get("capacity", {}).get("state") == state

    serving.wait("KVLink/west-to-east", capacity("Unmeasured"), "the spec's capacity at first")
    report(-1.0)
    report(1e6, "another")
    report(usable_bps / 50)
    _, slow = router.wait(
        lambda found: found.policy.threshold_tokens > 1.2 * before.policy.threshold_tokens, "a higher threshold", 10
    )
    link = serving.wait("KVLink/west-to-east", capacity("Slow"), "the measured capacity")
    assert link["status"]["capacity"]["measuredBps"] == pytest.approx(usable_bps / 50, rel=0.01)
    assert link["status"]["capacity"]["usableBps"] == pytest.approx(0.9 * usable_bps / 50, rel=0.01)
    assert "12.8 Mbit/s" in link["status"]["capacity"]["message"]
    report(usable_bps)
    router.wait(lambda found: found.version > slow.version and found.policy == before.policy, "the old threshold", 10)
    serving.wait("KVLink/west-to-east", capacity("Nominal"), "the recovery")


def test_lengths_that_waver_write_nothing(serving, connect, operator):
    """Measured lengths are never twice the same. The plan says so only when it matters."""
    router = connect()
    router.wait(complete, "a complete snapshot")
    done = 'prfaas_operator_reconciliations_total{kind="InferenceRoute",result="done"}'

    def report(count):
        lengths = [(500 * 2**step, count + step) for step in range(7)]
        buckets = [pb.LengthBucket(index=bucket_of(each), count=many, tokens=many * each) for each, many in lengths]
        router.send(pb.RouterMessage(traffic=pb.Traffic(uncached_lengths=buckets)))

    report(130.0)
    planned = serving.wait(
        ROUTE,
        lambda found: (
            found["status"].get("plan", {}).get("source") == "Measured" and found["status"]["routersReady"] == "1/1"
        ),
        "a plan from what is measured",
    )
    plan = planned["status"]["plan"]
    assert plan["measuredRequestsPerSecond"] == pytest.approx(10.8, rel=0.01)
    assert plan["expectedRequestsPerSecond"] > 0
    assert plan["message"] in serving.client.cluster.kubectl(
        "get", "iroute", "chat", "-n", serving.namespace, "-o", "wide"
    )
    start = operator.metric(done)
    report(140.0)
    end_s = time.monotonic() + 60
    while operator.metric(done) < start + 2:
        assert time.monotonic() < end_s, "the route is not looked at"
    after = serving.get(ROUTE)
    assert after["status"] == planned["status"]
    assert after["metadata"]["resourceVersion"] == planned["metadata"]["resourceVersion"]


def test_routers_are_told_which_pools_wake(tenant, connect):
    """No workers is what somebody wants who brings them back on demand, or what a person has set and nobody changes."""
    decode = tenant.bodies["DecodePool/east-decode"]["spec"]
    del decode["scaling"]
    decode["replicas"] = 0
    tenant.bodies["PrefillPool/west-prefill"]["spec"]["scaling"]["minReplicas"] = 0
    tenant.bodies[ROUTE]["spec"]["limits"] = {"maxWaitingRequests": 7, "maxWaitSeconds": 0.5}
    tenant.apply()
    tenant.wait("ServiceAccount/chat-router", lambda _: True, "exists")
    router = connect()
    _, first = router.wait(lambda snapshot: snapshot.remote_prefill, "a snapshot")
    assert (first.limits.max_waiting_requests, first.limits.max_wait_s) == (7, 0.5)
    assert (first.decode.wakes, first.local_prefill.wakes, first.remote_prefill[0].pool.wakes) == (False, False, True)
    router.send(pb.RouterMessage(demand=pb.Demand(pools=[pb.PoolDemand(name="east-decode", wanted_rps=-1.0)])))
    tenant.apply(keda("east-decode"))
    _, second = router.wait(lambda snapshot: snapshot.decode.wakes, "a pool that KEDA may wake")
    tenant.delete("HorizontalPodAutoscaler/keda-hpa-chat")
    router.wait(lambda found: found.version > second.version and not found.decode.wakes, "a pool that nobody wakes")


def keda(pool):
    """Return what KEDA makes of a ScaledObject for a decode pool."""
    uid = "0f7a4f0e-0000-4000-8000-000000000000"
    metric = {"metric": {"name": "x"}, "target": {"type": "AverageValue", "averageValue": "1"}}
    return {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": "keda-hpa-chat",
            "ownerReferences": [{"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "chat", "uid": uid}],
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "prfaas.dev/v1alpha1", "kind": "DecodePool", "name": pool},
            "minReplicas": 1, "maxReplicas": 4, "metrics": [{"type": "External", "external": metric}],
        },
    }  # fmt: skip
