"""The OpenAI API as vLLM speaks it: requests in, answers and stream events out. No I/O."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

_MAX_OUTPUT_DEFAULT = 16


class RequestError(Exception):
    """A request that cannot be served; becomes vLLM's error object."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        self.status = status
        self.message = message
        self.param = param
        super().__init__(message)

    def body(self) -> bytes:
        """Return the error object."""
        kind = {400: "BadRequestError", 404: "NotFoundError"}.get(self.status, "InternalServerError")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.status}
        return orjson.dumps({"error": error})


@dataclass(frozen=True, slots=True)
class Generation:
    """One request to generate.

    Attributes:
        request_id: the base of the engine's id, from `X-Request-Id`.
        chat: whether the answer has the form of chat completions.
        token_ids: the prompt as 32-bit token ids.
        kv_transfer: the request's `kv_transfer_params`, or None.
        return_token_ids: whether the answer carries the output's token ids beside its text.
    """

    request_id: str
    model: str
    chat: bool
    token_ids: array[int]
    max_tokens: int
    stream: bool
    include_usage: bool
    seed: int | None
    temperature: float
    kv_transfer: dict[str, Any] | None
    return_token_ids: bool = False


def parse(
    raw: bytes, *, chat: bool, request_id: str, model: str, max_model_len_tokens: int, bytes_per_token: float
) -> Generation:
    """Read the body of a completion request.

    Text has no tokenizer here: one token stands for `bytes_per_token` bytes of UTF-8, whose value is taken from them.

    Raises:
        RequestError: with the status, the message and the parameter that vLLM's clients know.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError(400, "the body is not a JSON object")
    if body.get("model") not in (None, model):
        raise RequestError(404, f"The model `{body['model']}` does not exist.", "model")
    token_ids = _chat_prompt(body, bytes_per_token) if chat else _prompt(body, bytes_per_token)
    if not token_ids:
        raise RequestError(400, "the prompt is empty", "messages" if chat else "prompt")
    max_tokens = body.get("max_completion_tokens") if chat else None
    if max_tokens is None:
        max_tokens = body.get("max_tokens")
    if max_tokens is None:
        max_tokens = min(_MAX_OUTPUT_DEFAULT, max_model_len_tokens - len(token_ids))
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise RequestError(400, f"max_tokens must be at least 1, got {max_tokens!r}.", "max_tokens")
    if len(token_ids) + max_tokens > max_model_len_tokens:
        raise RequestError(
            400,
            f"This model's maximum context length is {max_model_len_tokens} tokens. However, you requested "
            f"{max_tokens} output tokens and your prompt contains {len(token_ids)} input tokens.",
            "max_tokens",
        )
    transfer = body.get("kv_transfer_params")
    if transfer is not None and not isinstance(transfer, dict):
        raise RequestError(400, "kv_transfer_params must be an object", "kv_transfer_params")
    options = body.get("stream_options") or {}
    seed, temperature = body.get("seed"), body.get("temperature")
    return Generation(
        request_id=request_id,
        model=model,
        chat=chat,
        token_ids=token_ids,
        max_tokens=max_tokens,
        stream=body.get("stream") is True,
        include_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
        seed=seed if isinstance(seed, int) else None,
        temperature=float(temperature) if isinstance(temperature, int | float) else 0.0,
        kv_transfer=transfer,
        return_token_ids=body.get("return_token_ids") is True,
    )


def text_tokens(text: str, bytes_per_token: float) -> array[int]:
    """Return the stand-in token ids of a text."""
    content = text.encode()
    if bytes_per_token == 1:
        # An array made of bytes themselves takes four at a time.
        return array("I", list(content))
    step = max(1, round(bytes_per_token))
    return array("I", (int.from_bytes(content[at : at + step][:4], "little") for at in range(0, len(content), step)))


class Answers:
    """Builds the answers to one request.

    Args:
        request: what is answered.
        cached_tokens: prompt tokens whose KV was not computed here.
    """

    def __init__(self, request: Generation, cached_tokens: int) -> None:
        self._request = request
        self._cached_tokens = cached_tokens
        self._id = ("chatcmpl-" if request.chat else "cmpl-") + request.request_id
        self._created = int(time.time())

    def usage(self, output_tokens: int) -> dict[str, Any]:
        """Return the `usage` object."""
        prompt = len(self._request.token_ids)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output_tokens,
            "total_tokens": prompt + output_tokens,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens},
        }

    def whole(
        self,
        text: str,
        output_tokens: int,
        finish_reason: str,
        transfer: dict[str, Any] | None,
        token_ids: Sequence[int] | None = None,
    ) -> bytes:
        """Return the answer to a request that does not stream."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if self._request.chat else {"text": text}
        choice |= self._ids(token_ids)
        return orjson.dumps(
            self._head("chat.completion" if self._request.chat else "text_completion")
            | {"choices": [choice], "usage": self.usage(output_tokens), "kv_transfer_params": transfer}
        )

    def event(
        self,
        text: str,
        finish_reason: str | None,
        transfer: dict[str, Any] | None = None,
        token_ids: Sequence[int] | None = None,
    ) -> bytes:
        """Return one event of a stream; the final one carries the finish reason and the transfer parameters."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        choice |= {"delta": {"content": text}} if self._request.chat else {"text": text}
        choice |= self._ids(token_ids)
        chunk = self._head("chat.completion.chunk" if self._request.chat else "text_completion") | {"choices": [choice]}
        if transfer is not None:
            chunk["kv_transfer_params"] = transfer
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    def usage_event(self, output_tokens: int) -> bytes:
        """Return the event that only has the usage."""
        head = self._head("chat.completion.chunk" if self._request.chat else "text_completion")
        return b"data: " + orjson.dumps(head | {"choices": [], "usage": self.usage(output_tokens)}) + b"\n\n"

    def _ids(self, token_ids: Sequence[int] | None) -> dict[str, Any]:
        return {"token_ids": list(token_ids)} if self._request.return_token_ids and token_ids is not None else {}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._request.model}


DONE = b"data: [DONE]\n\n"


def error_event(message: str) -> bytes:
    """Return the event that ends a stream whose headers are out."""
    return b"data: " + RequestError(500, message).body() + b"\n\n"


def _prompt(body: Mapping[str, Any], bytes_per_token: float) -> array[int]:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return text_tokens(prompt, bytes_per_token)
    if isinstance(prompt, list) and prompt:
        try:
            return array("I", prompt)
        except (TypeError, OverflowError) as error:
            raise RequestError(
                400, "prompt must be a text or a list of token ids from 0 to 4294967295", "prompt"
            ) from error
    raise RequestError(400, "prompt must be a text or a list of token ids that is not empty", "prompt")


def _chat_prompt(body: Mapping[str, Any], bytes_per_token: float) -> array[int]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages must be a list that is not empty", "messages")
    parts = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RequestError(400, "each message must be an object with a role", "messages")
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
        if not isinstance(content, str):
            raise RequestError(400, "a message's content must be a text or a list of parts", "messages")
        parts.append(f"<|{message['role']}|>{content}")
    return text_tokens("".join(parts) + "<|assistant|>", bytes_per_token)
