"""The operator's HTTP server: `/healthz` for the kubelet, `/metrics` for Prometheus."""

from collections.abc import Callable

from aiohttp import web

from prfaas_operator.metrics import Metrics


class StatusServer:
    """Serves from before the Lease is acquired until the end; `fault` says what is wrong, or nothing."""

    def __init__(self, metrics: Metrics, fault: Callable[[], str | None], *, host: str, port: int) -> None:
        self._metrics = metrics
        self._fault = fault
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application()
        application.add_routes([web.get("/healthz", self._health), web.get("/metrics", self._exposition)])
        self._runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        # That this is answered at all shows that the event loop is alive.
        fault = self._fault()
        return web.Response(status=200 if fault is None else 503, text=(fault or "ok") + "\n")

    async def _exposition(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )
