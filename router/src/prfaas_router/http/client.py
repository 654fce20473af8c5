"""The client side: pooled keep-alive connections to workers, with streaming and back-pressure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from typing import Self, cast

import httptools

HIGH_WATER_BYTES = 1 << 18
IDLE_S = 30.0


class UpstreamError(Exception):
    """A worker could not be asked, or its answer broke off.

    Attributes:
        sent: whether the worker may have seen the request.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        self.sent = sent
        super().__init__(message)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self.lost = False
        self.idle_since_s = 0.0
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._complete = False
        self._failure: str | None = None
        self._has_head = False
        self._wake: asyncio.Future[None] | None = None
        self._reusable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if not self._complete:
            if self._has_head and "content-length" not in self.headers and "transfer-encoding" not in self.headers:
                # An answer without a length ends with its connection.
                self._complete = True
            else:
                self._failure = f"the connection was lost: {error}" if error else "the connection was closed early"
        self._notify()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._failure = f"not HTTP: {error}"
            self.close()
            self._notify()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status
            self._has_head = True
            self._notify()
        else:
            self.headers.clear()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered_bytes += len(body)
        if self._buffered_bytes > HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._notify()

    def on_message_complete(self) -> None:
        if self._has_head:
            self._complete = True
            self._reusable = bool(self._parser.should_keep_alive())
            self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _changed(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    async def exchange(self, head: bytes, body: bytes) -> None:
        """Send a request and wait for the head of its answer."""
        self._begin()
        if self.lost or self._transport is None:
            raise UpstreamError("the connection is closed", sent=False)
        self._transport.write(head + body if len(body) < 65_536 else head)
        if len(body) >= 65_536:
            self._transport.write(body)
        while not self._has_head:
            if self._failure is not None:
                raise UpstreamError(self._failure, sent=True)
            await self._changed()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
                self._chunks.clear()
                self._buffered_bytes = 0
                if self._paused and self._transport is not None and not self.lost:
                    self._paused = False
                    self._transport.resume_reading()
                yield chunk
            if self._complete:
                return
            if self._failure is not None:
                raise UpstreamError(self._failure, sent=True)
            await self._changed()

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return self._complete and not self._chunks and self._reusable and not self.lost

    def close(self) -> None:
        """Drop the connection; the worker sees that nobody waits."""
        if self._transport is not None:
            self._transport.abort()


class Answer:
    """The answer of a worker, whose head has come. Use it as a context; leaving early drops the connection."""

    __slots__ = ("_address", "_client", "_connection", "_released", "headers", "status")

    def __init__(self, client: Client, address: tuple[str, int], connection: _Connection) -> None:
        self._client = client
        self._address = address
        self._connection = connection
        self._released = False
        self.status = connection.status
        self.headers = connection.headers

    async def __aenter__(self) -> Self:
        """Return the answer."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give the connection back, or drop it when the body was not read to its end."""
        self.release()

    def release(self) -> None:
        """Give the connection back, or drop it when the body was not read to its end."""
        if not self._released:
            self._released = True
            self._client.give_back(self._address, self._connection)

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes; `UpstreamError` when it breaks off."""
        return self._connection.chunks()

    async def read(self, limit_bytes: int = 64 << 20) -> bytes:
        """Return the whole body."""
        parts, size_bytes = [], 0
        async for chunk in self.chunks():
            size_bytes += len(chunk)
            if size_bytes > limit_bytes:
                raise UpstreamError(f"an answer of more than {limit_bytes} bytes", sent=True)
            parts.append(chunk)
        return b"".join(parts)


class Client:
    """Sends requests to workers by address."""

    def __init__(self, max_idle: int = 64) -> None:
        self._max_idle = max_idle
        self._idle: dict[tuple[str, int], list[_Connection]] = {}

    async def post(
        self,
        address: tuple[str, int],
        path: str,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        connect_timeout_s: float,
    ) -> Answer:
        """Send a POST and return its answer when the head has come.

        Raises:
            UpstreamError: `sent` tells whether the worker may have seen the request.
        """
        connection = self._take(address)
        if connection is None:
            connection = await self._connect(address, connect_timeout_s)
        lines = [f"POST {path} HTTP/1.1", f"host: {address[0]}:{address[1]}"]
        lines += [f"{name}: {value}" for name, value in headers]
        lines += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
        try:
            await connection.exchange("\r\n".join(lines).encode("latin-1", "replace"), body)
        except BaseException:
            connection.close()
            raise
        return Answer(self, address, connection)

    async def _connect(self, address: tuple[str, int], timeout_s: float) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(_Connection, *address)
        except TimeoutError as error:
            raise UpstreamError(
                f"no connection to {address[0]}:{address[1]} within {timeout_s:g} s", sent=False
            ) from error
        except OSError as error:
            raise UpstreamError(f"no connection to {address[0]}:{address[1]}: {error}", sent=False) from error
        return connection

    def _take(self, address: tuple[str, int]) -> _Connection | None:
        idle = self._idle.get(address)
        now_s = asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if connection.reusable and now_s - connection.idle_since_s < IDLE_S:
                return connection
            connection.close()
        return None

    def give_back(self, address: tuple[str, int], connection: _Connection) -> None:
        """Keep a connection whose answer was read to its end, drop another."""
        idle = self._idle.setdefault(address, [])
        if connection.reusable and len(idle) < self._max_idle:
            connection.idle_since_s = asyncio.get_running_loop().time()
            idle.append(connection)
        else:
            connection.close()

    def retain(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Drop the idle connections to workers that are gone."""
        for gone in self._idle.keys() - set(addresses):
            for connection in self._idle.pop(gone):
                connection.close()

    def close(self) -> None:
        """Drop all idle connections."""
        self.retain(())
