"""What the router needs to know of a request, and the body that it may pass on. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from prfaas_core import prefix
from prfaas_core.routing import Reason
from prfaas_router.openai import APIError

STRIPPED_FIELDS = frozenset(
    {
        "kv_transfer_params", "ec_transfer_params", "bootstrap_host", "bootstrap_port", "bootstrap_room",
        "bootstrap_pair_key", "routed_dp_rank", "data_parallel_rank", "disagg_prefill_dp_rank",
    }
)  # fmt: skip
"""Fields that would let a client choose workers or read foreign KV."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that the router can route.

    Attributes:
        body: the client's body without what clients may not set.
        total_tokens: length of the prompt; `estimated` for text, which the router does not tokenise.
        hashes: chained hashes of the prompt's full blocks.
        ineligible: the trait that keeps its prefill on the decode worker, or None.
        max_tokens: how long the answer may be at most, None when the client does not say.
    """

    body: dict[str, Any]
    total_tokens: int
    estimated: bool
    hashes: tuple[bytes, ...]
    ineligible: Reason | None
    stream: bool
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What of the served model matters here."""

    name: str
    max_model_len_tokens: int
    bytes_per_token: float
    block_tokens: int


def parse(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    Raises:
        APIError: 400.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise APIError(400, f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise APIError(400, f"the body is a JSON {_kind(body)}; an object is expected", code="invalid_json")
    return body


def prepare(body: dict[str, Any], *, chat: bool, model: ModelLimits) -> Prepared:
    """Check a request and measure its prompt.

    Raises:
        APIError: 400 or 404, naming the parameter.
    """
    named = body.get("model")
    if not isinstance(named, str):
        raise APIError(400, f"model is a {_kind(named)}; the name of a model is expected", "model")
    if named != model.name:
        raise APIError(
            404,
            f"The model `{named[:200]}` does not exist; this route serves `{model.name}`.",
            "model",
            "model_not_found",
        )
    kept = {key: value for key, value in body.items() if key not in STRIPPED_FIELDS}
    stream = body.get("stream", False)
    if stream is not None and not isinstance(stream, bool):
        raise APIError(400, f"stream is a {_kind(stream)}; true or false is expected", "stream")
    output_tokens = 0
    for field in ("max_tokens", "max_completion_tokens"):
        value = body.get(field)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise APIError(400, f"{field} is {_shown(value)}; a whole number of at least 1 is expected", field)
            output_tokens = value
    content, total_tokens, estimated, not_text = _chat(body, model) if chat else _completion(body, model)
    if not estimated and total_tokens + output_tokens > model.max_model_len_tokens:
        raise APIError(
            400,
            f"This model's maximum context length is {model.max_model_len_tokens} tokens, but {total_tokens} prompt tokens "
            f"and {output_tokens} output tokens were asked for; shorten the prompt or lower max_tokens.",
            "messages" if chat else "prompt",
            "context_length_exceeded",
        )
    salt = body.get("cache_salt")
    salt = salt if isinstance(salt, str) else ""
    if isinstance(content, array):
        hashes = prefix.hash_tokens(content, block_tokens=model.block_tokens, model=model.name, salt=salt)
    else:
        block_bytes = max(1, round(model.block_tokens * model.bytes_per_token))
        hashes = prefix.hash_text(content, block_bytes=block_bytes, model=model.name, salt=salt)
    return Prepared(
        kept, total_tokens, estimated, hashes, not_text or _trait(body), stream is True, output_tokens or None
    )


def _completion(body: Mapping[str, Any], model: ModelLimits) -> tuple[bytes | array[int], int, bool, Reason | None]:
    prompt = body.get("prompt")
    if isinstance(prompt, str) and prompt:
        content = prompt.encode("utf-8", "surrogatepass")
        return content, _estimate(content, model), True, None
    if isinstance(prompt, list) and prompt:
        if isinstance(prompt[0], int):
            try:
                return array("I", prompt), len(prompt), False, None
            except (TypeError, OverflowError) as error:
                bad = next(token for token in prompt if type(token) is not int or not 0 <= token < 2**32)
                raise APIError(
                    400, f"prompt holds {_shown(bad)}; token ids from 0 to 4294967295 are expected", "prompt"
                ) from error
        if all(isinstance(part, str | list) for part in prompt):
            # Several prompts share no single handover; the engine takes the batch apart.
            content = orjson.dumps(prompt)
            return content, _estimate(content, model), True, Reason.PROMPT_BATCH
    raise APIError(
        400, f"prompt is {_shown(prompt)}; a text or a list of token ids that is not empty is expected", "prompt"
    )


def _chat(body: Mapping[str, Any], model: ModelLimits) -> tuple[bytes | array[int], int, bool, Reason | None]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise APIError(400, f"messages is {_shown(messages)}; a list that is not empty is expected", "messages")
    parts: list[str] = []
    not_text = None
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise APIError(
                400, f"messages[{index}] is {_shown(message)}; an object with a role is expected", "messages"
            )
        content = message.get("content")
        parts.append(f"\0{message['role']}\0")
        if isinstance(content, str):
            parts.append(content)
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
                    parts.append(part["text"])
                else:
                    not_text = Reason.NOT_TEXT
        elif content is not None:
            raise APIError(
                400,
                f"messages[{index}].content is a {_kind(content)}; a text or a list of parts is expected",
                "messages",
            )
    joined = "".join(parts).encode("utf-8", "surrogatepass")
    return joined, _estimate(joined, model), True, not_text


def _estimate(content: bytes, model: ModelLimits) -> int:
    return max(1, -(-len(content) // max(1, round(model.bytes_per_token))))


def _trait(body: Mapping[str, Any]) -> Reason | None:
    for field in ("n", "best_of"):
        value = body.get(field)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise APIError(400, f"{field} is {_shown(value)}; a whole number of at least 1 is expected", field)
            if value > 1:
                return Reason.MULTIPLE_CHOICES
    if body.get("echo"):
        return Reason.ECHO
    if body.get("prompt_logprobs") is not None:
        return Reason.PROMPT_LOGPROBS
    return None


def _kind(value: object) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
