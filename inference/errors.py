"""Every refusal and failure a client can be told about, independent of the wire protocol that words it.

``LmxError`` carries what each protocol needs: HTTP status, machine-readable code, the parameter at fault, whether
and when to try again. ``inference.protocols`` turns it into the body of the protocol spoken.
"""

from __future__ import annotations

from typing import Any, Self


class LmxError(Exception):
    """A refusal or failure with its HTTP status and code.

    ``retry_after`` in seconds becomes ``Retry-After``; ``retryable`` False becomes ``x-should-retry: false``.
    ``details`` holds numbers for people and programs (needed_bytes, free_bytes, ...).
    """

    status = 500
    code = "internal_error"
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.param = param
        self.retry_after = retry_after
        self.details = details or {}


class InvalidRequest(LmxError):
    status, code = 400, "invalid_request"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"

    @classmethod
    def of(cls, prompt_tokens: int, context: int, param: str) -> Self:
        """A prompt that leaves no token of the context for its answer; ``param`` is ``messages`` or ``prompt``.

        Clients know it by its wording, before they look at the code: LiteLLM by the beginning, LangChain by the end.
        """
        return cls(
            f"This model's maximum context length is {context} tokens. "
            f"However, your {param} resulted in {prompt_tokens} tokens: the prompt is too long.",
            param=param,
            details={"context": context, "prompt_tokens": prompt_tokens},
        )


class Unauthorized(LmxError):
    status, code = 401, "invalid_api_key"


class Forbidden(LmxError):
    status, code = 403, "forbidden"


class NotFound(LmxError):
    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(LmxError):
    status, code = 405, "method_not_allowed"


class Conflict(LmxError):
    status, code = 409, "conflict"


class RequestCancelled(Conflict):
    """Somebody other than its client ended the request."""

    code = "request_cancelled"


class BodyTooLarge(LmxError):
    status, code = 413, "request_too_large"


class UriTooLong(LmxError):
    status, code = 414, "uri_too_long"


class UnsupportedMediaType(LmxError):
    status, code = 415, "unsupported_media_type"


class TooManyRequests(LmxError):
    status, code, retryable = 429, "rate_limit_exceeded", True


class HeadersTooLarge(LmxError):
    status, code = 431, "headers_too_large"


class InternalError(LmxError):
    status, code = 500, "internal_error"


class Unsupported(LmxError):
    status, code = 501, "unsupported"


class ModelUnavailable(LmxError):
    """Loading failed, the model is draining, or it is stopped after crashes."""

    status, code, retryable = 503, "model_unavailable", True


class ModelCorrupt(ModelUnavailable):
    """Files of the model are not what they should be; ``details["files"]`` names them. Trying again does not help."""

    code = "model_corrupt"
    retryable = False


class WorkerDied(ModelUnavailable):
    code = "worker_died"


class Overloaded(LmxError):
    """An answer was ended because its client reads too slowly for what the model says."""

    status, code, retryable = 503, "overloaded", True


class DeadlineExceeded(LmxError):
    status, code, retryable = 504, "timeout", True


class InsufficientMemory(LmxError):
    status, code = 507, "insufficient_memory"


class InsufficientStorage(LmxError):
    """The disk has no room for what is to be fetched; ``details`` has the numbers."""

    status, code = 507, "insufficient_storage"


# Codes a worker may put into ``ipc.Failed`` or ``ipc.LoadFailed``, and the error they become on the web side.
_BY_CODE: dict[str, type[LmxError]] = {
    error.code: error
    for error in (
        InvalidRequest,
        ContextLengthExceeded,
        NotFound,
        Unsupported,
        InternalError,
        ModelUnavailable,
        WorkerDied,
        ModelCorrupt,
        Overloaded,
        DeadlineExceeded,
        InsufficientMemory,
        InsufficientStorage,
        TooManyRequests,
    )
}


# Codes that a job may end with, beyond those.
_OF_JOBS: dict[str, type[LmxError]] = {
    **dict.fromkeys(("busy", "model_busy", "job_cancelled", "job_paused", "file_changed", "unreadable"), Conflict),
    **dict.fromkeys(("hub_unreachable", "hub_error", "interrupted"), ModelUnavailable),
    **dict.fromkeys(("model_not_found", "revision_not_found", "revision_gone"), NotFound),
    "model_gated": Forbidden,
    "unsupported_model": InvalidRequest,
}


def from_code(code: str, message: str, param: str | None = None, details: dict[str, Any] | None = None) -> LmxError:
    """The error for a code of a worker or of a job; an unknown code is an internal error that keeps its name."""
    kind = _BY_CODE.get(code)
    if kind is None:
        return _OF_JOBS.get(code, InternalError)(message, code=code, param=param, details=details)
    return kind(message, param=param, details=details)
