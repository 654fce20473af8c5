"""A real Prometheus that scrapes workers of several pools; what they expose is the test's."""

import asyncio
import contextlib
import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from prfaas_core.profiles import Curve, Profile
from prfaas_local.scraping import Pages, scraping
from prfaas_operator.api.model_profile import EngineName
from prfaas_operator.scaling.observation import Question, Subject, observe
from prfaas_operator.scaling.prometheus import Prometheus
from prfaas_operator.scaling.prometheus.access import PrometheusFiles
from prfaas_operator.scaling.queries import Workers

POOLS, PODS = 32, 2
TWICE, STEADY = 0, 1  # the pool whose pods a second job scrapes too, and one that serves all the time
PROFILE = Profile(
    model="m", max_model_len_tokens=100_000, bytes_per_token=4, accelerator="a", accelerators_per_instance=1,
    prefill_s=Curve((1000, 8000, 32000), (0.2, 1.0, 6.0)), kv_bytes=Curve((1000, 32000), (1e6, 32e6)),
    decode_slots=32, step_s=0.02, cache_capacity_tokens=0, block_tokens=64,
)  # fmt: skip


@dataclass
class Pool:
    """A pool of two pods, each with a registry that Prometheus scrapes once it is there."""

    pages: Pages
    server: Prometheus
    workers: Workers

    def path(self, pod: int, *, again: bool = False) -> str:
        """Return where a pod's page is; with `again`, where a second job looks for it."""
        return f"/{self.workers.pool}/{pod}{'/again' if again else ''}"

    def expose(self, pod: int = 0) -> CollectorRegistry:
        """Return a registry of the pod, in the place of the one before: as if it had started anew."""
        registry = CollectorRegistry()
        self.pages.texts[self.path(pod)] = lambda: generate_latest(registry)
        return registry

    def subject(self, *questions: Question, **changes: object) -> Subject:
        given = {"workers": self.workers, "engine": EngineName.VLLM, "profile": PROFILE, "ready_replicas": 1}
        ready = changes.get("ready_replicas", given["ready_replicas"])
        return Subject(**{**given, "expected_replicas": ready, "signals": questions, **changes})

    async def until(self, subject: Subject, check: Callable[..., bool], deadline_s: float = 60):
        """Return what is observed once it is as wanted; Prometheus scrapes at its own pace."""
        found = ()
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    found = await observe(self.server, subject)
                    if check(*(item.reading for item in found)):
                        return found
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"still {found}") from None


@pytest.fixture(scope="session")
def _scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pages, str]]:
    targets = {
        f"/{workers.pool}/{pod}{again}": {
            "cluster": workers.cluster, "namespace": workers.namespace, "prfaas_pool": workers.pool,
            "prfaas_role": workers.role, "pod": f"{workers.pool}-{pod}",
        }
        for workers in (_workers(number) for number in range(POOLS)) for pod in range(PODS)
        for again in (("", "/again") if workers == _workers(TWICE) else ("",))
    }  # fmt: skip
    with scraping(tmp_path_factory.mktemp("prometheus"), targets) as found:
        yield found


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return iter(range(STEADY + 1, POOLS))


@pytest.fixture
def make_pool(_scraped: tuple[Pages, str], _numbers: Iterator[int], server: Prometheus) -> Callable[[], Pool]:
    """Make pools that no other test has."""
    return lambda: Pool(_scraped[0], server, _workers(next(_numbers)))


@pytest.fixture
def pool(make_pool: Callable[[], Pool]) -> Pool:
    return make_pool()


def _workers(number: int) -> Workers:
    # A link leads from one cluster to the other.
    return Workers("west" if number % 2 else "east", "t", f"p{number}", "prefill" if number % 2 else "decode")


@pytest.fixture
def steady(_scraped: tuple[Pages, str], server: Prometheus) -> Pool:
    """A pool for tests of other things than its data."""
    return Pool(_scraped[0], server, _workers(STEADY))


@pytest.fixture
def twice(_scraped: tuple[Pages, str], server: Prometheus) -> Pool:
    """The pool whose pods a second job scrapes, where it finds something."""
    return Pool(_scraped[0], server, _workers(TWICE))


@pytest.fixture
def server(_scraped: tuple[Pages, str]) -> Iterator[Prometheus]:
    """The Prometheus that scrapes the pools."""
    server = Prometheus(PrometheusFiles(url=_scraped[1], timeout_s=5))
    yield server
    server.close()


class Wire:
    """A server between the operator and a real Prometheus, over HTTP or TLS, which misbehaves as it is told."""

    def __init__(self, upstream: str, certificate: Path | None = None) -> None:
        self._upstream = urlsplit(upstream)
        self._context: ssl.SSLContext | None = None
        self._host = "127.0.0.1"
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.fault: Callable[[BaseHTTPRequestHandler, bytes], None] | None = None
        self.asked = 0
        self.mended = threading.Event()  # ends what a fault is in the middle of
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.show(certificate)
        self.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._context else ''}://{self._host}:{self._port}"

    def show(self, certificate: Path) -> None:
        """Show new connections a certificate, whose key is in the same file."""
        assert self._context is not None
        self._context.load_cert_chain(certificate)

    def start(self) -> None:
        wire = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                wire.asked += 1
                form = self.rfile.read(int(self.headers["Content-Length"]))
                if wire.fault is not None:
                    wire.fault(self, form)
                else:
                    respond(self, *wire.forward(self.path, form))

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def get_request(self) -> Any:
                found, address = super().get_request()
                if wire._context is not None:
                    # The handshake is made by the thread that reads first.
                    found = wire._context.wrap_socket(found, server_side=True, do_handshake_on_connect=False)
                return found, address

            def handle_error(self, *_: object) -> None:
                """Say nothing of clients that hang up."""

        self._server = server = Server((self._host, self._port), Handler)
        self._port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening, as a server that is down."""
        self.mended.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def break_(self, fault: Callable[[BaseHTTPRequestHandler, bytes], None]) -> None:
        self.mended.clear()
        self.fault = fault

    def mend(self) -> None:
        self.fault = None
        self.mended.set()
        if self._server is None:
            self.start()

    def forward(self, path: str, form: bytes) -> tuple[bytes, int]:
        """Return what the real one answers, and its status."""
        connection = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", path, form, {"Content-Type": "application/x-www-form-urlencoded"})
            answer = connection.getresponse()
            return answer.read(), answer.status


def respond(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def make_wire(_scraped: tuple[Pages, str]) -> Iterator[Callable[..., Wire]]:
    """Put servers before the real Prometheus."""
    made: list[Wire] = []

    def make(certificate: Path | None = None) -> Wire:
        made.append(Wire(_scraped[1], certificate))
        return made[-1]

    yield make
    for wire in made:
        wire.stop()
