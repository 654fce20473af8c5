"""The server side: parses requests with llhttp, bounds what a client may send, and answers in order.

A handler gets the whole request, whose body is bounded, and a `Responder`. A client that goes away cancels its handler.
Pipelined requests wait until the one before is answered; reading pauses meanwhile, so that they are bounded too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import httptools

from prfaas_router import openai

HIGH_WATER_BYTES = 1 << 18
LINGER_S = 5.0
"""How long a server that stops keeps idle connections: a request may be on its way on one, and clients with a pool use
a connection again within seconds or not at all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may send and how long it may take.

    Attributes:
        max_body_bytes: can be replaced at run time through `Server.max_body_bytes`.
        request_timeout_s: from the first byte of a request to its last.
        keep_alive_s: how long a connection may be idle.
    """

    max_url_bytes: int = 8192
    max_header_bytes: int = 65_536
    max_headers: int = 128
    max_body_bytes: int = 8 << 20
    request_timeout_s: float = 30.0
    keep_alive_s: float = 75.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower case; of repeated ones the last counts."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Handler = Callable[[Request, "Responder"], Awaitable[None]]


class Responder:
    """Answers one request, whole or as a stream."""

    __slots__ = ("_chunked", "_close", "_connection", "_head_only", "finished", "started")

    def __init__(self, connection: Connection, *, keep_alive: bool, chunked: bool, head_only: bool) -> None:
        self._connection = connection
        self._close = not keep_alive
        self._chunked = chunked
        self._head_only = head_only
        self.started = False
        self.finished = False

    def send(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Send a whole answer."""
        self._head(status, [*headers, ("content-length", str(len(body)))], b"" if self._head_only else body)
        self._end()

    def send_error(self, error: openai.APIError, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send an error object."""
        self.send(error.status, [("content-type", "application/json"), *error.headers, *headers], error.body())

    def start(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send the head of a stream."""
        if self._chunked:
            self._head(status, [*headers, ("transfer-encoding", "chunked")], b"")
        else:
            self._close = True
            self._head(status, headers, b"")

    async def write(self, data: bytes) -> None:
        """Send a part of a stream; waits while the client reads slowly.

        Raises:
            ConnectionResetError: the client is gone.
        """
        if data and not self._head_only:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        await self._connection.drained()

    def finish(self) -> None:
        """End a stream."""
        if self._chunked and not self._head_only:
            self._connection.write(b"0\r\n\r\n")
        self._end()

    def abort(self) -> None:
        """Break a stream that cannot be ended properly, so that the client sees it as broken."""
        self.finished = True
        self._connection.abort()

    def _head(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        self.started = True
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Status"
        lines = [f"HTTP/1.1 {status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if self._close or self._connection.closing:
            self._close = True
            lines.append("connection: close")
        self._connection.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body)

    def _end(self) -> None:
        self.finished = True
        self._connection.answered(close=self._close)


class Connection(asyncio.Protocol):
    """One client connection.

    Attributes:
        closing: it ends with the next answer that says so; one whose head was sent before has promised another request.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resumed: asyncio.Event | None = None
        self._refused = False
        self._lost = False
        self._last = False
        self.closing = server.draining
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._in_request = False

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._server.connections.add(self)
        self._arm(self._server.limits.keep_alive_s)

    def connection_lost(self, _: Exception | None) -> None:
        self._lost = True
        self._server.gone(self)
        self._disarm()
        if self._resumed is not None:
            self._resumed.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._resumed = asyncio.Event()

    def resume_writing(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The wish to upgrade is ignored, as HTTP allows; what follows is no longer HTTP.
            self._refused = True
            self.closing = True
        except httptools.HttpParserError as error:
            # Errors of the callbacks below arrive as the context of the parser's own.
            cause = error.__context__ if isinstance(error.__context__, openai.APIError) else None
            self._refuse(cause or openai.APIError(400, f"malformed HTTP request: {error}"))

    def eof_received(self) -> bool:
        return False

    # llhttp

    def on_message_begin(self) -> None:
        self._reset()
        self._in_request = True
        self._arm(self._server.limits.request_timeout_s)

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._server.limits.max_url_bytes:
            raise openai.APIError(414, f"the URL is longer than {self._server.limits.max_url_bytes} bytes")

    def on_header(self, name: bytes, value: bytes | None) -> None:
        value = value or b""
        self._header_count += 1
        self._header_bytes += len(name) + len(value) + 4
        limits = self._server.limits
        if self._header_count > limits.max_headers or self._header_bytes > limits.max_header_bytes:
            raise openai.APIError(
                431, f"more than {limits.max_headers} headers or {limits.max_header_bytes} bytes of headers"
            )
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        length = self._headers.get("content-length")
        if length is not None and int(length) > self._server.max_body_bytes:
            raise self._too_large()
        if self._headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._server.max_body_bytes:
            raise self._too_large()
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._disarm()
        path = self._url.split(b"?", 1)[0].decode("latin-1")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(self._parser.get_method().decode("latin-1"), path, self._headers, body)
        self._waiting.append(
            (request, bool(self._parser.should_keep_alive()), self._parser.get_http_version() == "1.1")
        )
        self._reset()
        if self._task is None:
            self._next()
        elif self._transport is not None:
            self._transport.pause_reading()

    # for the responder

    def write(self, data: bytes) -> None:
        """Write to the client, if it is still there."""
        if self._transport is not None and not self._lost:
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the client has read enough."""
        if self._resumed is not None:
            await self._resumed.wait()
        if self._lost:
            raise ConnectionResetError("the client is gone")

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def answered(self, *, close: bool) -> None:
        """Go on after an answer."""
        if close:
            self._shut()

    def close_when_idle(self) -> None:
        """Close now, or after the request in flight, whatever its answer has said."""
        self._last = True
        if self._task is None and not self._in_request:
            self._shut()

    def _next(self) -> None:
        request, keep_alive, http11 = self._waiting.popleft()
        responder = Responder(self, keep_alive=keep_alive, chunked=http11, head_only=request.method == "HEAD")
        self._task = self._loop.create_task(self._run(request, responder))

    async def _run(self, request: Request, responder: Responder) -> None:
        try:
            await self._server.handler(request, responder)
        except openai.APIError as error:
            self._fail(responder, error)
        except ConnectionResetError:
            self.abort()
        except Exception as error:  # noqa: BLE001 - the last resort of a request; it is logged and answered
            self._server.on_error(error)
            self._fail(
                responder, openai.APIError(500, "internal error; the router's log has it under the request's id")
            )
        finally:
            self._task = None
        if self._lost or self._last:
            self._shut()
        elif self._waiting:
            self._next()
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            if not self._in_request:
                self._arm(self._server.limits.keep_alive_s)

    def _fail(self, responder: Responder, error: openai.APIError) -> None:
        if not responder.started:
            responder.send_error(error)
        elif not responder.finished:
            responder.abort()

    def _refuse(self, error: openai.APIError) -> None:
        """Answer what is not a request, and close: where the next one would begin is unknown."""
        self._refused = True
        self._disarm()
        if self._task is not None or self._transport is None:
            self.abort()
            return
        Responder(self, keep_alive=False, chunked=False, head_only=False).send_error(error)

    def _too_large(self) -> openai.APIError:
        return openai.APIError(
            413, f"the body is larger than {self._server.max_body_bytes} bytes; send a shorter prompt"
        )

    def _shut(self) -> None:
        self._disarm()
        if self._transport is not None:
            self._transport.close()

    def _arm(self, delay_s: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(delay_s, self._timed_out)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        if self._in_request:
            timeout_s = self._server.limits.request_timeout_s
            self._refuse(openai.APIError(408, f"the request did not arrive within {timeout_s:g} s"))
        else:
            self._shut()


class Server:
    """Accepts connections and hands requests to a handler."""

    def __init__(self, handler: Handler, limits: Limits, on_error: Callable[[Exception], None]) -> None:
        self.handler = handler
        self.limits = limits
        self.max_body_bytes = limits.max_body_bytes
        self.on_error = on_error
        self.connections: set[Connection] = set()
        self.draining = False
        self._server: asyncio.Server | None = None
        self._empty: asyncio.Event | None = None

    def gone(self, connection: Connection) -> None:
        """Forget a connection that was lost."""
        self.connections.discard(connection)
        if self._empty is not None and not self.connections:
            self._empty.set()

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, backlog=1024)
        return int(self._server.sockets[0].getsockname()[1])

    def drain(self) -> None:
        """Have every connection end with its next answer, which says so to the client."""
        self.draining = True
        for connection in self.connections:
            connection.closing = True

    async def stop(self, grace_s: float) -> None:
        """Accept no more, answer what comes on connections that there are, and drop what is left after `grace_s`.

        Those without a request are closed after `LINGER_S`: closed at once, one could cross a request on its way.
        """
        if self._server is not None:
            self._server.close()
        self.drain()
        linger_s = min(LINGER_S, grace_s)
        await self._wait_empty(linger_s)
        for connection in tuple(self.connections):
            connection.close_when_idle()
        await self._wait_empty(grace_s - linger_s)
        for connection in tuple(self.connections):
            connection.abort()

    async def _wait_empty(self, at_most_s: float) -> None:
        if not self.connections:
            return
        self._empty = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._empty.wait()
