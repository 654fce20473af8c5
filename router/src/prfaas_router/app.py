"""The router's HTTP endpoints."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from contextlib import AsyncExitStack
from typing import Any

import orjson
import structlog

from prfaas_core.routing import Decision, NoDecodeWorkerError
from prfaas_core.traffic import TrafficWindow
from prfaas_protocol import configuration_pb2 as pb
from prfaas_router import openai, preparation
from prfaas_router.admission import Admission, Gate
from prfaas_router.configuration import Configuration
from prfaas_router.fleet import Fleet
from prfaas_router.forwarding import Forwarder, Outcome
from prfaas_router.http.client import Client, UpstreamError
from prfaas_router.http.server import Request, Responder
from prfaas_router.metrics import Metrics
from prfaas_router.openai import APIError

log = structlog.get_logger()

_JSON = ("content-type", "application/json")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens": ?([0-9]{1,9})')
# The usage of an answer is among its last bytes; nothing else of it is looked at.
_USAGE_BYTES = 4096
# Of each digest in the log: enough to tell the blocks of a day apart. Whoever can guess a prompt can check the guess against it.
_LOGGED_DIGEST_BYTES = 4
_PATHS = {
    "/v1/completions": "POST",
    "/v1/chat/completions": "POST",
    "/v1/models": "GET",
    "/health": "GET",
    "/ready": "GET",
    "/metrics": "GET",
}


class Router:
    """Serves one route. `configure` gives it what to serve; before that it answers 503."""

    def __init__(self, route: str, fleet: Fleet, metrics: Metrics) -> None:
        self._route = route
        self._fleet = fleet
        self._metrics = metrics
        self._client = Client()
        self._forwarder = Forwarder(fleet, self._client, metrics)
        self._window = TrafficWindow(time.monotonic())
        self.gate = Gate(route, fleet, metrics)

    def configure(self, configuration: Configuration) -> None:
        """Serve by a new configuration from the next request on; requests in flight keep theirs."""
        self._fleet.configure(configuration)
        self._client.retain(endpoint.address for pool in configuration.pools() for endpoint in pool.endpoints.values())
        self._metrics.version.set(configuration.version)
        self._metrics.threshold.set(configuration.threshold_tokens)
        self.gate.configure(configuration)

    def traffic(self) -> pb.Traffic:
        """Return the uncached lengths of recent requests."""
        return pb.Traffic(
            uncached_lengths=[
                pb.LengthBucket(index=bucket.index, count=bucket.count, tokens=bucket.tokens)
                for bucket in self._window.buckets(time.monotonic())
            ]
        )

    def links(self) -> pb.Links:
        """Return what the transfers of KV say about the links that they cross."""
        return pb.Links(
            links=[
                pb.LinkUse(
                    name=name,
                    moved_bits=report.moved_bits,
                    moving_s=report.moving_s,
                    busy_s=report.busy_s,
                    seen_s=report.seen_s,
                    transfers=report.transfers,
                    age_s=report.age_s,
                )
                for name, report in self._fleet.links()
            ]
        )

    def decide(self, admission: Admission) -> Decision:
        """Return where a request goes, and count it as traffic and as demand.

        Raises:
            NoDecodeWorkerError: no decode worker is usable.
        """
        decision = self._fleet.decide(admission.prepared, admission.configuration)
        if admission.prepared.ineligible is None:
            # The others have no choice, so they are no part of what the threshold divides.
            self._window.record(decision.uncached_tokens, time.monotonic())
        self.gate.decided(admission, decision)
        return decision

    async def handle(self, request: Request, responder: Responder) -> None:
        """Answer one HTTP request."""
        wanted = _PATHS.get(request.path)
        try:
            if wanted is None:
                raise APIError(404, f"{request.path[:200]} is not served; see /v1/models for what is", code="not_found")
            if request.method != wanted and (request.method, wanted) != ("HEAD", "GET"):
                raise APIError(405, f"{request.method} is not allowed here; use {wanted}", code="method_not_allowed")
            if wanted == "POST":
                await self._complete(request, responder)
            else:
                self._get(request, responder)
        except APIError as error:
            self._metrics.refused(error.status)
            if responder.started:
                raise
            headers = [("allow", wanted)] if error.status == 405 and wanted else []
            responder.send_error(error, headers)

    def close(self) -> None:
        """Drop idle connections to workers."""
        self._client.close()

    def _get(self, request: Request, responder: Responder) -> None:
        if request.path == "/health":
            responder.send(200, [_JSON], b"{}")
        elif request.path == "/ready":
            ready = self.gate.ready
            responder.send(200 if ready else 503, [_JSON], orjson.dumps({"ready": ready}))
        elif request.path == "/metrics":
            for pool, count in self._fleet.in_flight():
                self._metrics.in_flight(pool, count)
            responder.send(
                200, [("content-type", "text/plain; version=0.0.4; charset=utf-8")], self._metrics.exposition()
            )
        else:
            configuration = self.gate.current()
            model = {
                "id": configuration.model,
                "object": "model",
                "created": 0,
                "owned_by": "prfaas",
                "max_model_len": configuration.max_model_len_tokens,
            }
            responder.send(200, [_JSON], orjson.dumps({"object": "list", "data": [model]}))

    async def _complete(self, request: Request, responder: Responder) -> None:
        started_s = asyncio.get_running_loop().time()
        request_id = request.headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        body, chat = preparation.parse(request.body), request.path == "/v1/chat/completions"
        admission = await self.gate.admit(body, chat=chat)
        while True:
            try:
                return await self._forward(request.path, responder, request_id, started_s, admission)
            except NoDecodeWorkerError as error:
                if not self.gate.emptied(admission):
                    raise APIError(503, str(error), code="no_decode_worker") from error
            # The pool lost its last worker in the meantime, and nothing has reached the client yet.
            admission = await self.gate.admit(body, chat=chat, waited_s=admission.waited_s)

    async def _forward(
        self, path: str, responder: Responder, request_id: str, started_s: float, admission: Admission
    ) -> None:
        """Decide on a request, and answer it.

        Raises:
            NoDecodeWorkerError: no decode worker could be asked; the client has seen nothing.
            APIError: the decode worker failed before anything was sent to the client.
        """
        loop = asyncio.get_running_loop()
        configuration, prepared = admission.configuration, admission.prepared
        decision = self.decide(admission)
        outcome = Outcome(decision.destination, decision.reason, decision.prefill_pool, decision.prefill_worker)
        ended: str | None = "cancelled"
        ttft_s: float | None = None
        tail = b""
        try:
            async with AsyncExitStack() as stack:
                answer, chunks, outcome = await self._forwarder.open(
                    stack, configuration, prepared, decision, path, request_id
                )
                ttft_s = loop.time() - started_s
                headers = [
                    ("content-type", answer.headers.get("content-type", "application/json")),
                    *_decision_headers(outcome, admission, request_id),
                ]
                ended = "ok" if answer.status < 400 else "refused" if answer.status < 500 else "failed"
                length = answer.headers.get("content-length")
                if length is not None and "transfer-encoding" not in answer.headers:
                    body = b"".join([chunk async for chunk in chunks])
                    tail = body[-_USAGE_BYTES:]
                    responder.send(answer.status, headers, body)
                else:
                    tail = await self._relay(responder, answer.status, headers, chunks)
        except NoDecodeWorkerError:
            # One that goes back to wait has not ended.
            ended = None if self.gate.emptied(admission) else "failed"
            raise
        except UpstreamError as error:
            ended = "failed"
            if not responder.started:
                raise APIError(502, f"the decode worker failed: {error}", code="upstream_failed") from error
            await responder.write(openai.stream_error(f"the decode worker failed: {error}"))
            responder.finish()
        except APIError:
            ended = "failed"
            raise
        except asyncio.CancelledError:
            ended = "cancelled"
            raise
        finally:
            if ended is not None:
                total_s = loop.time() - started_s
                self._record(request_id, admission, decision, outcome, ended, ttft_s, total_s, tail)

    async def _relay(self, responder: Responder, status: int, headers: list[tuple[str, str]], chunks: Any) -> bytes:
        """Pass an answer on; return its last bytes."""
        tail = b""
        responder.start(status, headers)
        async for chunk in chunks:
            tail = (tail + chunk)[-_USAGE_BYTES:]
            await responder.write(chunk)
        responder.finish()
        return tail

    def _record(
        self,
        request_id: str,
        admission: Admission,
        decision: Decision,
        outcome: Outcome,
        ended: str,
        ttft_s: float | None,
        total_s: float,
        tail: bytes,
    ) -> None:
        configuration, prepared = admission.configuration, admission.prepared
        self._metrics.request(outcome.destination, outcome.reason, ended)
        if ttft_s is not None and ended == "ok":
            self._metrics.ttft(outcome.destination, ttft_s)
        if decision.regret_s is not None:
            self._metrics.regret(decision.regret_s)
        if outcome.prefill_cached_tokens is not None:
            self._metrics.prompt(
                outcome.prefill_cached_tokens, max(0, prepared.total_tokens - outcome.prefill_cached_tokens)
            )
        log.info(
            "request",
            request_id=request_id,
            route=self._route,
            destination=outcome.destination,
            reason=outcome.reason,
            outcome=ended,
            prefill_pool=outcome.prefill_pool,
            prefill_worker=outcome.prefill_worker,
            decode_worker=outcome.decode_worker,
            prompt_tokens=prepared.total_tokens,
            cached_tokens=outcome.prefill_cached_tokens,
            uncached_tokens=decision.uncached_tokens,
            output_tokens=_completion_tokens(tail),
            max_tokens=prepared.max_tokens,
            stream=prepared.stream,
            block_tokens=configuration.block_tokens,
            blocks=b"".join(digest[:_LOGGED_DIGEST_BYTES] for digest in prepared.hashes).hex(),
            configuration_version=configuration.version,
            regret_s=_rounded(decision.regret_s),
            waited_s=_rounded(admission.waited_s),
            prefill_s=_rounded(outcome.prefill_s),
            ttft_s=_rounded(ttft_s),
            total_s=_rounded(total_s),
        )


def _decision_headers(outcome: Outcome, admission: Admission, request_id: str) -> list[tuple[str, str]]:
    headers = [
        ("x-request-id", request_id),
        ("x-prfaas-decision", outcome.destination.value),
        ("x-prfaas-reason", outcome.reason.value),
        ("x-prfaas-config-version", str(admission.configuration.version)),
    ]
    if admission.waited_s:
        headers.append(("x-prfaas-waited-s", f"{admission.waited_s:.3f}"))
    if outcome.prefill_pool is not None:
        headers.append(("x-prfaas-prefill-pool", outcome.prefill_pool))
    if outcome.prefill_cached_tokens is not None:
        headers.append(("x-prfaas-cached-tokens", str(outcome.prefill_cached_tokens)))
    return headers


def _completion_tokens(tail: bytes) -> int | None:
    """Return how long an answer is by its usage; None when it has none."""
    found = _COMPLETION_TOKENS.findall(tail)
    return int(found[-1]) if found else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
