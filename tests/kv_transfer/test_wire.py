"""A transfer that is not exactly what was granted is an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prfaas_workers.kv_transfer import wire
from prfaas_workers.kv_transfer.wire import FRAME_HEADER, Assembly, Framing, ReadGrant, ReadRequest, TransferError

LAYERS = st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=6)


def grant(layers: list[bytes]) -> ReadGrant:
    return ReadGrant("engine", "fingerprint", len(layers), sum(map(len, layers)), 10)


def frames(layers: list[bytes]) -> list[tuple[bytes, bytes]]:
    framing = Framing()
    return [*((framing.header(layer), layer) for layer in layers), (framing.trailer(), b"")]


def assemble(assembly: Assembly, sent: list[tuple[bytes, bytes]]) -> bytes:
    received = b""
    for header, payload in sent:
        size_bytes = assembly.frame(header)
        if not assembly.complete:
            if size_bytes != len(payload):
                raise TransferError("the frame is cut")
            assembly.layer(payload)
            received += payload
    if not assembly.complete:
        raise TransferError("no trailer")
    return received


@given(LAYERS)
def test_what_was_sent_arrives(layers: list[bytes]) -> None:
    assert assemble(Assembly(grant(layers)), frames(layers)) == b"".join(layers)


@given(LAYERS, st.data())
def test_any_change_is_found(layers: list[bytes], data: st.DataObject) -> None:
    sent = frames(layers)
    kind = data.draw(st.sampled_from(["flip", "drop", "repeat", "swap", "header"]))
    at = data.draw(st.integers(0, len(layers) - 1))
    header, payload = sent[at]
    if kind == "flip":
        position = data.draw(st.integers(0, len(payload) - 1))
        flipped = bytes(
            [*payload[:position], payload[position] ^ data.draw(st.integers(1, 255)), *payload[position + 1 :]]
        )
        sent[at] = (header, flipped)
    elif kind == "drop":
        del sent[data.draw(st.integers(0, len(sent) - 1))]
    elif kind == "repeat":
        sent.insert(at, sent[at])
    elif kind == "swap":
        other = data.draw(st.integers(0, len(sent) - 1).filter(lambda index: index != at))
        sent[at], sent[other] = sent[other], sent[at]
    else:
        position = data.draw(st.integers(0, FRAME_HEADER.size - 1))
        sent[at] = (bytes([*header[:position], header[position] ^ 1, *header[position + 1 :]]), payload)
    with pytest.raises(TransferError):
        assemble(Assembly(grant(layers)), sent)


@given(st.binary(max_size=200))
def test_arbitrary_messages_are_refused_in_words(body: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_grant):
        with pytest.raises(TransferError):
            decode(body)


@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 1 << 40), st.booleans())
def test_messages_survive_the_wire(engine: str, request: str, have_tokens: int, push: bool) -> None:
    message = ReadRequest(engine, "f", request, "c", have_tokens, push)
    encoded = wire.encode(message)
    header, body = encoded[: wire.MESSAGE_HEADER.size], encoded[wire.MESSAGE_HEADER.size :]
    assert wire.message_length(header) == len(body)
    assert wire.decode_request(wire.check_message(header, body)) == message


@given(st.data())
def test_a_changed_message_is_found(data: st.DataObject) -> None:
    encoded = bytearray(wire.encode(ReadRequest("engine", "f", "request", "c", 16, push=False)))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    header, body = bytes(encoded[: wire.MESSAGE_HEADER.size]), bytes(encoded[wire.MESSAGE_HEADER.size :])
    with pytest.raises(TransferError, match="damaged"):
        wire.check_message(header, body)


def test_a_huge_message_is_refused() -> None:
    with pytest.raises(TransferError, match="at most"):
        wire.message_length(b"\xff" * wire.MESSAGE_HEADER.size)
