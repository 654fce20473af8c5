"""The HTTP session behind `PrometheusConnect`: bounded in size, cut off from outside, and exact about what went wrong."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError

from prfaas_operator.api.conditions import Reason
from prfaas_operator.scaling.prometheus.access import Access
from prfaas_operator.scaling.prometheus.results import QueryError

MAX_ANSWER_BYTES: Final = 4 << 20
"""Far above the answer of any query here, which is a few hundred numbers, and far below what a process would notice."""
_MAX_ERROR_BYTES: Final = 64 << 10
_MAX_RETRY_AFTER_S: Final = 60.0
_CHUNK_BYTES: Final = 64 << 10


class Exchange:
    """One question under way. Cutting it off ends the thread that waits for the answer, whatever the server does."""

    def __init__(self) -> None:
        self._connection: HTTPConnection | None = None
        self._cut = False

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Let connections that the present thread uses belong to this exchange."""
        _of_thread.exchange = self
        try:
            yield
        finally:
            _of_thread.exchange = self._connection = None

    def take(self, connection: HTTPConnection) -> None:
        """Use a connection from now on; raises when the exchange was cut off before."""
        self._connection = connection
        if self._cut:
            raise NewConnectionError(connection, "nobody waits for the answer any more")

    def cut(self) -> None:
        """End it now, from any thread."""
        self._cut = True
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                # Wakes the thread that reads; SSLSocket's own shutdown would take the TLS state from under it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


_of_thread = threading.local()


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self._give()

    def request(self, *arguments: Any, **named: Any) -> None:
        self._give()
        super().request(*arguments, **named)

    def _give(self) -> None:
        exchange = getattr(_of_thread, "exchange", None)
        if exchange is not None:
            exchange.take(self)


class _TlsConnection(_Connection, HTTPSConnection):
    """The same with TLS: urllib3's two connections are one above the other."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """Makes connections that can be cut off, and that trust what `context` trusts."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **named: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **named)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=self._context, **named)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the pool as it is: the context says whom to trust, and nobody else is to be added."""


class BoundedSession(requests.Session):
    """A session of one server. Raises `QueryError` for everything but an answer with status 200."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._adapter = _Adapter(tls_context(access))

    def close(self) -> None:
        self._adapter.close()
        super().close()

    def request(  # type: ignore[override]
        self,
        method: str,
        url: str,
        *,
        params: dict[str, str],
        headers: dict[str, str],
        auth: tuple[str, str] | None,
        timeout: float,
        **_: Any,
    ) -> requests.Response:
        """Ask, with the parameters as a form."""
        try:
            # Not through the session's own settings: those would take a password from .netrc, and follow redirects.
            # Encoded answers would have a size that is not known before they are unpacked.
            prepared = requests.Request(
                method, url, data=params, headers={**headers, "Accept-Encoding": "identity"}, auth=auth
            ).prepare()
        except (requests.RequestException, UnicodeError) as error:
            raise QueryError(Reason.PROMETHEUS_NOT_CONFIGURED, f"URL, headers or credentials: {error}") from error
        try:
            answer = self._adapter.send(
                prepared, stream=True, timeout=(timeout / 2, timeout), proxies=get_environ_proxies(url)
            )
        except (requests.RequestException, HTTPError) as error:
            raise _unanswered(error) from error
        with answer:
            if answer.status_code != 200:
                raise _refused(answer)
            body = _body(answer, MAX_ANSWER_BYTES)
        found = requests.Response()
        found.status_code, found.raw = 200, io.BytesIO(body)
        return found


def tls_context(access: Access) -> ssl.SSLContext:
    """Return how to verify the server, and what to show it.

    Raises:
        QueryError: a certificate or a key is none.
    """
    try:
        context = ssl.create_default_context(
            cadata=access.ca_pem, cafile=None if access.ca_pem else DEFAULT_CA_BUNDLE_PATH
        )
        if access.client_certificate is not None:
            context.load_cert_chain(access.client_certificate.certificate_file, access.client_certificate.key_file)
    except (OSError, ValueError) as error:
        raise QueryError(
            Reason.PROMETHEUS_NOT_CONFIGURED, f"the CA or client certificate for {access.url} is not PEM: {error}"
        ) from error
    return context


def _body(answer: requests.Response, limit_bytes: int) -> bytes:
    """Return the body as it arrives, unless it is longer than the limit."""
    found = bytearray()
    try:
        while chunk := answer.raw.read1(_CHUNK_BYTES, decode_content=False):
            found += chunk
            if len(found) > limit_bytes:
                raise QueryError(
                    Reason.PROMETHEUS_ANSWER_TOO_LARGE,
                    f"the answer has more than {limit_bytes >> 20} MiB; aggregate more",
                )
    except ProtocolError as error:
        raise QueryError(
            Reason.PROMETHEUS_ANSWER_INVALID, f"the answer was cut off after {len(found)} bytes"
        ) from error
    except HTTPError as error:
        raise _unanswered(error) from error
    return bytes(found)


def _refused(answer: requests.Response) -> QueryError:
    status = answer.status_code
    message = f"HTTP {status} {answer.reason}{_explained(answer)}"
    if 300 <= status < 400:
        # Not the whole target: whoever set the URL may not be allowed to see what a server inside says.
        return QueryError(Reason.PROMETHEUS_REDIRECTED, f"{message}; redirects are not followed, give the final URL")
    match status:
        case 401 | 403:
            return QueryError(Reason.PROMETHEUS_UNAUTHORIZED, f"{message}; renew or correct the credentials")
        case 429:
            return QueryError(Reason.PROMETHEUS_THROTTLED, message, retry_after_s=_retry_after_s(answer))
        case 400 | 422:
            return QueryError(Reason.SIGNAL_INVALID, f"the query is refused: {message}")
    return QueryError(Reason.PROMETHEUS_FAILED, message)


def _explained(answer: requests.Response) -> str:
    """Return what Prometheus says about an error. Pages of others are not shown, since they may be nobody's business."""
    with contextlib.suppress(QueryError, ValueError, AttributeError):
        document = json.loads(_body(answer, _MAX_ERROR_BYTES))
        if document.get("status") == "error":
            return f": {str(document.get('error'))[:500]}"
    return ""


def _retry_after_s(answer: requests.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isdigit() else 0.0


def _unanswered(error: Exception) -> QueryError:
    """Return why there is no answer at all, from what lies at the bottom of an exception."""
    for found in _causes(error):
        if isinstance(found, ssl.SSLCertVerificationError):
            return QueryError(Reason.PROMETHEUS_CERTIFICATE_INVALID, f"certificate: {found.verify_message or found}")
        if isinstance(found, ssl.SSLError) and "ALERT" in (found.reason or "") and _blames_us(found.reason or ""):
            return QueryError(
                Reason.PROMETHEUS_UNAUTHORIZED, f"the server refuses the client certificate: {found.reason}"
            )
        if isinstance(found, ssl.SSLEOFError):
            # With TLS 1.3 the alert that says so is often overtaken by the end of the connection.
            return QueryError(
                Reason.PROMETHEUS_UNREACHABLE,
                f"the server broke off, as if it wanted another client certificate: {found}",
            )
    if isinstance(error, requests.Timeout) or any(isinstance(found, TimeoutError) for found in _causes(error)):
        return QueryError(Reason.PROMETHEUS_TIMEOUT, "no answer in time")
    *_, deepest = _causes(error)
    text = str(deepest) or type(deepest).__name__
    return QueryError(Reason.PROMETHEUS_UNREACHABLE, text)


def _blames_us(alert: str) -> bool:
    return "CERTIFICATE" in alert or "UNKNOWN_CA" in alert or "ACCESS_DENIED" in alert


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and what it wraps: urllib3 and requests hand the cause on as an argument or as `reason`."""
    pending, seen = [error], set()
    while pending:
        found = pending.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inner = (*found.args, getattr(found, "reason", None), found.__cause__, found.__context__)
        pending += [part for part in inner if isinstance(part, BaseException)]
