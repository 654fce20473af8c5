"""A real Prometheus for tests: it scrapes pages that the test writes."""

from __future__ import annotations

import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prfaas_local import binaries, prometheus
from prfaas_local.errors import LocalClusterError

_READY_S = 30.0


class Pages(ThreadingHTTPServer):
    """Serves text expositions by path; a path without one is not found, as of a pod that is gone."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.texts: dict[str, Callable[[], bytes]] = {}
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a Prometheus that has hung up."""

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Page(BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        text = self.server.texts.get(self.path)
        if text is None:
            self.send_error(404)
            return
        body = text()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def scraping(
    folder: Path, targets: Mapping[str, Mapping[str, str]], *, interval_s: float = 0.2, web: Path | None = None
) -> Iterator[tuple[Pages, str]]:
    """Start a Prometheus; yield the pages and its URL.

    Args:
        folder: for its files.
        targets: labels of the samples by path of the page.
        interval_s: time between two scrapes of a page.
        web: its `--web.config.file`, with TLS and users.
    """
    pages = Pages()
    jobs = [
        prometheus.StaticJob(path.strip("/").replace("/", "-"), [pages.target], labels, path)
        for path, labels in targets.items()
    ]
    configuration = folder / "prometheus.json"
    configuration.write_text(prometheus.configuration([], pod_labels={}, static=jobs, interval_s=interval_s))
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as probe:
        address = f"127.0.0.1:{probe.server_address[1]}"
    command = [
        str(binaries.find("prometheus")), *prometheus.arguments(configuration, folder / "samples", address),
        *([f"--web.config.file={web}"] if web is not None else []),
    ]  # fmt: skip
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_ready(process, address, log, tls=web is not None)
        yield pages, f"http{'s' if web is not None else ''}://{address}"
    finally:
        process.kill()
        process.wait()
        pages.shutdown()
        pages.server_close()


def _wait_ready(process: subprocess.Popen[bytes], address: str, log: Path, *, tls: bool) -> None:
    end_s = time.monotonic() + _READY_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end_s and process.poll() is None:
        try:
            with opener.open(f"http://{address}/-/ready", timeout=1):
                return
        except urllib.error.HTTPError as error:
            # With TLS, a plain request is answered with 400 as soon as the server listens.
            if tls and error.code == 400:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise LocalClusterError(f"Prometheus is not ready:\n{log.read_text()[-2000:]}")
