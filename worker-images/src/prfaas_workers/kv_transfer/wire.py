"""The frames of a KV transfer, without I/O.

A reader opens a connection and sends one JSON message, the `ReadRequest`. The owner answers with one JSON message, a
`ReadGrant` or a refusal, and then with one frame a layer: index, byte count, CRC-32 and the bytes. A trailer ends it: the
index `TRAILER`, the total of bytes and the CRC-32 over all layers' checksums. A message has its length and CRC-32 in front.
Whatever does not follow this is a `TransferError`: a truncated, reordered, repeated, damaged or over-long transfer never
becomes KV.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from array import array
from dataclasses import asdict, dataclass
from typing import Any

PROTOCOL_VERSION = 2
MESSAGE_HEADER = struct.Struct(">II")
FRAME_HEADER = struct.Struct(">IQI")
TRAILER = 0xFFFF_FFFF
MAX_MESSAGE_BYTES = 1 << 20


class TransferError(Exception):
    """A transfer that did not deliver the KV that was asked for."""


class RefusedError(TransferError):
    """The owner refused the read, and said why."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What a reader asks for.

    Attributes:
        engine_id: the engine that the reader believes to talk to.
        fingerprint: of the reader's KV; the owner refuses another than its own.
        request_id: the owner's id of the request, or the id both legs share when `push` is set.
        content: `prompt_digest` of the reader's prompt; the owner refuses when its KV is of another one, since ids may
            come from clients and repeat.
        have_tokens: leading tokens that the reader holds already; they are not sent.
    """

    engine_id: str
    fingerprint: str
    request_id: str
    content: str
    have_tokens: int
    push: bool
    protocol: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class ReadGrant:
    """What an owner is about to send: so many layers and bytes, for so many tokens."""

    engine_id: str
    fingerprint: str
    layers: int
    total_bytes: int
    tokens: int


def prompt_digest(token_ids: array[int]) -> str:
    """Return what tells one prompt from another, in hex."""
    return hashlib.blake2b(memoryview(token_ids).cast("B"), digest_size=16).hexdigest()


def encode(message: ReadRequest | ReadGrant) -> bytes:
    """Return a message with its header in front."""
    return _framed(asdict(message))


def refusal(reason: str) -> bytes:
    """Return a refusal with its header in front."""
    return _framed({"refused": reason})


def decode_request(body: bytes) -> ReadRequest:
    """Return the request in `body`; `TransferError` names what is wrong with it."""
    fields = _object(body)
    if fields.get("protocol") != PROTOCOL_VERSION:
        raise TransferError(
            f"protocol {fields.get('protocol')!r} is not {PROTOCOL_VERSION}; run the same version on both sides"
        )
    for name, kind in (
        ("engine_id", str),
        ("fingerprint", str),
        ("request_id", str),
        ("content", str),
        ("have_tokens", int),
        ("push", bool),
    ):
        if type(fields.get(name)) is not kind:
            raise TransferError(f"not a read request: {name}={fields.get(name)!r}; {kind.__name__} is expected")
    if fields["have_tokens"] < 0:
        raise TransferError(f"have_tokens={fields['have_tokens']}: a number of 0 or more is expected")
    try:
        return ReadRequest(**fields)
    except TypeError as error:
        raise TransferError(f"not a read request: {error}") from error


def decode_grant(body: bytes) -> ReadGrant:
    """Return the grant in `body`; `RefusedError` when it is a refusal."""
    fields = _object(body)
    if "refused" in fields:
        raise RefusedError(str(fields["refused"]))
    for name in ("layers", "total_bytes", "tokens"):
        if type(fields.get(name)) is not int or fields[name] < 0:
            raise TransferError(f"not a grant: {name}={fields.get(name)!r}; a number of 0 or more is expected")
    try:
        return ReadGrant(**fields)
    except TypeError as error:
        raise TransferError(f"not a grant: {error}") from error


def message_length(header: bytes) -> int:
    """Return the length of the message behind `header`."""
    length, _ = MESSAGE_HEADER.unpack(header)
    if length > MAX_MESSAGE_BYTES:
        raise TransferError(f"a message of {length} bytes; at most {MAX_MESSAGE_BYTES} are expected")
    return int(length)


def check_message(header: bytes, body: bytes) -> bytes:
    """Return `body` if it is what `header` announced."""
    if MESSAGE_HEADER.unpack(header) != (len(body), zlib.crc32(body)):
        raise TransferError("a message is damaged: its checksum differs")
    return body


class Assembly:
    """Checks the frames of one transfer as they come.

    Call `frame` with each header and `layer` with each payload; `complete` turns true with a right trailer.
    """

    __slots__ = ("_checksums", "_expected", "_grant", "_next", "complete", "received_bytes")

    def __init__(self, grant: ReadGrant) -> None:
        self._grant = grant
        self._next = 0
        self._checksums = 0
        self._expected = 0
        self.received_bytes = 0
        self.complete = False

    def frame(self, header: bytes) -> int:
        """Return how many payload bytes follow this header; 0 after the trailer."""
        if self.complete:
            raise TransferError("bytes after the trailer")
        index, size_bytes, checksum = FRAME_HEADER.unpack(header)
        if index == TRAILER:
            if self._next != self._grant.layers:
                raise TransferError(f"trailer after {self._next} of {self._grant.layers} layers")
            if size_bytes != self.received_bytes or size_bytes != self._grant.total_bytes:
                raise TransferError(
                    f"trailer says {size_bytes} bytes, {self.received_bytes} of {self._grant.total_bytes} came"
                )
            if checksum != self._checksums:
                raise TransferError("the trailer's checksum differs")
            self.complete = True
            return 0
        if index != self._next:
            raise TransferError(f"layer {index} came, layer {self._next} was expected")
        if index >= self._grant.layers or self.received_bytes + size_bytes > self._grant.total_bytes:
            raise TransferError(
                f"layer {index} with {size_bytes} bytes goes beyond the {self._grant.total_bytes} granted"
            )
        self._expected = checksum
        return int(size_bytes)

    def layer(self, payload: bytes | bytearray | memoryview) -> None:
        """Check the payload that the last header announced."""
        checksum = zlib.crc32(payload)
        if checksum != self._expected:
            raise TransferError(f"layer {self._next} is damaged: its checksum differs")
        self._checksums = zlib.crc32(checksum.to_bytes(4, "big"), self._checksums)
        self.received_bytes += len(payload)
        self._next += 1


class Framing:
    """Makes the headers of one transfer."""

    __slots__ = ("_checksums", "_next", "sent_bytes")

    def __init__(self) -> None:
        self._next = 0
        self._checksums = 0
        self.sent_bytes = 0

    def header(self, payload: bytes | memoryview) -> bytes:
        """Return the header of the next layer."""
        checksum = zlib.crc32(payload)
        self._checksums = zlib.crc32(checksum.to_bytes(4, "big"), self._checksums)
        header = FRAME_HEADER.pack(self._next, len(payload), checksum)
        self._next += 1
        self.sent_bytes += len(payload)
        return header

    def trailer(self) -> bytes:
        """Return the trailer."""
        return FRAME_HEADER.pack(TRAILER, self.sent_bytes, self._checksums)


def _framed(fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields).encode()
    return MESSAGE_HEADER.pack(len(body), zlib.crc32(body)) + body


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise TransferError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise TransferError("not a JSON object")
    return fields
