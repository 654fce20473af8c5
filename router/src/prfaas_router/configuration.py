"""A snapshot of the operator, checked and in the form that the router uses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from prfaas_core import errors
from prfaas_core.profiles import Curve
from prfaas_core.routing import Algorithm, Bandwidth, Mode
from prfaas_protocol import configuration_pb2 as pb

_MODES = {pb.Policy.ENFORCE: Mode.ENFORCE, pb.Policy.SHADOW: Mode.SHADOW, pb.Policy.LOCAL_ONLY: Mode.LOCAL_ONLY}
_BANDWIDTHS = {pb.Policy.SCARCE: Bandwidth.SCARCE, pb.Policy.ABUNDANT: Bandwidth.ABUNDANT}
_ALGORITHMS = {
    pb.Policy.ALGORITHM_UNSPECIFIED: Algorithm.PAPER,
    pb.Policy.PAPER: Algorithm.PAPER,
    pb.Policy.FINISH_TIME: Algorithm.FINISH_TIME,
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One worker; see the message of the same name."""

    name: str
    address: tuple[str, int]
    kv_address_own: str
    kv_address_seen: str
    kv_port: int
    engine_id: str


@dataclass(frozen=True, slots=True)
class Link:
    """The way from a remote pool; see the message of the same name.

    Attributes:
        capacity_bps: what PrfaaS may use.
        price: None when it is not known.
        name: of the KVLink; pools behind the same one share it. Empty: it is this pool's alone.
    """

    capacity_bps: float
    kv_bytes: Curve
    price: float | None
    base_price: float = 0.0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool; endpoints by name. What `finish_time` needs is None where the snapshot does not have it.

    Attributes:
        wakes: it gets a worker when requests want one.
    """

    name: str
    cluster: str
    endpoints: dict[str, Endpoint]
    kv_fingerprint: str
    cache_capacity_tokens: int
    push: bool
    prefill_s: Curve | None = None
    price: float | None = None
    base_price: float = 0.0
    decode_slots: int = 0
    link: Link | None = None
    wakes: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything a router needs to serve one route.

    Attributes:
        max_waiting, max_wait_s: how many requests wait for a decode worker while there is none, and for how long at most.
        asleep: names of the pools that are scaled to zero, or on their way from there.
    """

    version: int
    route: str
    model: str
    max_model_len_tokens: int
    bytes_per_token: float
    block_tokens: int
    mode: Mode
    bandwidth: Bandwidth
    threshold_tokens: int
    decode: Pool
    local_prefill: Pool | None
    remote_prefill: tuple[Pool, ...]
    max_body_bytes: int
    prefill_timeout_s: float
    connect_timeout_s: float
    algorithm: Algorithm = Algorithm.PAPER
    absorb: bool = False
    stale_after_s: float = math.inf
    max_waiting: int = 0
    max_wait_s: float = 0.0
    asleep: frozenset[str] = frozenset()

    def pools(self) -> tuple[Pool, ...]:
        """Return every pool, decode first."""
        local = (self.local_prefill,) if self.local_prefill is not None else ()
        return (self.decode, *local, *self.remote_prefill)


def check(snapshot: pb.Snapshot, route: str) -> Configuration:
    """Return the snapshot as a `Configuration` for `route` ("namespace/name").

    Raises:
        InvalidValueError: with the field, the value and the way out; the text of a NACK.
    """
    errors.count("version", snapshot.version, minimum=1)
    named = f"{snapshot.route_namespace}/{snapshot.route_name}"
    if named != route:
        raise errors.InvalidValueError("route", named, f"this router serves {route}")
    if snapshot.policy.mode not in _MODES:
        raise errors.InvalidValueError("policy.mode", snapshot.policy.mode, "give ENFORCE, SHADOW or LOCAL_ONLY")
    if snapshot.policy.bandwidth not in _BANDWIDTHS:
        raise errors.InvalidValueError("policy.bandwidth", snapshot.policy.bandwidth, "give SCARCE or ABUNDANT")
    if snapshot.policy.algorithm not in _ALGORITHMS:
        raise errors.InvalidValueError("policy.algorithm", snapshot.policy.algorithm, "give PAPER or FINISH_TIME")
    decode = _pool("decode", snapshot.decode)
    local = _pool("local_prefill", snapshot.local_prefill) if snapshot.HasField("local_prefill") else None
    remote = tuple(
        _pool(f"remote_prefill[{index}].pool", entry.pool, _link(f"remote_prefill[{index}].link", entry))
        for index, entry in enumerate(snapshot.remote_prefill)
    )
    for field, pool in (
        ("local_prefill", local),
        *((f"remote_prefill[{i}].pool", pool) for i, pool in enumerate(remote)),
    ):
        if pool is not None and pool.kv_fingerprint != decode.kv_fingerprint:
            raise errors.InvalidValueError(
                f"{field}.kv_fingerprint",
                pool.kv_fingerprint,
                f"decode has {decode.kv_fingerprint}; pair compatible profiles",
            )
    pools = (decode, *((local,) if local else ()), *remote)
    names = [pool.name for pool in pools]
    if len(set(names)) != len(names):
        raise errors.InvalidValueError("pools", names, "name each pool once")
    return Configuration(
        version=snapshot.version,
        route=route,
        model=errors.text("model.name", snapshot.model.name),
        max_model_len_tokens=errors.count("model.max_model_len_tokens", snapshot.model.max_model_len_tokens, minimum=1),
        bytes_per_token=errors.positive("model.bytes_per_token", snapshot.model.bytes_per_token),
        block_tokens=errors.count("model.prefix_block_tokens", snapshot.model.prefix_block_tokens, minimum=1),
        mode=_MODES[snapshot.policy.mode],
        bandwidth=_BANDWIDTHS[snapshot.policy.bandwidth],
        threshold_tokens=snapshot.policy.threshold_tokens,
        decode=decode,
        local_prefill=local,
        remote_prefill=remote,
        max_body_bytes=errors.count("limits.max_body_bytes", snapshot.limits.max_body_bytes, minimum=1),
        prefill_timeout_s=errors.positive("limits.prefill_timeout_s", snapshot.limits.prefill_timeout_s),
        connect_timeout_s=errors.positive("limits.connect_timeout_s", snapshot.limits.connect_timeout_s),
        algorithm=_ALGORITHMS[snapshot.policy.algorithm],
        absorb=snapshot.policy.absorb,
        stale_after_s=errors.non_negative("policy.stale_after_s", snapshot.policy.stale_after_s) or math.inf,
        max_waiting=snapshot.limits.max_waiting_requests,
        max_wait_s=errors.non_negative("limits.max_wait_s", snapshot.limits.max_wait_s),
        asleep=frozenset(pool.name for pool in pools if pool.wakes and not pool.endpoints),
    )


def _pool(field: str, pool: pb.Pool, link: Link | None = None) -> Pool:
    if pool.connector not in (pb.NIXL_PULL, pb.NIXL_PUSH):
        raise errors.InvalidValueError(f"{field}.connector", pool.connector, "give NIXL_PULL or NIXL_PUSH")
    endpoints = {}
    for index, endpoint in enumerate(pool.endpoints):
        at = f"{field}.endpoints[{index}]"
        errors.text(f"{at}.name", endpoint.name)
        errors.text(f"{at}.address", endpoint.address)
        if not 1 <= endpoint.http_port <= 65535:
            raise errors.InvalidValueError(f"{at}.http_port", endpoint.http_port, "give a port from 1 to 65535")
        endpoints[endpoint.name] = Endpoint(
            endpoint.name,
            (endpoint.address, endpoint.http_port),
            endpoint.kv_address_own,
            endpoint.kv_address_seen,
            endpoint.kv_port,
            endpoint.engine_id or endpoint.name,
        )
    return Pool(
        errors.text(f"{field}.name", pool.name),
        pool.cluster,
        endpoints,
        errors.text(f"{field}.kv_fingerprint", pool.kv_fingerprint),
        pool.cache_capacity_tokens,
        pool.connector == pb.NIXL_PUSH,
        _curve(f"{field}.prefill_seconds", pool.prefill_seconds),
        _price(f"{field}.price", pool.price),
        errors.non_negative(f"{field}.base_price", pool.base_price),
        pool.decode_slots,
        link,
        pool.wakes,
    )


def _link(field: str, remote: pb.RemotePool) -> Link | None:
    """Return the link of a remote pool; None when the snapshot says too little to reckon with it."""
    link = remote.link
    kv_bytes = _curve(f"{field}.kv_bytes", link.kv_bytes)
    capacity_bps = errors.non_negative(f"{field}.capacity_bps", link.capacity_bps)
    share = errors.non_negative(f"{field}.share", link.share)
    if share > 1:
        raise errors.InvalidValueError(f"{field}.share", share, "give at most 1")
    price = _price(f"{field}.price", link.price)
    base_price = errors.non_negative(f"{field}.base_price", link.base_price)
    if kv_bytes is None or capacity_bps * share == 0:
        return None
    return Link(capacity_bps * share, kv_bytes, price, base_price, link.name)


def _curve(field: str, points: Iterable[pb.CurvePoint]) -> Curve | None:
    anchors = [(float(point.tokens), point.value) for point in points]
    return Curve.through(anchors, field) if anchors else None


def _price(field: str, value: float) -> float | None:
    return errors.non_negative(field, value) or None
