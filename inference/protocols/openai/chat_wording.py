"""Chat completions: chunks and body.

A chunk is a prefix made once per choice plus the JSON of its text, so that a streamed token costs about a microsecond
here. Fields beyond OpenAI's: ``reasoning_content`` and ``reasoning`` (the same text under both usual names).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson

from inference.errors import LmxError
from inference.ipc import Delta, Finished, FinishReason, ToolFragment, Usage
from inference.protocols.answer import Answer, CalledTool, Choice
from inference.protocols.openai.words import (
    DONE,
    chat_logprobs,
    error_frames,
    fingerprint,
    usage_object,
    usage_so_far,
)
from inference.records import RequestRecord

_dumps = orjson.dumps


class ChatWording:
    """One chat request's answer. ``include_usage`` is the stream option; ``logprobs`` whether they were asked for.

    ``continuous`` tells the usage so far in every chunk. Without ``reasoning`` the model's thoughts are left out.
    ``legacy`` words a call as ``function_call``, for clients that sent ``functions``.
    """

    def __init__(
        self,
        id: str,
        model: str,
        n: int,
        *,
        include_usage: bool,
        logprobs: bool,
        path: str,
        continuous: bool = False,
        reasoning: bool = True,
        legacy: bool = False,
    ) -> None:
        self._id = id
        self._model = model
        self._n = n
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._path = path
        self._continuous = continuous
        self._reasoning = reasoning
        self._legacy = legacy
        self._prompt_tokens = self._completion_tokens = 0
        self._created = int(time.time())
        self._heads: list[bytes] = []
        self._end = self._tail = b""
        self._set_end(b',"usage":null}\n\n' if include_usage else b"}\n\n")

    def begin(self, record: RequestRecord) -> bytes:
        self._prompt_tokens = record.prompt_tokens
        self._count(0)
        head = self._chunk_head(record)
        self._heads = [head + b'"choices":[{"index":%d,"delta":' % choice for choice in range(self._n)]
        opening = b'{"role":"assistant","content":"","refusal":null}'
        return b"".join(choice + opening + self._tail for choice in self._heads)

    def delta(self, event: Delta) -> bytes:
        if self._continuous:
            self._count(len(event.token_ids))
        head = self._heads[event.choice]
        tail = self._tail
        if event.logprobs:
            tail = b',"logprobs":' + _dumps(chat_logprobs(event.logprobs)) + b',"finish_reason":null}]' + self._end
        if not event.tools and not (event.reasoning and self._reasoning):
            if not event.content and not event.logprobs:
                return b""
            return head + b'{"content":' + _dumps(event.content) + b"}" + tail
        return self._rare(event, head, tail)

    def finish(self, event: Finished) -> bytes:
        reason = _dumps(self._reason(event.reason))
        return self._heads[event.choice] + b'{},"logprobs":null,"finish_reason":' + reason + b"}]" + self._end

    def end(self, usage: Usage) -> bytes:
        if not self._include_usage:
            return DONE
        head = self._heads[0].partition(b'"choices":')[0]
        return head + b'"choices":[],"usage":' + _dumps(usage_object(usage)) + b"}\n\n" + DONE

    def error(self, error: LmxError) -> bytes:
        return error_frames(error, self._path)

    def body(self, answer: Answer, record: RequestRecord) -> bytes:
        choices = [self._choice(index, choice) for index, choice in enumerate(answer.choices)]
        return _dumps(
            {
                "id": self._id,
                "object": "chat.completion",
                "created": self._created,
                "model": self._model or record.model,
                "system_fingerprint": fingerprint(record.model),
                "choices": choices,
                "usage": usage_object(answer.usage),
            }
        )

    def _chunk_head(self, record: RequestRecord) -> bytes:
        fixed = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model or record.model,
            "system_fingerprint": fingerprint(record.model),
        }
        return b"data: " + _dumps(fixed)[:-1] + b","

    def _set_end(self, end: bytes) -> None:
        """The end of every chunk, and what comes after a delta: no logprobs, not finished."""
        self._end = end
        self._tail = b',"logprobs":null,"finish_reason":null}]' + end

    def _count(self, tokens: int) -> None:
        if self._continuous:
            self._completion_tokens += tokens
            usage = usage_so_far(self._prompt_tokens, self._completion_tokens)
            self._set_end(b',"usage":' + _dumps(usage) + b"}\n\n")

    def _reason(self, reason: FinishReason | None) -> str | None:
        return "function_call" if self._legacy and reason == "tool_calls" else reason

    def _rare(self, event: Delta, head: bytes, tail: bytes) -> bytes:
        """Reasoning and tool calls, in the order a model writes them; logprobs go with the first chunk."""
        deltas: list[bytes] = []
        if event.reasoning and self._reasoning:
            text = _dumps(event.reasoning)
            deltas.append(b'{"reasoning_content":' + text + b',"reasoning":' + text + b"}")
        if event.content:
            deltas.append(b'{"content":' + _dumps(event.content) + b"}")
        for fragment in event.tools:
            parts = _legacy_parts(fragment) if self._legacy else _fragment_parts(fragment)
            deltas += (_dumps(part) for part in parts)
        frames = [head + delta + (self._tail if position else tail) for position, delta in enumerate(deltas)]
        return b"".join(frames)

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return {
            "index": index,
            "message": self._message(choice),
            "logprobs": chat_logprobs(choice.logprobs) if self._logprobs else None,
            "finish_reason": self._reason(choice.reason),
        }

    def _message(self, choice: Choice) -> dict[str, Any]:
        content = "".join(choice.content)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if choice.tools and not content else content,
            "refusal": None,
        }
        if choice.reasoning and self._reasoning:
            message["reasoning_content"] = message["reasoning"] = "".join(choice.reasoning)
        calls = [choice.tools[index] for index in sorted(choice.tools)]
        if calls and self._legacy:
            message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
        elif calls:
            message["tool_calls"] = [_tool_call(call) for call in calls]
        return message


def _fragment_parts(fragment: ToolFragment) -> Iterator[dict[str, Any]]:
    """Id and name come first and alone, as OpenAI streams them; arguments follow."""
    if fragment.name is not None:
        function = {"name": fragment.name, "arguments": ""}
        yield _tool_part({"index": fragment.index, "id": fragment.id, "type": "function", "function": function})
    if fragment.arguments:
        yield _tool_part({"index": fragment.index, "function": {"arguments": fragment.arguments}})


def _tool_part(part: dict[str, Any]) -> dict[str, Any]:
    return {"tool_calls": [part]}


def _legacy_parts(fragment: ToolFragment) -> Iterator[dict[str, Any]]:
    """There is one call at most."""
    if fragment.index == 0 and fragment.name is not None:
        yield {"function_call": {"name": fragment.name, "arguments": ""}}
    if fragment.index == 0 and fragment.arguments:
        yield {"function_call": {"arguments": fragment.arguments}}


def _tool_call(call: CalledTool) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
