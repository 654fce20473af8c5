"""What a client may not send is refused with an OpenAI error object and the right status."""

import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def router(start_worker: Callable[..., Any], start_router: Callable[..., Any], snapshot: Callable[..., Any]) -> Any:
    return start_router(snapshot([start_worker()], None, None, limits={"max_body_bytes": 10_000}))


def exchange(router: Any, raw: bytes) -> bytes:
    with socket.create_connection((router.address, 8080), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_every_bad_body_is_named(router: Any) -> None:
    cases: list[tuple[str, bytes, int, str | None]] = [
        ("completions", b"{", 400, None),
        ("completions", b"[1]", 400, None),
        ("completions", b"\xff", 400, None),
        ("completions", b"{}", 400, "model"),
        ("completions", b'{"model": 5}', 400, "model"),
        ("completions", b'{"model": "other", "prompt": "x"}', 404, "model"),
        ("completions", b'{"model": "prfaas-1t"}', 400, "prompt"),
        ("completions", b'{"model": "prfaas-1t", "prompt": [1, -1]}', 400, "prompt"),
        ("completions", b'{"model": "prfaas-1t", "prompt": [1, "a"]}', 400, "prompt"),
        ("completions", b'{"model": "prfaas-1t", "prompt": "x", "stream": "yes"}', 400, "stream"),
        ("completions", b'{"model": "prfaas-1t", "prompt": "x", "max_tokens": 0}', 400, "max_tokens"),
        ("completions", b'{"model": "prfaas-1t", "prompt": "x", "n": 0}', 400, "n"),
        ("completions", b'{"model": "prfaas-1t", "prompt": [1], "max_tokens": 131072}', 400, "prompt"),
        ("completions", b'{"model": "prfaas-1t", "prompt": "' + b"x" * 10_000 + b'"}', 413, None),
        ("chat/completions", b'{"model": "prfaas-1t"}', 400, "messages"),
        ("chat/completions", b'{"model": "prfaas-1t", "messages": [1]}', 400, "messages"),
        ("chat/completions", b'{"model": "prfaas-1t", "messages": [{"role": "user", "content": 5}]}', 400, "messages"),
    ]
    for path, body, status, param in cases:
        answer = httpx.post(f"{router.url}/v1/{path}", content=body, trust_env=False)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (status, param), body[:80]
        assert error["message"]
        assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET /v1/completions HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /health HTTP/1.1\r\na: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"POST /v1/completions HTTP/1.1\r\ncontent-length: 99999\r\n\r\n", 413),
        (b"POST /v1/completions HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\ncontent-length: -4\r\n\r\n", 400),
    ],
)
def test_bad_http_is_refused(router: Any, raw: bytes, status: int) -> None:
    head, _, body = exchange(router, raw).partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] == str(status).encode()
    assert json.loads(body)["error"]["message"]
    assert httpx.get(f"{router.url}/health", trust_env=False).status_code == 200


def test_pipelined_requests_are_answered_in_order(router: Any) -> None:
    raw = b"GET /health HTTP/1.1\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\nGET /no HTTP/1.1\r\nconnection: close\r\n\r\n"
    answers = exchange(router, raw).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"200", b"404"]


def test_a_chunked_body_and_continue_are_understood(router: Any) -> None:
    raw = (
        b"POST /v1/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
        b"2\r\n{}\r\n0\r\n\r\n"
    )
    answers = exchange(router, raw)
    assert answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400")


def test_http_10_is_answered_and_closed(router: Any) -> None:
    assert b"connection: close" in exchange(router, b"GET /health HTTP/1.0\r\n\r\n")


def test_a_wish_to_upgrade_is_ignored(router: Any) -> None:
    raw = b"GET /health HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nnot http"
    answer = exchange(router, raw)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer


def test_head_has_no_body(router: Any) -> None:
    head, _, body = exchange(router, b"HEAD /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b""
