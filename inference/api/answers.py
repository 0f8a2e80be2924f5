"""The shapes of what the routes answer, as the OpenAPI documents tell them; nothing runs through them.

Answers may have further fields. ``tests/fuzz`` holds every answer it gets against its shape.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Seconds = Amount
RunState = Literal["unloaded", "loading", "ready", "draining", "failed", "stopped-after-crashes"]


# ------------------------------------------------------------------------------------------------------------- OpenAI


class TokenUsage(BaseModel):
    """Prompt tokens as templated, completion tokens as decoded."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: dict[str, Count]
    completion_tokens_details: dict[str, Count]


class CalledFunction(BaseModel):
    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = []
    function_call: CalledFunction | None = None


class ChatChoice(BaseModel):
    index: Count
    message: AnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call"]


class Completion(BaseModel):
    id: str
    created: Count
    model: str
    system_fingerprint: str | None
    usage: TokenUsage


class ChatAnswer(Completion):
    object: Literal["chat.completion"]
    choices: Annotated[list[ChatChoice], Field(min_length=1)]


class ChunkChoice(BaseModel):
    index: Count
    delta: dict[str, Any]
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call"] | None


class ChatChunk(BaseModel):
    """The last one of ``include_usage`` has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: Count
    model: str
    system_fingerprint: str | None
    choices: list[ChunkChoice]
    usage: dict[str, Any] | None = None


class TextChoice(BaseModel):
    index: Count
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class TextAnswer(Completion):
    object: Literal["text_completion"]
    choices: Annotated[list[TextChoice], Field(min_length=1)]


class TextChunkChoice(BaseModel):
    index: Count
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"] | None


class TextChunk(BaseModel):
    """The last one of ``include_usage`` has no choices."""

    id: str
    object: Literal["text_completion"]
    created: Count
    model: str
    system_fingerprint: str | None
    choices: list[TextChunkChoice]
    usage: dict[str, Any] | None = None


class Embedding(BaseModel):
    """``embedding`` is a text for ``encoding_format: base64``."""

    object: Literal["embedding"]
    index: Count
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: Count
    total_tokens: Count


class EmbeddingAnswer(BaseModel):
    object: Literal["list"]
    data: Annotated[list[Embedding], Field(min_length=1)]
    model: str
    usage: EmbeddingUsage


class TokenizeAnswer(BaseModel):
    count: Count
    max_model_len: Count
    tokens: list[Count]
    token_strs: list[str] | None


class DetokenizeAnswer(BaseModel):
    prompt: str


class Model(BaseModel):
    """OpenAI's four fields, then ours. Sizes are bytes, contexts tokens."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    type: Literal["llm", "embeddings"]
    state: RunState
    context_length: Count
    max_model_len: Count
    loaded_context_length: Count | None
    size_bytes: Count
    architecture: str
    quantization: str | None
    capabilities: list[str] | None


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


# ---------------------------------------------------------------------------------------------------------- Anthropic


class MessageUsage(BaseModel):
    input_tokens: Count
    output_tokens: Count
    cache_creation_input_tokens: Count
    cache_read_input_tokens: Count


class Block(BaseModel):
    type: Literal["text", "thinking", "tool_use"]


class Message(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Block]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
    stop_sequence: str | None
    usage: MessageUsage


class MessageEvent(BaseModel):
    """``type`` is the event's name too; each has the fields of Anthropic's event of that name."""

    type: Literal[
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


class MessageTokens(BaseModel):
    input_tokens: Count


class ModelInfo(BaseModel):
    """A model for those that send ``anthropic-version``."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str


class ModelPage(BaseModel):
    data: list[ModelInfo]
    has_more: bool
    first_id: str | None
    last_id: str | None


# ---------------------------------------------------------------------------------------------------------- Responses


class Item(BaseModel):
    id: str
    type: str


class ResponseUsage(BaseModel):
    input_tokens: Count
    output_tokens: Count
    total_tokens: Count


class Response(BaseModel):
    id: str
    object: Literal["response"]
    created_at: Count
    completed_at: Count | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    model: str
    output: list[Item]
    metadata: dict[str, str]
    usage: ResponseUsage | None


class ResponseEvent(BaseModel):
    """``type`` is the event's name too; each has the fields of OpenAI's event of that name."""

    type: Annotated[str, Field(pattern=r"^(response\..+|error)$")]
    sequence_number: Count


class InputTokens(BaseModel):
    object: Literal["response.input_tokens"]
    input_tokens: Count


class DeletedResponse(BaseModel):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class ItemList(BaseModel):
    object: Literal["list"]
    data: list[Item]
    first_id: str
    last_id: str
    has_more: bool
