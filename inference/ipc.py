"""The vocabulary spoken between the web process and its child processes, and its byte format.

Both sides exchange *frames* over a Unix socket pair. A frame is a 4-byte big-endian length followed by that many
bytes of msgpack: a list of commands (web to worker) or a list of events (worker to web). A worker sends one frame
per engine step, holding the events of every running request. This module alone knows the byte format; it imports
neither Django nor MLX, so that both sides can load it.

Units: sizes in bytes, times in seconds unless the name says ``_ms``, token counts in tokens.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 256 * 1024 * 1024
_LENGTH_BYTES = 4

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


class FrameError(Exception):
    """The peer sent bytes that are not a frame of this protocol."""


# ---------------------------------------------------------------------------------------------------------- requests


class Sampling(Struct, omit_defaults=True, frozen=True):
    """How one request turns logits into tokens. Every field is at its neutral value by default.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 switch the filter off. ``repetition_penalty``
    divides positive and multiplies negative logits of tokens seen in prompt or answer (CTRL, 1 is off);
    ``presence_penalty`` and ``frequency_penalty`` count tokens of the answer only, as OpenAI defines them.
    ``logit_bias`` maps token id to an additive bias. ``seed`` None means a fresh random one.
    ``top_logprobs`` None means no logprobs at all, 0 only the chosen token's.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    top_logprobs: int | None = None


class OutputFormat(Struct, omit_defaults=True, frozen=True):
    """A constraint on the decoded text, enforced while decoding. ``schema`` is JSON Schema for ``json_schema``."""

    kind: Literal["text", "json_object", "json_schema", "regex", "grammar", "choice"] = "text"
    schema: dict[str, Any] | None = None
    text: str | None = None
    choices: list[str] = []


class GenerateRequest(Struct, omit_defaults=True, frozen=True):
    """One generation, independent of the wire protocol it came by.

    Either ``messages`` (chat: the worker applies the model's template) or ``prompt`` (text or token ids). ``n``
    choices share one prefill. ``stop`` strings end the text before themselves. ``max_tokens`` None means up to the
    model's context.
    """

    messages: list[dict[str, Any]] | None = None
    prompt: str | list[int] | None = None
    n: int = 1
    max_tokens: int | None = None
    stop: list[str] = []
    ignore_eos: bool = False
    echo: bool = False
    sampling: Sampling = Sampling()
    output_format: OutputFormat = OutputFormat()
    tools: list[dict[str, Any]] = []
    tool_choice: Literal["auto", "none", "required"] | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    template_kwargs: dict[str, Any] = {}


# ---------------------------------------------------------------------------------------------------------- commands


class Command(Struct, omit_defaults=True, tag_field="type", tag=str.lower):
    """Base of everything the web process asks of a worker."""


class Load(Command, tag="load"):
    """Load the model at ``path``. ``context`` and ``slots`` are upper bounds; None lets the worker choose."""

    path: str
    model_id: str
    context: int | None = None
    slots: int | None = None
    memory_limit_bytes: int | None = None
    cache_limit_bytes: int | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    trust_remote_code: bool = False
    options: dict[str, Any] = {}


class Prepare(Command, tag="prepare"):
    """Template, tokenise and validate on the CPU thread; answered by ``Prepared`` or ``Failed``. Nothing runs yet."""

    request: str
    body: GenerateRequest


class Start(Command, tag="start"):
    """Run a prepared request. ``max_tokens`` is the final bound after admission."""

    request: str
    max_tokens: int


class Cancel(Command, tag="cancel"):
    """End a request wherever it is (prepare, queue, prefill, decode) before its next step. Unknown ids are ignored."""

    request: str


class Tokenize(Command, tag="tokenize"):
    request: str
    text: str
    add_special_tokens: bool = True


class Detokenize(Command, tag="detokenize"):
    request: str
    token_ids: list[int]


class Count(Command, tag="count"):
    """Count the prompt tokens of a request as the model's template makes them."""

    request: str
    body: GenerateRequest


class Embed(Command, tag="embed"):
    request: str
    inputs: list[str | list[int]]
    dimensions: int | None = None


class SetLimits(Command, tag="set_limits"):
    memory_limit_bytes: int | None = None
    cache_limit_bytes: int | None = None
    slots: int | None = None


class Drain(Command, tag="drain"):
    """Finish what runs within ``deadline_s`` (then cancel it), refuse new starts, answer ``Drained`` and exit 0."""

    deadline_s: float = 10.0


class SaveCache(Command, tag="save_cache"):
    request: str
    directory: str


class Ping(Command, tag="ping"):
    """A heartbeat; answered by ``Pong`` from the socket thread, with the stepping thread's step number."""

    nonce: int


AnyCommand = (
    Load
    | Prepare
    | Start
    | Cancel
    | Tokenize
    | Detokenize
    | Count
    | Embed
    | SetLimits
    | Drain
    | SaveCache
    | Ping
)


# ------------------------------------------------------------------------------------------------------------ events


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
    tool_parser: str | None = None
    reasoning_parser: str | None = None


class Loaded(Event, tag="loaded"):
    """``context`` is the longest prompt plus answer; ``kv_bytes_per_token`` what one token adds to the KV cache."""

    capabilities: Capabilities
    context: int
    slots: int
    vocab_size: int
    weight_bytes: int
    kv_bytes_per_token: int = 0
    seconds: float = 0.0
    backend: str = ""


class LoadFailed(Event, tag="load_failed"):
    code: str
    message: str


class Stats(Event, tag="stats"):
    """Sent once a second. ``queued`` counts started requests that wait for a slot; ``step`` never goes back."""

    active_bytes: int = 0
    cache_bytes: int = 0
    peak_bytes: int = 0
    kv_bytes: int = 0
    running: int = 0
    queued: int = 0
    step: int = 0
    tokens_per_second: float = 0.0
    prefill_tokens_per_second: float = 0.0


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


class ToolFragment(Struct, omit_defaults=True):
    """A piece of a tool call. The first fragment of an ``index`` carries ``id`` and ``name``."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Delta(RequestEvent, tag="delta"):
    """What one request gained in one step. ``token_ids`` lists the tokens decoded, also those whose text is held back."""

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
    """The last event of a whole request (all its choices). ``code`` is one of ``inference.errors``' codes."""

    code: str
    message: str
    param: str | None = None


class Tokens(RequestEvent, tag="tokens"):
    token_ids: list[int]


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
    | Delta
    | Finished
    | Failed
    | Tokens
    | Text
    | Counted
    | Embedded
    | CacheSaved
)

# ------------------------------------------------------------------------------------------------------------- bytes

_encoder = msgspec.msgpack.Encoder()
_command_decoder = msgspec.msgpack.Decoder(list[AnyCommand])
_event_decoder = msgspec.msgpack.Decoder(list[AnyEvent])


def encode_frame(messages: list[Any]) -> bytes:
    """One frame holding ``messages`` (all commands or all events)."""
    body = _encoder.encode(messages)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def decode_commands(body: bytes | memoryview) -> list[AnyCommand]:
    """The commands of one frame's body (without its length)."""
    try:
        return _command_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(str(error)) from error


def decode_events(body: bytes | memoryview) -> list[AnyEvent]:
    """The events of one frame's body (without its length)."""
    try:
        return _event_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(str(error)) from error


class FrameSplitter:
    """Cuts a byte stream into frame bodies, whatever the chunk boundaries."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes; return the bodies that are complete now."""
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[start : start + _LENGTH_BYTES], "big")
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
            end = start + _LENGTH_BYTES + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[start + _LENGTH_BYTES : end]))
            start = end
        if start:
            del self._buffer[:start]
        return bodies
