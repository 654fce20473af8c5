"""The way of one request: decide, prefill, decode, and what happens when a leg fails.

The order of resort is remote prefill, local prefill, the decode worker by itself; each step down has a reason of its own.
Transfer parameters are spent as soon as a decode worker has answered anything at all, because it may have read or freed
the KV: then the only way on is a plain request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from prfaas_core import routing
from prfaas_core.routing import Decision, Destination, NoDecodeWorkerError, Reason
from prfaas_router import handshake
from prfaas_router.accounts import LocalTransfer, Transfer
from prfaas_router.configuration import Configuration, Endpoint, Pool
from prfaas_router.fleet import Fleet
from prfaas_router.http.client import Answer, Client, UpstreamError
from prfaas_router.metrics import Metrics
from prfaas_router.openai import APIError
from prfaas_router.preparation import Prepared


@dataclass(slots=True)
class Outcome:
    """How a request went; filled while it goes.

    Attributes:
        prefill_cached_tokens: as the prefill worker counted them; None when it did not say.
    """

    destination: Destination
    reason: Reason
    prefill_pool: str | None = None
    prefill_worker: str | None = None
    decode_worker: str | None = None
    prefill_cached_tokens: int | None = None
    prefill_s: float | None = None


@dataclass(slots=True)
class _Handover:
    """A prefill that was done, or is on its way in push mode."""

    params: dict[str, Any]
    push_leg: asyncio.Task[None] | None = None
    transfer: Transfer | LocalTransfer | None = None


class _PrefillFailed(Exception):  # noqa: N818 - a signal inside this module
    """The prefill leg failed; the way on is the next resort."""


class _PushFailed(Exception):  # noqa: N818 - a signal inside this module
    """The prefill leg failed while decode waited for what it pushes."""


_PREFILL_FAILED = {
    Destination.REMOTE_PREFILL: Reason.REMOTE_PREFILL_FAILED_DECODE,
    Destination.LOCAL_PREFILL: Reason.LOCAL_PREFILL_FAILED,
}


class Forwarder:
    """Carries requests to workers."""

    def __init__(self, fleet: Fleet, client: Client, metrics: Metrics) -> None:
        self._fleet = fleet
        self._client = client
        self._metrics = metrics

    async def open(
        self,
        stack: AsyncExitStack,
        configuration: Configuration,
        prepared: Prepared,
        decision: Decision,
        path: str,
        request_id: str,
    ) -> tuple[Answer, AsyncGenerator[bytes, None], Outcome]:
        """Run the legs until the decode worker's answer begins; return it, its body, and how it came about.

        `stack` owns what is open; leaving it cancels the legs that still run.

        Raises:
            NoDecodeWorkerError: no decode worker could be asked, so that the request is as it was before.
            APIError: a decode worker failed.
        """
        outcome = Outcome(decision.destination, decision.reason, decision.prefill_pool, decision.prefill_worker)
        # The decode worker counts from the decision on, or everything that prefills meanwhile would choose the same one.
        with self._fleet.busy(configuration.decode.name, decision.decode_worker):
            handover = await self._prefill(stack, configuration, prepared, decision, outcome, path, request_id)
        excluded: set[str] = set()
        while True:
            worker = self._decode_worker(configuration, prepared, decision, frozenset(excluded))
            endpoint = self._fleet.endpoint(configuration.decode, worker)
            outcome.decode_worker = worker
            try:
                answer, body = await self._decode(stack, configuration, prepared, endpoint, handover, path, request_id)
                if handover is not None and handover.transfer is not None:
                    handover.transfer.end(self._fleet.now_s(), moved=answer.status < 400)
            except _PushFailed:
                _give_up(handover, outcome, _PREFILL_FAILED[outcome.destination])
                handover = None
                continue
            except UpstreamError as error:
                self._fleet.failed(configuration.decode.name, worker)
                self._metrics.failure(configuration.decode.name, "decode")
                excluded.add(worker)
                if handover is None and error.sent:
                    raise APIError(502, f"the decode worker failed: {error}", code="upstream_failed") from error
                if handover is not None and (error.sent or handover.push_leg is not None):
                    _give_up(handover, outcome, Reason.KV_TRANSFER_FAILED)
                    handover = None
                continue
            if answer.status >= 500 and handover is not None:
                answer.release()
                self._metrics.failure(configuration.decode.name, "kv_transfer")
                _give_up(handover, outcome, Reason.KV_TRANSFER_FAILED)
                handover = None
                continue
            if answer.status < 400:
                self._fleet.succeeded(configuration.decode.name, worker, prepared.hashes)
            return answer, body, outcome

    def _decode_worker(
        self, configuration: Configuration, prepared: Prepared, decision: Decision, tried: frozenset[str]
    ) -> str:
        """Return the decode worker that was decided on, or another one when that was tried, or left while prefill ran."""
        decided = decision.decode_worker
        if decided not in tried and self._fleet.serves(configuration.decode, decided):
            return decided
        chosen = routing.choose_worker(self._fleet.decode_view(configuration, prepared.hashes, tried), exclude=tried)
        if chosen is not None:
            return chosen.name
        if decided in tried:
            raise NoDecodeWorkerError("no decode worker can be reached; try again")
        # It leaves, and was given this request before that.
        return decided

    async def _decode(
        self,
        stack: AsyncExitStack,
        configuration: Configuration,
        prepared: Prepared,
        endpoint: Endpoint,
        handover: _Handover | None,
        path: str,
        request_id: str,
    ) -> tuple[Answer, AsyncGenerator[bytes, None]]:
        body = orjson.dumps(handshake.decode_body(prepared.body, handover.params if handover else None))
        fleet, decode = self._fleet, configuration.decode
        busy = AsyncExitStack()
        async with busy:
            busy.enter_context(fleet.busy(decode.name, endpoint.name))
            fetches = handover is not None and handover.push_leg is None
            if fetches:
                busy.enter_context(fleet.decoding(decode.name, endpoint.name))
            absorbed = fleet.absorbs(decode, endpoint.name, prepared) if handover is None else _nothing
            busy.callback(absorbed)
            send = self._client.post(
                endpoint.address, path, [("x-request-id", request_id)], body, configuration.connect_timeout_s
            )
            answer = await (send if handover is None or handover.push_leg is None else _unless(send, handover.push_leg))
            busy.push_async_exit(answer)
            absorbed()
            if not fetches:
                busy.enter_context(fleet.decoding(decode.name, endpoint.name))
            chunks = await busy.enter_async_context(aclosing(answer.chunks()))
            stack.push_async_exit(busy.pop_all())
        return answer, chunks

    async def _prefill(
        self,
        stack: AsyncExitStack,
        configuration: Configuration,
        prepared: Prepared,
        decision: Decision,
        outcome: Outcome,
        path: str,
        request_id: str,
    ) -> _Handover | None:
        """Run or start the prefill leg, with the local pool as the second resort; None: decode prefills."""
        if decision.prefill_pool is None or decision.prefill_worker is None:
            return None
        pool = next(pool for pool in configuration.pools() if pool.name == decision.prefill_pool)
        try:
            return await self._prefill_at(
                stack, configuration, prepared, pool, decision.prefill_worker, outcome, path, request_id
            )
        except _PrefillFailed:
            pass
        local = configuration.local_prefill
        if outcome.destination is Destination.REMOTE_PREFILL and local is not None:
            chosen = routing.choose_worker(self._fleet.view(local, prepared.hashes))
            if chosen is not None:
                outcome.destination, outcome.reason = Destination.LOCAL_PREFILL, Reason.REMOTE_PREFILL_FAILED
                outcome.prefill_pool, outcome.prefill_worker = local.name, chosen.name
                with contextlib.suppress(_PrefillFailed):
                    return await self._prefill_at(
                        stack, configuration, prepared, local, chosen.name, outcome, path, request_id
                    )
        outcome.reason = _PREFILL_FAILED[decision.destination]
        outcome.destination, outcome.prefill_pool, outcome.prefill_worker = Destination.DECODE, None, None
        return None

    async def _prefill_at(
        self,
        stack: AsyncExitStack,
        configuration: Configuration,
        prepared: Prepared,
        pool: Pool,
        worker: str,
        outcome: Outcome,
        path: str,
        request_id: str,
    ) -> _Handover | None:
        endpoint = self._fleet.endpoint(pool, worker)
        transfer = self._fleet.transfer(pool, prepared)
        if transfer is not None:
            stack.callback(lambda: transfer.end(self._fleet.now_s(), moved=False))

        async def leg() -> dict[str, Any]:
            started_s = asyncio.get_running_loop().time()
            answer = await self._prefill_leg(configuration, prepared, pool, endpoint, transfer, path, request_id)
            outcome.prefill_s = asyncio.get_running_loop().time() - started_s
            self._metrics.prefill(outcome.destination, outcome.prefill_s)
            usage = answer.get("usage")
            details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
            cached = details.get("cached_tokens") if isinstance(details, dict) else None
            outcome.prefill_cached_tokens = cached if isinstance(cached, int) else None
            return answer

        if pool.push:
            task = asyncio.get_running_loop().create_task(_discard(leg()))
            stack.push_async_callback(_cancelled, task)
            return _Handover(handshake.announced(endpoint, request_id), task, transfer)
        params = handshake.offered(await leg(), endpoint)
        if params is None:
            outcome.destination, outcome.reason = Destination.DECODE, Reason.KV_NOT_OFFERED
            return None
        return _Handover(params, None, transfer)

    async def _prefill_leg(
        self,
        configuration: Configuration,
        prepared: Prepared,
        pool: Pool,
        endpoint: Endpoint,
        transfer: Transfer | LocalTransfer | None,
        path: str,
        request_id: str,
    ) -> dict[str, Any]:
        body = orjson.dumps(handshake.prefill_body(prepared.body, push=pool.push))
        try:
            async with asyncio.timeout(configuration.prefill_timeout_s):
                with self._fleet.prefilling(pool, endpoint.name, prepared) as expected_s:
                    if transfer is not None:
                        transfer.prefilling(self._fleet.now_s(), expected_s)
                    async with await self._client.post(
                        endpoint.address, path, [("x-request-id", request_id)], body, configuration.connect_timeout_s
                    ) as answer:
                        raw = await answer.read()
                        if answer.status != 200:
                            raise UpstreamError(f"status {answer.status}: {raw[:200]!r}", sent=True)
                        parsed = orjson.loads(raw)
                        if not isinstance(parsed, dict):
                            raise UpstreamError("the answer is not a JSON object", sent=True)
        except (UpstreamError, TimeoutError, orjson.JSONDecodeError) as error:
            if transfer is not None:
                transfer.end(self._fleet.now_s(), moved=False)
            self._fleet.failed(pool.name, endpoint.name)
            self._metrics.failure(pool.name, "prefill")
            raise _PrefillFailed(str(error) or f"no answer within {configuration.prefill_timeout_s:g} s") from error
        if transfer is not None:
            transfer.prefilled(self._fleet.now_s())
        self._fleet.succeeded(pool.name, endpoint.name, prepared.hashes)
        return parsed


def _nothing() -> None:
    """Nothing was counted."""


def _give_up(handover: _Handover | None, outcome: Outcome, reason: Reason) -> None:
    """Record that decode has to prefill by itself, and stop a prefill that nobody waits for."""
    if handover is not None and handover.push_leg is not None:
        handover.push_leg.cancel()
    outcome.destination, outcome.reason = Destination.DECODE, reason


async def _discard(leg: Any) -> None:
    await leg


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a leg that still runs, and take note of how it ended."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, _PrefillFailed):
        await task


async def _unless(send: Any, push_leg: asyncio.Task[None]) -> Answer:
    """Wait for the decode leg as long as the prefill leg that feeds it has not failed."""
    decode = asyncio.ensure_future(send)
    try:
        await asyncio.wait({decode, push_leg}, return_when=asyncio.FIRST_COMPLETED)
        if not decode.done() and (push_leg.cancelled() or push_leg.exception() is not None):
            raise _PushFailed
        answer: Answer = await decode
    except BaseException:
        decode.cancel()
        raise
    return answer
