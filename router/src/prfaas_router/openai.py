"""Error objects in OpenAI's form."""

from __future__ import annotations

import orjson

_TYPES = {404: "not_found_error", 408: "timeout_error", 429: "rate_limit_error"}


class APIError(Exception):
    """What a client is told: a status, and an error object that names the parameter and the way out."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, retry_after_s: int = 1
    ) -> None:
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        super().__init__(message)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers that belong to the status."""
        return (("retry-after", str(self.retry_after_s)),) if self.status == 503 else ()

    def body(self) -> bytes:
        """Return the error object."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return orjson.dumps({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})


def stream_error(message: str) -> bytes:
    """Return the event that ends a stream which failed after its head was sent."""
    return b"data: " + APIError(502, message, code="upstream_failed").body() + b"\n\ndata: [DONE]\n\n"
