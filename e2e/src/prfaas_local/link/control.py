"""The HTTP API that shows and changes a link while it runs.

`GET /state` and `PUT /state` speak `{"capacityBps", "delaySeconds", "fault"}`; fields that a PUT leaves out stay as they
are, and its answer comes when the change is in effect. `GET /endpoints` lists what is listened on, `GET /ready` is 200 when that is what the pods ask for, and
`GET /metrics` is for Prometheus.
"""

from __future__ import annotations

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from prfaas_local.link.link import Link
from prfaas_local.link.listeners import Listeners
from prfaas_local.link.metrics import registry
from prfaas_local.link.state import StateError
from prfaas_local.listening import Address

_BODY_BYTES = 16 * 1024


def application(link: Link, listeners: Listeners) -> web.Application:
    """Return the web application of a link."""
    control = _Control(link, listeners)
    app = web.Application(client_max_size=_BODY_BYTES)
    app.router.add_get("/state", control.show)
    app.router.add_put("/state", control.change)
    app.router.add_get("/endpoints", control.endpoints)
    app.router.add_get("/ready", control.ready)
    app.router.add_get("/metrics", control.metrics)
    return app


class _Control:
    def __init__(self, link: Link, listeners: Listeners) -> None:
        self._link = link
        self._listeners = listeners
        self._registry = registry(link)

    async def show(self, _: web.Request) -> web.Response:
        return _json(self._link.state.document())

    async def change(self, request: web.Request) -> web.Response:
        try:
            state = self._link.state.changed(orjson.loads(await request.read()))
        except orjson.JSONDecodeError as error:
            return _json({"error": f"the body is not JSON: {error}; send an object such as {_EXAMPLE}"}, status=400)
        except StateError as error:
            return _json({"error": str(error)}, status=400)
        self._link.configure(state)
        await self._listeners.refresh()
        return _json(state.document())

    async def endpoints(self, _: web.Request) -> web.Response:
        pairs = sorted(self._listeners.open.items())
        return _json({"endpoints": [{"listen": _text(listen), "target": _text(target)} for listen, target in pairs]})

    async def ready(self, _: web.Request) -> web.Response:
        return (
            web.Response() if self._listeners.synced else web.Response(status=503, text="the pods are not known yet\n")
        )

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


_EXAMPLE = '{"capacityBps": 8e8, "delaySeconds": 0.02, "fault": "none"}'


def _json(document: dict[str, object], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
