"""Whatever bytes arrive, and however they are cut: an answer or a close, never an unhandled exception."""

import asyncio
import itertools
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from prfaas_router import preparation
from prfaas_router.http.server import Connection, Limits, Request, Responder, Server
from prfaas_router.openai import APIError
from prfaas_router.preparation import ModelLimits

PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n", b"POST /v1/completions HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n", b"HEAD /x HTTP/1.1\r\n", b"\r\n", b"\n",
        b"content-length: 5\r\n", b"content-length: 99999999999999999999\r\n", b"content-length: x\r\n", b"content-length:\r\n",
        b"transfer-encoding: chunked\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"hello", b"host: x\r\n", b"expect: 100-continue\r\n",
        b"upgrade: h2c\r\nconnection: upgrade\r\n", b"connection: close\r\n", b"a: " + b"x" * 3000 + b"\r\n", b"PRI * HTTP/2.0\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n", b" folded\r\n", b"\x00", b"GET " + b"/" * 3000,
    ]
) | st.binary(max_size=20)  # fmt: skip


class Transport(asyncio.Transport):
    """Keeps what is written; the real ones are used in the tests with processes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


async def exchange(parts: list[bytes]) -> tuple[bytes, list[tuple[str, str, bytes]], list[object]]:
    """Feed the parts; return what was written, the requests that were handled, and unhandled errors."""
    handled: list[tuple[str, str, bytes]] = []
    errors: list[object] = []

    async def handler(request: Request, responder: Responder) -> None:
        handled.append((request.method, request.path, request.body))
        responder.send(200, [], b"ok")

    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    limits = Limits(max_url_bytes=2000, max_header_bytes=2000, max_headers=10, max_body_bytes=1000)
    server = Server(handler, limits, errors.append)
    connection, transport = Connection(server), Transport()
    connection.connection_made(transport)
    for part in parts:
        if not transport.closed:
            connection.data_received(part)
        for _ in range(4):
            await asyncio.sleep(0)
    connection.connection_lost(None)
    await asyncio.sleep(0)
    assert not server.connections
    return transport.written, handled, errors


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12))
def test_arbitrary_bytes_are_answered_or_closed(parts: list[bytes]) -> None:
    written, _, errors = asyncio.run(exchange(parts))
    assert errors == []
    assert written == b"" or written.startswith(b"HTTP/1.1 ")


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=8), st.lists(st.integers(0, 4000), max_size=6))
def test_how_bytes_are_cut_does_not_matter(parts: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(parts)
    bounds = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[start:end] for start, end in itertools.pairwise(bounds)]
    _, handled, errors = asyncio.run(exchange([whole] if whole else []))
    _, handled_in_pieces, errors_in_pieces = asyncio.run(exchange(pieces))
    assert errors == errors_in_pieces == []
    # A cut lets requests before a malformed one be answered, which arriving at once does not.
    shared = min(len(handled), len(handled_in_pieces))
    assert handled[:shared] == handled_in_pieces[:shared]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        ["prompt", "messages", "stream", "max_tokens", "n", "best_of", "echo", "kv_transfer_params", "cache_salt"]
    ),
    JSON | st.lists(st.fixed_dictionaries({"role": st.text(max_size=5), "content": JSON}), max_size=3),
)


@settings(max_examples=400, deadline=None)
@given(FIELDS, st.booleans())
def test_arbitrary_bodies_are_prepared_or_refused(fields: dict[str, Any], chat: bool) -> None:
    model = ModelLimits("m", 1000, 4.0, 16)
    try:
        body = preparation.parse(orjson.dumps(fields | {"model": "m"}))
        prepared = preparation.prepare(body, chat=chat, model=model)
    except APIError as error:
        assert 400 <= error.status < 500
        assert error.message
    else:
        assert prepared.total_tokens >= 1
        assert not preparation.STRIPPED_FIELDS & prepared.body.keys()
