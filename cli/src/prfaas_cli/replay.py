"""Replay a trace against a router and record what came of each request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import httpx
import orjson

from prfaas_cli.trace import TraceRequest

_DATA = b"data: "
_DONE = b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one request.

    Attributes:
        index: position in the trace.
        sent_s, ttft_s, total_s: when it was sent after the start of the replay, and how long the first token and the
            whole answer took; seconds. `ttft_s` is None when no token came.
        status: HTTP status, 0 when there was no answer.
        error: why it failed; empty when it did not.
        destination, reason: the router's decision, from the answer's headers; empty when there was none.
        prompt_tokens, output_tokens: from the answer's `usage`.
        cached_tokens: prompt tokens that the worker which prefilled found in its cache; the router's header says so.
    """

    index: int
    sent_s: float
    ttft_s: float | None
    total_s: float
    status: int
    error: str
    destination: str
    reason: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


async def replay(
    requests: Sequence[TraceRequest],
    url: str,
    model: str,
    speed: float,
    timeout_s: float,
    on_outcome: Callable[[Outcome], None],
) -> list[Outcome]:
    """Send each request when the trace says, `speed` times faster, and return the outcomes in trace order.

    Arrivals are open-loop: a slow answer does not hold back the next request. `on_outcome` is called as each ends.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(
        base_url=url, timeout=httpx.Timeout(timeout_s), limits=limits, trust_env=False
    ) as client:
        started_s = time.monotonic()
        first_arrival_s = requests[0].arrival_s

        async def one(index: int, request: TraceRequest) -> Outcome:
            outcome = await _send(client, index, request, model, started_s)
            on_outcome(outcome)
            return outcome

        async with asyncio.TaskGroup() as group:
            tasks = []
            for index, request in enumerate(requests):
                due_s = started_s + (request.arrival_s - first_arrival_s) / speed
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                tasks.append(group.create_task(one(index, request)))
        return [task.result() for task in tasks]


async def _send(client: httpx.AsyncClient, index: int, request: TraceRequest, model: str, started_s: float) -> Outcome:
    body = orjson.dumps(
        {
            "model": model,
            "prompt": request.prompt(),
            "max_tokens": request.output_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    sent_s = time.monotonic()
    status, error, destination, reason = 0, "", "", ""
    ttft_s: float | None = None
    cached_tokens = 0
    usage: dict[str, object] = {}
    done = False
    try:
        async with client.stream(
            "POST", "/v1/completions", content=body, headers={"content-type": "application/json"}
        ) as response:
            status = response.status_code
            destination = response.headers.get("x-prfaas-decision", "")
            reason = response.headers.get("x-prfaas-reason", "")
            cached_tokens = int(response.headers.get("x-prfaas-cached-tokens", "0"))
            if status != httpx.codes.OK:
                error = f"HTTP {status}: {(await response.aread())[:300].decode(errors='replace')}"
            else:
                async for line in _lines(response):
                    if line == _DONE:
                        done = True
                    elif line.startswith(_DATA):
                        event = orjson.loads(line[len(_DATA) :])
                        if "error" in event:
                            error = f"error in the stream: {event['error']}"[:300]
                        elif event.get("choices") and ttft_s is None:
                            ttft_s = time.monotonic() - sent_s
                        usage = event.get("usage") or usage
                if not done and not error:
                    error = "the stream ended before [DONE]"
    except (httpx.HTTPError, orjson.JSONDecodeError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Outcome(
        index=index,
        sent_s=sent_s - started_s,
        ttft_s=ttft_s,
        total_s=time.monotonic() - sent_s,
        status=status,
        error=error,
        destination=destination,
        reason=reason,
        prompt_tokens=_whole(usage.get("prompt_tokens")),
        cached_tokens=cached_tokens,
        output_tokens=_whole(usage.get("completion_tokens")),
    )


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the non-empty lines of a stream of server-sent events as bytes."""
    pending = b""
    async for chunk in response.aiter_raw():
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line.rstrip(b"\r")


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
