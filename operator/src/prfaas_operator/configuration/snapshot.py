"""What a route's routers are told, as a function of what is known about its pools.

Pools whose KV fingerprint differs from the decode pool's are not part of the result: a router must never see a pair that
could corrupt tokens. A pool whose cluster has not been read since the operator started keeps the endpoints of the snapshot
before; not knowing them is no reason to take them away.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prfaas_core.profiles import Curve, Profile
from prfaas_operator import api
from prfaas_operator.api.inference_route import PolicyAlgorithm, PolicyMode
from prfaas_operator.api.kv_link import AddressTranslation, Bandwidth
from prfaas_operator.children.metadata import DRAINING_ANNOTATION
from prfaas_operator.configuration import pricing
from prfaas_protocol import configuration_pb2 as pb

_MODES = {
    PolicyMode.ENFORCE: pb.Policy.ENFORCE,
    PolicyMode.SHADOW: pb.Policy.SHADOW,
    PolicyMode.LOCAL_ONLY: pb.Policy.LOCAL_ONLY,
}
_BANDWIDTHS = {Bandwidth.SCARCE: pb.Policy.SCARCE, Bandwidth.ABUNDANT: pb.Policy.ABUNDANT}
_ALGORITHMS = {
    PolicyAlgorithm.PAPER: pb.Policy.PAPER,
    PolicyAlgorithm.FINISH_TIME: pb.Policy.FINISH_TIME,
}
# How long a router trusts prices and curves without hearing of its operator. They say what profiles and lengths are like,
# which changes slowly; what changes fast the router measures itself.
_STALE_AFTER_S = 3600.0
# An objective for the time between tokens that is tighter than this, in decode steps, leaves no room for prefills on decode
# workers.
_ABSORBING_STEPS = 1.5
_PUSH_CONNECTORS = frozenset({"NixlPushConnector"})


@dataclass(frozen=True, slots=True)
class Worker:
    """A ready worker pod."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool as it is known at the moment."""

    namespace: str
    name: str
    cluster: str
    profile: Profile
    connector: str
    kv_fingerprint: str
    http_port: int
    kv_port: int
    workers: tuple[Worker, ...] | None  # None: the cluster was not read since the operator started
    wakes: bool = False  # with no workers, it gets one as soon as a request wants it


@dataclass(frozen=True, slots=True)
class LinkView:
    """The link that a remote pool's KV crosses."""

    namespace: str
    name: str
    capacity_bps: float
    share: float
    translation: AddressTranslation | None


@dataclass(frozen=True, slots=True)
class RouteView:
    """Everything that a snapshot is made of."""

    namespace: str
    name: str
    spec: api.InferenceRouteSpec
    threshold_tokens: int
    bandwidth: Bandwidth
    decode: PoolView
    local_prefill: PoolView | None
    remote_prefill: tuple[tuple[PoolView, LinkView], ...]
    prices: pricing.Prices | None = None  # of the plan behind the threshold; None: it was not made of measured rates


def ready_workers(pods: Iterable[Mapping[str, Any]], owner: str) -> tuple[Worker, ...]:
    """Return the pods of an owner that are ready and stay, by name. Those that drain get no new work."""
    found = []
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status") or {}
        annotations = metadata.get("annotations") or {}
        ready = any(
            condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions", ())
        )
        address = status.get("podIP")
        if (
            ready
            and address
            and "deletionTimestamp" not in metadata
            and DRAINING_ANNOTATION not in annotations
            and annotations.get("prfaas.dev/owner-uid") == owner
        ):
            found.append(Worker(metadata["name"], address))
    return tuple(sorted(found, key=lambda worker: worker.name))


def build(route: RouteView, before: pb.Snapshot | None) -> pb.Snapshot:
    """Return the snapshot of a route, without version and time."""
    known = {} if before is None else {pool.name: pool for pool in pools(before)}
    limits = route.spec.limits
    decode = route.decode
    snapshot = pb.Snapshot(
        route_namespace=route.namespace,
        route_name=route.name,
        model=pb.Model(
            name=route.spec.model,
            max_model_len_tokens=decode.profile.max_model_len_tokens,
            bytes_per_token=decode.profile.bytes_per_token,
            prefix_block_tokens=decode.profile.block_tokens,
        ),
        policy=pb.Policy(
            mode=_MODES[route.spec.policy.mode],
            bandwidth=_BANDWIDTHS[route.bandwidth],
            threshold_tokens=route.threshold_tokens,
            algorithm=_ALGORITHMS[route.spec.policy.algorithm],
            absorb=absorbs(route.spec, route.decode.profile),
            stale_after_s=_STALE_AFTER_S,
        ),
        decode=_pool(decode, None, known, decode_side=True),
        limits=pb.Limits(
            max_body_bytes=limits.max_body_bytes,
            prefill_timeout_s=limits.prefill_timeout_seconds,
            connect_timeout_s=limits.connect_timeout_seconds,
            max_waiting_requests=limits.max_waiting_requests,
            max_wait_s=limits.max_wait_seconds,
        ),
    )
    if route.local_prefill is not None:
        snapshot.local_prefill.CopyFrom(_pool(route.local_prefill, None, known))
    remote = sorted(route.remote_prefill, key=lambda pair: pair[0].name)
    for pool, link in remote:
        snapshot.remote_prefill.append(
            pb.RemotePool(
                pool=_pool(pool, link.translation, known),
                link=pb.Link(
                    namespace=link.namespace,
                    name=link.name,
                    capacity_bps=link.capacity_bps,
                    share=link.share,
                    kv_bytes=_curve(pool.profile.kv_bytes),
                ),
            )
        )
    here = route.local_prefill or decode
    pricing.apply(snapshot, here.profile, tuple(pool.profile for pool, _ in remote), route.prices)
    pricing.settle(snapshot, before)
    return snapshot


def absorbs(route: api.InferenceRouteSpec, decode: Profile) -> bool:
    """Return whether the route's objective leaves room for prefills on decode workers that have a prefill pool beside them."""
    wanted_s = route.slo.itl_seconds
    return wanted_s is None or wanted_s >= _ABSORBING_STEPS * decode.step_s


def pushes(connector: str) -> bool:
    """Return whether a connector sends KV while prefill computes."""
    return connector in _PUSH_CONNECTORS


def digest(snapshot: pb.Snapshot) -> str:
    """Return a digest of what a snapshot says, which is the same for every version that says it."""
    copy = pb.Snapshot()
    copy.CopyFrom(snapshot)
    copy.version = 0
    copy.created_unix_ms = 0
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def seen_address(address: str, translation: AddressTranslation | None) -> str:
    """Return a pod's address as the decode cluster sees it; outside of the translated network it stays as it is."""
    if translation is None:
        return address
    own, seen = ipaddress.ip_network(translation.pod_cidr), ipaddress.ip_network(translation.translated_cidr)
    found = ipaddress.ip_address(address)
    if found not in own:
        return address
    return str(seen.network_address + (int(found) - int(own.network_address)))


def _pool(
    pool: PoolView, translation: AddressTranslation | None, known: Mapping[str, pb.Pool], *, decode_side: bool = False
) -> pb.Pool:
    if pool.workers is None:
        endpoints: Sequence[pb.Endpoint] = known[pool.name].endpoints if pool.name in known else ()
    else:
        endpoints = [_endpoint(worker, pool, translation) for worker in pool.workers]
    return pb.Pool(
        namespace=pool.namespace,
        name=pool.name,
        cluster=pool.cluster,
        endpoints=endpoints,
        kv_fingerprint=pool.kv_fingerprint,
        cache_capacity_tokens=pool.profile.cache_capacity_tokens,
        prefill_seconds=_curve(pool.profile.prefill_s),
        decode_slots=pool.profile.decode_slots if decode_side else 0,
        connector=pb.NIXL_PUSH if pushes(pool.connector) else pb.NIXL_PULL,
        wakes=pool.wakes,
    )


def _endpoint(worker: Worker, pool: PoolView, translation: AddressTranslation | None) -> pb.Endpoint:
    seen = seen_address(worker.address, translation)
    translated = seen != worker.address
    return pb.Endpoint(
        name=worker.name,
        address=seen,
        http_port=pool.http_port,
        kv_address_own=worker.address if translated else "",
        kv_address_seen=seen if translated else "",
        kv_port=pool.kv_port,
        engine_id=worker.name,
    )


def _curve(curve: Curve) -> list[pb.CurvePoint]:
    return [
        pb.CurvePoint(tokens=int(tokens), value=value) for tokens, value in zip(curve.tokens, curve.values, strict=True)
    ]


def pools(snapshot: pb.Snapshot) -> Iterable[pb.Pool]:
    """Yield every pool of a snapshot, decode first."""
    yield snapshot.decode
    if snapshot.HasField("local_prefill"):
        yield snapshot.local_prefill
    for remote in snapshot.remote_prefill:
        yield remote.pool
