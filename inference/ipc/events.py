"""What a worker reports."""

from __future__ import annotations

from typing import Any, Literal, Self

import msgspec
from msgspec import Struct

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


class Event(Struct, omit_defaults=True, tag_field="type"):
    """Base of everything a worker reports."""


class Hello(Event, tag="hello"):
    protocol: int
    pid: int
    versions: dict[str, str] = {}


class LoadProgress(Event, tag="load_progress"):
    """``phase`` is ``import``, ``weights``, ``tokenizer`` or ``warmup``; ``done`` and ``total`` are in bytes or 0."""

    phase: str
    done: int = 0
    total: int = 0


class Capabilities(Struct, omit_defaults=True):
    """What a loaded model can do, found from its files, never from a server flag."""

    chat: bool = False
    completion: bool = True
    tools: bool = False
    reasoning: bool = False
    json_schema: bool = False
    logprobs: bool = False
    embeddings: bool = False
    vision: bool = False
    batching: bool = False
    prefix_cache: bool = False
    tool_parser: str | None = None
    reasoning_parser: str | None = None


class Loaded(Event, tag="loaded"):
    """``context`` is the longest prompt plus answer; ``kv_bytes_per_token`` what one token adds to the KV cache.

    ``embedding_dimensions`` is the length of an embedding model's vectors, 0 for others.
    """

    capabilities: Capabilities
    context: int
    slots: int
    vocab_size: int
    weight_bytes: int
    kv_bytes_per_token: int = 0
    seconds: float = 0.0
    backend: str = ""
    embedding_dimensions: int = 0


class LoadFailed(Event, tag="load_failed"):
    code: str
    message: str


class Stats(Event, tag="stats"):
    """Sent once a second. ``queued`` counts started requests that wait for a slot; ``step`` never goes back.

    ``prefix_*`` are of the prefix cache: bytes and entries in memory, bytes on disk, and since the load the prompt
    tokens looked up and those of them that were found.
    """

    active_bytes: int = 0
    cache_bytes: int = 0
    peak_bytes: int = 0
    kv_bytes: int = 0
    running: int = 0
    queued: int = 0
    step: int = 0
    tokens_per_second: float = 0.0
    prefill_tokens_per_second: float = 0.0
    prefix_bytes: int = 0
    prefix_entries: int = 0
    prefix_disk_bytes: int = 0
    prefix_tokens_asked: int = 0
    prefix_tokens_found: int = 0


class Log(Event, tag="log"):
    level: Literal["debug", "info", "warning", "error"]
    message: str


class Pong(Event, tag="pong"):
    nonce: int
    step: int = 0


class Drained(Event, tag="drained"):
    pass


class RequestEvent(Event):
    """Base of the events of one request."""

    request: str


class Prepared(RequestEvent, tag="prepared"):
    prompt_tokens: int
    cached_estimate: int = 0


class Started(RequestEvent, tag="started"):
    """The request has a slot and its prefill began."""


class Prefill(RequestEvent, tag="prefill"):
    """Progress of a chunked prefill, in prompt tokens."""

    done: int
    total: int


class TopLogprob(Struct, array_like=True):
    token_id: int
    text: str
    raw: bytes
    logprob: float


class TokenLogprob(Struct, array_like=True):
    """``raw`` are the token's UTF-8 bytes; ``top`` is sorted from the most likely down."""

    token_id: int
    text: str
    raw: bytes
    logprob: float
    top: list[TopLogprob] = []


class PromptLogprobs(RequestEvent, tag="prompt_logprobs"):
    """One entry per prompt token, before the first ``Delta``; the first token's ``logprob`` is NaN."""

    tokens: list[TokenLogprob]


class ToolFragment(Struct, omit_defaults=True):
    """A piece of a tool call. The first fragment of an ``index`` carries ``id`` and ``name``."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Delta(RequestEvent, tag="delta"):
    """What one request gained in one step. ``token_ids``: the tokens decoded, also those whose text is held back."""

    choice: int = 0
    content: str = ""
    reasoning: str = ""
    tools: list[ToolFragment] = []
    token_ids: list[int] = []
    logprobs: list[TokenLogprob] = []


class Usage(Struct, omit_defaults=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Timings(Struct, omit_defaults=True):
    """Seconds from the ``start`` command's arrival in the worker."""

    queue_s: float = 0.0
    prefill_s: float = 0.0
    ttft_s: float = 0.0
    total_s: float = 0.0


class Finished(RequestEvent, tag="finished"):
    """The last event of one choice. ``usage`` counts this choice's completion tokens only."""

    reason: FinishReason
    choice: int = 0
    stop_sequence: str | None = None
    usage: Usage = msgspec.field(default_factory=Usage)
    timings: Timings = msgspec.field(default_factory=Timings)


class Failed(RequestEvent, tag="failed"):
    """The last event of a whole request (all its choices). ``code`` is one of ``inference.errors``' codes.

    ``details`` are the numbers of the refusal, as ``LmxError.details``.
    """

    code: str
    message: str
    param: str | None = None
    details: dict[str, Any] = {}

    @classmethod
    def cut_off(cls, request: str) -> Self:
        """What is told of an answer that is open when its worker stops."""
        return cls(
            request,
            "model_unavailable",
            "the answer was cut off: its model was unloaded, or the server stopped",
        )


class Tokens(RequestEvent, tag="tokens"):
    """``texts`` are the tokens' texts one by one, special ones too, where they were asked for."""

    token_ids: list[int]
    texts: list[str] = []


class Text(RequestEvent, tag="text"):
    text: str


class Counted(RequestEvent, tag="counted"):
    prompt_tokens: int


class Embedded(RequestEvent, tag="embedded"):
    vectors: list[list[float]]
    prompt_tokens: int


class CacheSaved(RequestEvent, tag="cache_saved"):
    bytes: int


AnyEvent = (
    Hello
    | LoadProgress
    | Loaded
    | LoadFailed
    | Stats
    | Log
    | Pong
    | Drained
    | Prepared
    | Started
    | Prefill
    | PromptLogprobs
    | Delta
    | Finished
    | Failed
    | Tokens
    | Text
    | Counted
    | Embedded
    | CacheSaved
)
