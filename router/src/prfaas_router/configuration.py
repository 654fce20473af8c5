"""A snapshot of the operator, checked and in the form that the router uses."""

from __future__ import annotations

from dataclasses import dataclass

from prfaas_core import errors
from prfaas_core.routing import Bandwidth, Mode
from prfaas_protocol import configuration_pb2 as pb

_MODES = {pb.Policy.ENFORCE: Mode.ENFORCE, pb.Policy.SHADOW: Mode.SHADOW, pb.Policy.LOCAL_ONLY: Mode.LOCAL_ONLY}
_BANDWIDTHS = {pb.Policy.SCARCE: Bandwidth.SCARCE, pb.Policy.ABUNDANT: Bandwidth.ABUNDANT}


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
class Pool:
    """One pool; endpoints by name."""

    name: str
    cluster: str
    endpoints: dict[str, Endpoint]
    kv_fingerprint: str
    cache_capacity_tokens: int
    push: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything a router needs to serve one route."""

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
    decode = _pool("decode", snapshot.decode)
    local = _pool("local_prefill", snapshot.local_prefill) if snapshot.HasField("local_prefill") else None
    remote = tuple(
        _pool(f"remote_prefill[{index}].pool", entry.pool) for index, entry in enumerate(snapshot.remote_prefill)
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
    names = [pool.name for pool in (decode, *((local,) if local else ()), *remote)]
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
    )


def _pool(field: str, pool: pb.Pool) -> Pool:
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
    )
