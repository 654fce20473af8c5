from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DecideRequest(_message.Message):
    __slots__ = ("request_id", "model", "token_ids", "text", "n", "echo", "prompt_logprobs", "max_output_tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    ECHO_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    token_ids: TokenIds
    text: str
    n: int
    echo: bool
    prompt_logprobs: bool
    max_output_tokens: int
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., token_ids: _Optional[_Union[TokenIds, _Mapping]] = ..., text: _Optional[str] = ..., n: _Optional[int] = ..., echo: _Optional[bool] = ..., prompt_logprobs: _Optional[bool] = ..., max_output_tokens: _Optional[int] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class DecideResponse(_message.Message):
    __slots__ = ("destination", "reason", "prefill", "decode", "prompt_tokens", "prompt_tokens_estimated", "cached_tokens", "threshold_tokens", "configuration_version")
    class Destination(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DESTINATION_UNSPECIFIED: _ClassVar[DecideResponse.Destination]
        DECODE: _ClassVar[DecideResponse.Destination]
        LOCAL_PREFILL: _ClassVar[DecideResponse.Destination]
        REMOTE_PREFILL: _ClassVar[DecideResponse.Destination]
    DESTINATION_UNSPECIFIED: DecideResponse.Destination
    DECODE: DecideResponse.Destination
    LOCAL_PREFILL: DecideResponse.Destination
    REMOTE_PREFILL: DecideResponse.Destination
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_VERSION_FIELD_NUMBER: _ClassVar[int]
    destination: DecideResponse.Destination
    reason: str
    prefill: Worker
    decode: Worker
    prompt_tokens: int
    prompt_tokens_estimated: bool
    cached_tokens: int
    threshold_tokens: int
    configuration_version: int
    def __init__(self, destination: _Optional[_Union[DecideResponse.Destination, str]] = ..., reason: _Optional[str] = ..., prefill: _Optional[_Union[Worker, _Mapping]] = ..., decode: _Optional[_Union[Worker, _Mapping]] = ..., prompt_tokens: _Optional[int] = ..., prompt_tokens_estimated: _Optional[bool] = ..., cached_tokens: _Optional[int] = ..., threshold_tokens: _Optional[int] = ..., configuration_version: _Optional[int] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("pool", "cluster", "name", "address")
    POOL_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    pool: str
    cluster: str
    name: str
    address: str
    def __init__(self, pool: _Optional[str] = ..., cluster: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...
