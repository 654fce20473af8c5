"""The HTTPS server of the external metrics API: who may speak to it, and with which certificate, is read again and again."""

import asyncio
import ssl
from pathlib import Path

import structlog
from aiohttp import web

from prfaas_operator.actuators import external_metrics, front_proxy
from prfaas_operator.actuators.front_proxy import FrontProxy, FrontProxyError
from prfaas_operator.actuators.pool_metrics import PoolMetrics
from prfaas_operator.clusters.api import ApiError, ClusterApi

_log = structlog.get_logger(__name__)

_LOOK_S = 30.0
_AGAIN_S = 5.0


class MetricsServer:
    """Serves the API server of the hub, once that has said how it identifies itself."""

    def __init__(self, hub: ClusterApi, metrics: PoolMetrics, tls_dir: Path, *, host: str, port: int) -> None:
        self._hub = hub
        self._metrics = metrics
        self._tls_dir = tls_dir
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._served: tuple[FrontProxy, bytes] | None = None

    async def run(self) -> None:
        """Serve until cancelled. Another authority or certificate takes the place of the old one."""
        told = ""
        try:
            while True:
                try:
                    await self._refresh()
                except (ApiError, FrontProxyError, OSError, ssl.SSLError) as error:
                    if told != str(error):
                        told = str(error)
                        _log.error("external metrics are not served as they should be", error=told)
                    await asyncio.sleep(_AGAIN_S)
                else:
                    told = ""
                    await asyncio.sleep(_LOOK_S)
        finally:
            await self._stop()

    async def _refresh(self) -> None:
        wanted = await front_proxy.read(self._hub), await asyncio.to_thread(self._certificate)
        if wanted == self._served:
            return
        context = self._context(wanted[0])
        await self._stop()
        runner = web.AppRunner(
            external_metrics.application(self._metrics, wanted[0]),
            handle_signals=False, access_log=None, shutdown_timeout=1,
        )  # fmt: skip
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, self._host, self._port, ssl_context=context).start()
        self._served = wanted
        _log.info("serving external metrics", host=self._host, port=self._port)

    async def _stop(self) -> None:
        runner, self._runner, self._served = self._runner, None, None
        if runner is not None:
            await runner.cleanup()

    def _certificate(self) -> bytes:
        return (self._tls_dir / "tls.crt").read_bytes()

    def _context(self, proxy: FrontProxy) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._tls_dir / "tls.crt", self._tls_dir / "tls.key")
        context.load_verify_locations(cadata=proxy.ca_pem)
        # A client without a certificate is told what is missing; one of another authority is refused by TLS.
        context.verify_mode = ssl.CERT_OPTIONAL
        return context
