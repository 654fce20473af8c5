"""Ask a process whether it is well."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp

from prfaas_local.node.probe import Command, GrpcHealth, HttpGet, Question, TcpConnect

_BODY_LIMIT_BYTES = 10 * 1024
_SERVING = 1

RunCommand = Callable[[tuple[str, ...], float], Awaitable[tuple[int | None, str]]]
"""Run a command in the container for at most so many seconds. Return exit code (None: too slow) and output."""


class Prober:
    """Asks questions on behalf of all pods of the node."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        # Probes ask a pod by address and trust whatever certificate it has, as the kubelet does.
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    async def close(self) -> None:
        """Close the HTTP client."""
        if self._session:
            await self._session.close()

    async def ask(self, question: Question, *, address: str, timeout_s: float, run: RunCommand) -> str | None:
        """Return None for a good answer, otherwise what was wrong."""
        try:
            async with asyncio.timeout(timeout_s + (1.0 if isinstance(question, Command) else 0.0)):
                match question:
                    case HttpGet():
                        return await self._get(question, address)
                    case TcpConnect():
                        return await _connect(question, address)
                    case GrpcHealth():
                        return await _check(question, address, timeout_s)
                    case Command():
                        return await _execute(question, timeout_s, run)
        except TimeoutError:
            return f"no answer within {timeout_s:g} s"

    async def _get(self, question: HttpGet, address: str) -> str | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0, ssl=self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept-Encoding"),
            )
        url = f"{question.scheme}://{question.host or address}:{question.port}/{question.path.removeprefix('/')}"
        headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*", **dict(question.headers)}
        try:
            async with self._session.get(url, headers=headers, max_redirects=10) as response:
                body = await response.content.read(_BODY_LIMIT_BYTES)
                if 200 <= response.status < 400:
                    return None
                return f"HTTP probe failed with statuscode: {response.status}: {body[:200].decode(errors='replace')}"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f'Get "{url}": {error}'


async def _connect(question: TcpConnect, address: str) -> str | None:
    try:
        _, writer = await asyncio.open_connection(question.host or address, question.port)
    except OSError as error:
        return f"connect {question.host or address}:{question.port}: {error.strerror or error}"
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return None


async def _check(question: GrpcHealth, address: str, timeout_s: float) -> str | None:
    # Imported late: most nodes never see a gRPC probe, and the library is the largest thing in the process.
    import grpc
    import grpc.aio

    name = question.service.encode()
    request = b"\x0a" + _varint(len(name)) + name if name else b""
    async with grpc.aio.insecure_channel(f"{address}:{question.port}") as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
        try:
            answer = await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return f"gRPC health check failed: {error.code().name}: {error.details()}"
    # HealthCheckResponse has one field: the status, an enumeration in field 1.
    return None if answer[:2] == bytes([0x08, _SERVING]) else "gRPC health check: the service is not SERVING"


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


async def _execute(question: Command, timeout_s: float, run: RunCommand) -> str | None:
    code, output = await run(question.arguments, timeout_s)
    if code == 0:
        return None
    if code is None:
        return f"command {list(question.arguments)} took longer than {timeout_s:g} s"
    return f"command {list(question.arguments)} exited with {code}: {output[-200:].strip()}"
