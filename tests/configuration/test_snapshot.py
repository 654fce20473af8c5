"""What routers are told, as a function of what is known."""

from dataclasses import replace

import pytest

from prfaas_core.profiles import Curve, Profile
from prfaas_core.routing import Algorithm
from prfaas_operator.api import InferenceRouteSpec
from prfaas_operator.api.inference_route import Policy, ServiceLevelObjective
from prfaas_operator.api.kv_link import AddressTranslation, Bandwidth
from prfaas_operator.configuration.pricing import Price, Prices
from prfaas_operator.configuration.snapshot import (
    LinkView,
    PoolView,
    RouteView,
    Worker,
    build,
    digest,
    ready_workers,
    seen_address,
)
from prfaas_protocol import configuration_pb2 as pb
from prfaas_router.configuration import check

PROFILE = Profile(
    model="m", max_model_len_tokens=4096, bytes_per_token=4.0, accelerator="X", accelerators_per_instance=8,
    prefill_s=Curve((100, 1000), (0.1, 1.0)), kv_bytes=Curve((100, 1000), (1e6, 1e7)), decode_slots=20, step_s=0.02,
    cache_capacity_tokens=10_000, block_tokens=64,
)  # fmt: skip
TRANSLATION = AddressTranslation(pod_cidr="10.30.0.0/16", translated_cidr="10.130.0.0/16")


ONE = (Worker("w1", "10.1.0.1"),)


def pool(name, cluster="east", workers=ONE, **changes):
    view = PoolView("t", name, cluster, PROFILE, "NixlConnector", "f" * 64, 8000, 5600, workers)
    return replace(view, **changes)


LINK = LinkView("t", "west-to-east", 1e10, 0.8, TRANSLATION)
ROUTE = RouteView(
    namespace="t",
    name="chat",
    spec=InferenceRouteSpec.read(
        {
            "model": "m",
            "decodePoolRef": {"name": "d"},
            "router": {"container": {"image": "i"}},
            "policy": {"mode": "Shadow"},
        }
    ),
    threshold_tokens=1234,
    bandwidth=Bandwidth.ABUNDANT,
    decode=pool("d"),
    local_prefill=pool("l"),
    remote_prefill=((pool("r", "west", (Worker("p1", "10.30.7.9"), Worker("p2", "192.0.2.1"))), LINK),),
)


def test_everything_is_there():
    """Model, policy, limits, pools and links; and a router accepts it."""
    snapshot = build(ROUTE, None)
    assert snapshot.model == pb.Model(name="m", max_model_len_tokens=4096, bytes_per_token=4.0, prefix_block_tokens=64)
    assert snapshot.policy == pb.Policy(
        mode=pb.Policy.SHADOW,
        bandwidth=pb.Policy.ABUNDANT,
        threshold_tokens=1234,
        algorithm=pb.Policy.PAPER,
        absorb=True,
        stale_after_s=3600,
    )
    assert snapshot.limits == pb.Limits(
        max_body_bytes=8_388_608, prefill_timeout_s=60, connect_timeout_s=2, max_waiting_requests=256, max_wait_s=120
    )
    assert snapshot.decode.decode_slots == 20
    assert snapshot.local_prefill.decode_slots == 0
    assert [(point.tokens, point.value) for point in snapshot.decode.prefill_seconds] == [(100, 0.1), (1000, 1.0)]
    (remote,) = snapshot.remote_prefill
    assert (remote.link.name, remote.link.capacity_bps, remote.link.share) == ("west-to-east", 1e10, 0.8)
    assert [point.value for point in remote.link.kv_bytes] == [1e6, 1e7]
    snapshot.version = 1
    assert check(snapshot, "t/chat").threshold_tokens == 1234


def test_finish_time_has_all_its_signals():
    """A router that is told FinishTime finds everything the policy needs, and both sides cost the same at the threshold."""
    spec = {"algorithm": "FinishTime"}
    route = replace(ROUTE, spec=ROUTE.spec.model_copy(update={"policy": Policy.read(spec)}))
    snapshot = build(route, None)
    snapshot.version = 1
    configuration = check(snapshot, "t/chat")
    assert configuration.algorithm is Algorithm.FINISH_TIME
    assert configuration.absorb
    (remote,) = configuration.remote_prefill
    assert configuration.local_prefill is not None
    assert remote.link is not None
    assert None not in (configuration.local_prefill.price, remote.price, remote.link.price)
    here = configuration.local_prefill.base_price * PROFILE.prefill_s(1234)
    there = remote.base_price * PROFILE.prefill_s(1234) + remote.link.base_price * (
        8 * PROFILE.kv_bytes(1234) / remote.link.capacity_bps
    )
    assert here == pytest.approx(there)
    assert here > 0


def test_a_tight_objective_for_the_time_between_tokens_leaves_decode_workers_alone():
    """Prefill on decode workers holds tokens up, so that an objective near the decode step rules it out."""
    for objective_s, absorbs in ((PROFILE.step_s * 1.2, False), (PROFILE.step_s * 2, True)):
        slo = ServiceLevelObjective(itl_seconds=objective_s)
        route = replace(ROUTE, spec=ROUTE.spec.model_copy(update={"slo": slo}))
        assert build(route, None).policy.absorb is absorbs


def test_translated_addresses():
    """Only addresses in the translated network are translated; the engine's own goes along for the handshake."""
    inside, outside = build(ROUTE, None).remote_prefill[0].pool.endpoints
    assert (inside.address, inside.kv_address_own, inside.kv_address_seen) == ("10.130.7.9", "10.30.7.9", "10.130.7.9")
    assert (outside.address, outside.kv_address_own, outside.kv_address_seen) == ("192.0.2.1", "", "")
    assert (inside.http_port, inside.kv_port, inside.engine_id) == (8000, 5600, "p1")


@pytest.mark.parametrize(
    ("address", "own", "seen", "result"),
    [
        ("10.30.255.254", "10.30.0.0/16", "10.130.0.0/16", "10.130.255.254"),
        ("10.31.0.1", "10.30.0.0/16", "10.130.0.0/16", "10.31.0.1"),
        ("10.0.0.200", "10.0.0.128/25", "172.16.9.0/25", "172.16.9.72"),
        ("fd00::5", "fd00::/64", "fd01::/64", "fd01::5"),
    ],
)
def test_prefix_translation(address, own, seen, result):
    """The prefix is replaced and the rest kept, for both families; other addresses stay."""
    assert seen_address(address, AddressTranslation(pod_cidr=own, translated_cidr=seen)) == result
    assert seen_address(address, None) == address


def test_unknown_is_not_empty():
    """A pool whose cluster was not read keeps the endpoints that routers have; one that was read and is empty does not."""
    before = build(ROUTE, None)
    unknown = replace(ROUTE, decode=pool("d", workers=None), remote_prefill=((pool("r", "west", None), LINK),))
    assert digest(build(unknown, before)) == digest(before)
    empty = replace(ROUTE, remote_prefill=((pool("r", "west", ()), LINK),))
    assert list(build(empty, before).remote_prefill[0].pool.endpoints) == []
    assert list(build(unknown, None).decode.endpoints) == []


def test_a_pool_that_sleeps_is_told_from_one_that_is_broken():
    """Both have no endpoints; requests wake only the one that somebody scaled to zero."""
    sleeping = pool("r", "west", (), wakes=True)
    snapshot = build(replace(ROUTE, decode=pool("d", workers=()), remote_prefill=((sleeping, LINK),)), None)
    snapshot.version = 1
    assert check(snapshot, "t/chat").asleep == {"r"}
    awake = build(replace(ROUTE, decode=pool("d", wakes=True)), None)
    awake.version = 1
    assert check(awake, "t/chat").asleep == frozenset()
    assert check(awake, "t/chat").decode.wakes


def test_digests_are_of_the_content():
    """Version and time do not count, the order of pools does not, everything else does."""
    second = (pool("a", "west"), LINK)
    both = replace(ROUTE, remote_prefill=(*ROUTE.remote_prefill, second))
    turned = replace(ROUTE, remote_prefill=(second, *ROUTE.remote_prefill))
    assert digest(build(both, None)) == digest(build(turned, None))
    snapshot = build(ROUTE, None)
    content = digest(snapshot)
    snapshot.version, snapshot.created_unix_ms = 9, 10
    assert digest(snapshot) == content
    for changed in (
        replace(ROUTE, threshold_tokens=1235),
        replace(ROUTE, bandwidth=Bandwidth.SCARCE),
        replace(ROUTE, local_prefill=None),
        replace(ROUTE, decode=pool("d", workers=())),
    ):
        assert digest(build(changed, None)) != content


def test_connectors():
    """The profile's connector says which handshake the engines speak."""
    assert build(ROUTE, None).decode.connector == pb.NIXL_PULL
    pushing = replace(ROUTE, decode=pool("d", connector="NixlPushConnector"))
    assert build(pushing, None).decode.connector == pb.NIXL_PUSH


def pod(name="p", ready="True", address="10.0.0.1", owner="u", **metadata):
    return {
        "metadata": {"name": name, "annotations": {"prfaas.dev/owner-uid": owner}} | metadata,
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]},
    }


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        (pod(), True),
        (pod(ready="False"), False),
        (pod(ready="Unknown"), False),
        (pod(address=None), False),
        (pod(owner="another"), False),
        (pod(deletionTimestamp="2026-01-01T00:00:00Z"), False),
        (pod(annotations={"prfaas.dev/owner-uid": "u", "prfaas.dev/draining": "2026-01-01T00:00:00Z"}), False),
        ({"metadata": {"name": "new"}}, False),
    ],
    ids=["ready", "not-ready", "node-lost", "no-address", "other-pool", "terminating", "draining", "new"],
)
def test_which_pods_get_requests(found, counts):
    """Ready pods of the pool that are not on their way out."""
    assert (ready_workers([found], "u") == (Worker("p", "10.0.0.1"),)) is counts


def test_workers_are_in_order():
    """The order in which the API lists pods is no news."""
    pods = [pod("b"), pod("a")]
    assert ready_workers(pods, "u") == ready_workers(pods[::-1], "u")


def priced(factor, before=None, threshold_tokens=1234):
    """Build with the prices of a plan, times a factor."""
    price = Price(2.0 * factor, 0.5 * factor)
    prices = Prices(price, {"r": price}, {"west-to-east": price})
    return build(replace(ROUTE, prices=prices, threshold_tokens=threshold_tokens), before)


def test_prices_of_a_plan_replace_the_first_ones():
    """They reach pools and links; a plan that does not know a pool says nothing."""
    found = priced(1.0)
    (remote,) = found.remote_prefill
    for one in (found.decode, found.local_prefill, remote.pool, remote.link):
        assert (one.price, one.base_price) == (2.0, 0.5)
    other = Prices(Price(1, 1), {"another": Price(1, 1)}, {})
    assert build(replace(ROUTE, prices=other), None) == build(ROUTE, None)


def test_prices_that_waver_make_no_new_configuration():
    """Clearly other prices do, and so does another threshold."""
    first = priced(1.0)
    assert digest(priced(1.2, first)) == digest(first)
    assert digest(priced(1.6, first)) != digest(first)
    assert priced(1.2, first, threshold_tokens=2000).local_prefill.price == pytest.approx(2.4)
