from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Connector(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONNECTOR_UNSPECIFIED: _ClassVar[Connector]
    NIXL_PULL: _ClassVar[Connector]
    NIXL_PUSH: _ClassVar[Connector]
CONNECTOR_UNSPECIFIED: Connector
NIXL_PULL: Connector
NIXL_PUSH: Connector

class RouterMessage(_message.Message):
    __slots__ = ("hello", "ack", "nack", "traffic", "links", "demand")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    NACK_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ack: Ack
    nack: Nack
    traffic: Traffic
    links: Links
    demand: Demand
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., nack: _Optional[_Union[Nack, _Mapping]] = ..., traffic: _Optional[_Union[Traffic, _Mapping]] = ..., links: _Optional[_Union[Links, _Mapping]] = ..., demand: _Optional[_Union[Demand, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("route_namespace", "route_name", "cluster", "router", "software_version", "version")
    ROUTE_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_NAME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    ROUTER_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    route_namespace: str
    route_name: str
    cluster: str
    router: str
    software_version: str
    version: int
    def __init__(self, route_namespace: _Optional[str] = ..., route_name: _Optional[str] = ..., cluster: _Optional[str] = ..., router: _Optional[str] = ..., software_version: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("version", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: int
    reason: str
    def __init__(self, version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("uncached_lengths",)
    UNCACHED_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    uncached_lengths: _containers.RepeatedCompositeFieldContainer[LengthBucket]
    def __init__(self, uncached_lengths: _Optional[_Iterable[_Union[LengthBucket, _Mapping]]] = ...) -> None: ...

class LengthBucket(_message.Message):
    __slots__ = ("index", "count", "tokens")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    index: int
    count: float
    tokens: float
    def __init__(self, index: _Optional[int] = ..., count: _Optional[float] = ..., tokens: _Optional[float] = ...) -> None: ...

class Links(_message.Message):
    __slots__ = ("links",)
    LINKS_FIELD_NUMBER: _ClassVar[int]
    links: _containers.RepeatedCompositeFieldContainer[LinkUse]
    def __init__(self, links: _Optional[_Iterable[_Union[LinkUse, _Mapping]]] = ...) -> None: ...

class LinkUse(_message.Message):
    __slots__ = ("name", "moved_bits", "busy_s", "seen_s", "transfers", "age_s", "moving_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MOVED_BITS_FIELD_NUMBER: _ClassVar[int]
    BUSY_S_FIELD_NUMBER: _ClassVar[int]
    SEEN_S_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    MOVING_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    moved_bits: float
    busy_s: float
    seen_s: float
    transfers: float
    age_s: float
    moving_s: float
    def __init__(self, name: _Optional[str] = ..., moved_bits: _Optional[float] = ..., busy_s: _Optional[float] = ..., seen_s: _Optional[float] = ..., transfers: _Optional[float] = ..., age_s: _Optional[float] = ..., moving_s: _Optional[float] = ...) -> None: ...

class Demand(_message.Message):
    __slots__ = ("pools",)
    POOLS_FIELD_NUMBER: _ClassVar[int]
    pools: _containers.RepeatedCompositeFieldContainer[PoolDemand]
    def __init__(self, pools: _Optional[_Iterable[_Union[PoolDemand, _Mapping]]] = ...) -> None: ...

class PoolDemand(_message.Message):
    __slots__ = ("name", "decode", "waiting", "wanted_rps", "since_last_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    WANTED_RPS_FIELD_NUMBER: _ClassVar[int]
    SINCE_LAST_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    decode: bool
    waiting: int
    wanted_rps: float
    since_last_s: float
    def __init__(self, name: _Optional[str] = ..., decode: _Optional[bool] = ..., waiting: _Optional[int] = ..., wanted_rps: _Optional[float] = ..., since_last_s: _Optional[float] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("version", "route_namespace", "route_name", "created_unix_ms", "model", "policy", "decode", "local_prefill", "remote_prefill", "limits")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUTE_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PREFILL_FIELD_NUMBER: _ClassVar[int]
    REMOTE_PREFILL_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    version: int
    route_namespace: str
    route_name: str
    created_unix_ms: int
    model: Model
    policy: Policy
    decode: Pool
    local_prefill: Pool
    remote_prefill: _containers.RepeatedCompositeFieldContainer[RemotePool]
    limits: Limits
    def __init__(self, version: _Optional[int] = ..., route_namespace: _Optional[str] = ..., route_name: _Optional[str] = ..., created_unix_ms: _Optional[int] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., decode: _Optional[_Union[Pool, _Mapping]] = ..., local_prefill: _Optional[_Union[Pool, _Mapping]] = ..., remote_prefill: _Optional[_Iterable[_Union[RemotePool, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "max_model_len_tokens", "bytes_per_token", "prefix_block_tokens")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_BLOCK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_model_len_tokens: int
    bytes_per_token: float
    prefix_block_tokens: int
    def __init__(self, name: _Optional[str] = ..., max_model_len_tokens: _Optional[int] = ..., bytes_per_token: _Optional[float] = ..., prefix_block_tokens: _Optional[int] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("mode", "bandwidth", "threshold_tokens", "algorithm", "absorb", "stale_after_s")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[Policy.Mode]
        ENFORCE: _ClassVar[Policy.Mode]
        SHADOW: _ClassVar[Policy.Mode]
        LOCAL_ONLY: _ClassVar[Policy.Mode]
    MODE_UNSPECIFIED: Policy.Mode
    ENFORCE: Policy.Mode
    SHADOW: Policy.Mode
    LOCAL_ONLY: Policy.Mode
    class Bandwidth(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BANDWIDTH_UNSPECIFIED: _ClassVar[Policy.Bandwidth]
        SCARCE: _ClassVar[Policy.Bandwidth]
        ABUNDANT: _ClassVar[Policy.Bandwidth]
    BANDWIDTH_UNSPECIFIED: Policy.Bandwidth
    SCARCE: Policy.Bandwidth
    ABUNDANT: Policy.Bandwidth
    class Algorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ALGORITHM_UNSPECIFIED: _ClassVar[Policy.Algorithm]
        PAPER: _ClassVar[Policy.Algorithm]
        FINISH_TIME: _ClassVar[Policy.Algorithm]
    ALGORITHM_UNSPECIFIED: Policy.Algorithm
    PAPER: Policy.Algorithm
    FINISH_TIME: Policy.Algorithm
    MODE_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    ABSORB_FIELD_NUMBER: _ClassVar[int]
    STALE_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    mode: Policy.Mode
    bandwidth: Policy.Bandwidth
    threshold_tokens: int
    algorithm: Policy.Algorithm
    absorb: bool
    stale_after_s: float
    def __init__(self, mode: _Optional[_Union[Policy.Mode, str]] = ..., bandwidth: _Optional[_Union[Policy.Bandwidth, str]] = ..., threshold_tokens: _Optional[int] = ..., algorithm: _Optional[_Union[Policy.Algorithm, str]] = ..., absorb: _Optional[bool] = ..., stale_after_s: _Optional[float] = ...) -> None: ...

class Pool(_message.Message):
    __slots__ = ("namespace", "name", "cluster", "endpoints", "kv_fingerprint", "cache_capacity_tokens", "prefill_seconds", "decode_slots", "connector", "price", "base_price", "wakes")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    KV_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CACHE_CAPACITY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    BASE_PRICE_FIELD_NUMBER: _ClassVar[int]
    WAKES_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    cluster: str
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    kv_fingerprint: str
    cache_capacity_tokens: int
    prefill_seconds: _containers.RepeatedCompositeFieldContainer[CurvePoint]
    decode_slots: int
    connector: Connector
    price: float
    base_price: float
    wakes: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., cluster: _Optional[str] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., kv_fingerprint: _Optional[str] = ..., cache_capacity_tokens: _Optional[int] = ..., prefill_seconds: _Optional[_Iterable[_Union[CurvePoint, _Mapping]]] = ..., decode_slots: _Optional[int] = ..., connector: _Optional[_Union[Connector, str]] = ..., price: _Optional[float] = ..., base_price: _Optional[float] = ..., wakes: _Optional[bool] = ...) -> None: ...

class CurvePoint(_message.Message):
    __slots__ = ("tokens", "value")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    value: float
    def __init__(self, tokens: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("name", "address", "http_port", "kv_address_own", "kv_address_seen", "kv_port", "engine_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_PORT_FIELD_NUMBER: _ClassVar[int]
    KV_ADDRESS_OWN_FIELD_NUMBER: _ClassVar[int]
    KV_ADDRESS_SEEN_FIELD_NUMBER: _ClassVar[int]
    KV_PORT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    http_port: int
    kv_address_own: str
    kv_address_seen: str
    kv_port: int
    engine_id: str
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., http_port: _Optional[int] = ..., kv_address_own: _Optional[str] = ..., kv_address_seen: _Optional[str] = ..., kv_port: _Optional[int] = ..., engine_id: _Optional[str] = ...) -> None: ...

class RemotePool(_message.Message):
    __slots__ = ("pool", "link")
    POOL_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    pool: Pool
    link: Link
    def __init__(self, pool: _Optional[_Union[Pool, _Mapping]] = ..., link: _Optional[_Union[Link, _Mapping]] = ...) -> None: ...

class Link(_message.Message):
    __slots__ = ("namespace", "name", "capacity_bps", "share", "kv_bytes", "price", "base_price")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BPS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    BASE_PRICE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    capacity_bps: float
    share: float
    kv_bytes: _containers.RepeatedCompositeFieldContainer[CurvePoint]
    price: float
    base_price: float
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., capacity_bps: _Optional[float] = ..., share: _Optional[float] = ..., kv_bytes: _Optional[_Iterable[_Union[CurvePoint, _Mapping]]] = ..., price: _Optional[float] = ..., base_price: _Optional[float] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_body_bytes", "prefill_timeout_s", "connect_timeout_s", "max_waiting_requests", "max_wait_s")
    MAX_BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    CONNECT_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    MAX_WAITING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_S_FIELD_NUMBER: _ClassVar[int]
    max_body_bytes: int
    prefill_timeout_s: float
    connect_timeout_s: float
    max_waiting_requests: int
    max_wait_s: float
    def __init__(self, max_body_bytes: _Optional[int] = ..., prefill_timeout_s: _Optional[float] = ..., connect_timeout_s: _Optional[float] = ..., max_waiting_requests: _Optional[int] = ..., max_wait_s: _Optional[float] = ...) -> None: ...
