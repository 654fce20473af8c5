"""The HTTP side of a worker: vLLM's endpoints over an `Engine`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

from aiohttp import web

import prfaas_workers
from prfaas_workers import openai
from prfaas_workers.engine import Engine, KVLoadError, Piece, Start

MAX_BODY_BYTES = 64 << 20
_JSON = "application/json"
# Requests that were sent before anybody knew that the worker goes arrive within this time.
_QUIET_S = 1.0
_LOOK_S = 0.05
# What is left after the drain is cut off; this is for answers that are being written.
_CLOSING_S = 1.0

log = logging.getLogger(__name__)


def application(routes: Routes) -> web.Application:
    """Return the web application of a worker."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/v1/completions", routes.completions)
    app.router.add_post("/v1/chat/completions", routes.chat)
    app.router.add_get("/v1/models", routes.models)
    app.router.add_get("/health", routes.health)
    app.router.add_get("/version", routes.version)
    app.router.add_get("/metrics", routes.metrics)
    return app


async def serve(engine: Engine, host: str, port: int, drain_s: float) -> None:
    """Serve until SIGTERM or SIGINT, and then until there is nothing left to do, for up to `drain_s`.

    Who asks for health hears at once that the worker is on its way out. What is sent to it all the same is served, since it may
    have been on its way before; and the KV on offer stays until it was fetched or its lease is over.
    """
    routes = Routes(engine)
    # A client that goes away cancels its handler, and with it the request.
    runner = web.AppRunner(application(routes), handler_cancellation=True, shutdown_timeout=_CLOSING_S, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await stop.wait()
        log.info("draining: %d requests, KV of %d to be fetched", routes.active, engine.offers)
        routes.draining = True
        drained = await _drained(routes, engine, drain_s)
        log.log(
            logging.INFO if drained else logging.WARNING,
            "stopping: %d requests, KV of %d to be fetched", routes.active, engine.offers,
        )  # fmt: skip
    finally:
        await runner.cleanup()


async def _drained(routes: Routes, engine: Engine, drain_s: float) -> bool:
    """Wait until nothing has been there to do for a moment; return whether that came before the time was up."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + drain_s
    quiet_since_s = loop.time()
    while loop.time() < end_s:
        if routes.active or engine.offers:
            quiet_since_s = loop.time()
        elif loop.time() - quiet_since_s >= _QUIET_S:
            return True
        await asyncio.sleep(_LOOK_S)
    return not (routes.active or engine.offers)


class Routes:
    """What the worker answers.

    Attributes:
        draining: whether the worker is on its way out.
        active: requests that are being served.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.draining = False
        self.active = 0

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def models(self, _: web.Request) -> web.Response:
        model = {
            "id": self._engine.model,
            "object": "model",
            "created": 0,
            "owned_by": "prfaas",
            "max_model_len": self._engine.max_model_len_tokens,
        }
        return web.json_response({"object": "list", "data": [model]})

    async def health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.draining else 200)

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": prfaas_workers.VERSION})

    async def metrics(self, _: web.Request) -> web.Response:
        body = self._engine.metrics.exposition(self._engine.refresh)
        return web.Response(body=body, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        self.active += 1
        try:
            return await self._answer(request, chat=chat)
        finally:
            self.active -= 1

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        try:
            raw = await request.read()
            generation = openai.parse(
                raw,
                chat=chat,
                request_id=request.headers.get("x-request-id") or uuid.uuid4().hex,
                model=self._engine.model,
                max_model_len_tokens=self._engine.max_model_len_tokens,
                bytes_per_token=self._engine.bytes_per_token,
            )
        except openai.RequestError as error:
            return _failure(error)
        pieces = self._engine.generate(generation)
        async with aclosing(pieces):
            return await (
                self._stream(request, generation, pieces) if generation.stream else self._whole(generation, pieces)
            )

    async def _whole(self, generation: openai.Generation, pieces: AsyncIterator[Start | Piece]) -> web.Response:
        cached_tokens, texts, tokens, last = 0, [], 0, Piece("", 0)
        token_ids: list[int] | None = None
        try:
            async for piece in pieces:
                if isinstance(piece, Start):
                    cached_tokens = piece.cached_tokens
                else:
                    texts.append(piece.text)
                    tokens += piece.tokens
                    if piece.token_ids is not None:
                        token_ids = [*(token_ids or ()), *piece.token_ids]
                    last = piece
        except (KVLoadError, openai.RequestError) as error:
            return _failure(error)
        answers = openai.Answers(generation, cached_tokens)
        body = answers.whole("".join(texts), tokens, last.finish_reason or "stop", last.kv_transfer, token_ids)
        return web.Response(body=body, content_type=_JSON)

    async def _stream(
        self, request: web.Request, generation: openai.Generation, pieces: AsyncIterator[Start | Piece]
    ) -> web.StreamResponse:
        # Headers go out with the first token, so that a failure before it is an HTTP error.
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        )
        answers = openai.Answers(generation, 0)
        tokens = 0
        try:
            async for piece in pieces:
                if isinstance(piece, Start):
                    answers = openai.Answers(generation, piece.cached_tokens)
                    continue
                if not response.prepared:
                    await response.prepare(request)
                tokens += piece.tokens
                await response.write(answers.event(piece.text, piece.finish_reason, piece.kv_transfer, piece.token_ids))
            if generation.include_usage:
                await response.write(answers.usage_event(tokens))
            await response.write(openai.DONE)
        except (KVLoadError, openai.RequestError) as error:
            if not response.prepared:
                return _failure(error)
            await response.write(openai.error_event(str(error)))
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response


def _failure(error: KVLoadError | openai.RequestError) -> web.Response:
    failure = error if isinstance(error, openai.RequestError) else openai.RequestError(500, str(error))
    return web.Response(status=failure.status, body=failure.body(), content_type=_JSON)
