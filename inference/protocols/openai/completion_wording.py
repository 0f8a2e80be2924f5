"""Text completions: chunks and body, which have one shape."""

from __future__ import annotations

import time
from typing import Any

import orjson

from inference.errors import LmxError
from inference.ipc import Delta, Finished, Usage
from inference.protocols.answer import Answer, Choice
from inference.protocols.openai.completion_logprobs import CompletionLogprobs
from inference.protocols.openai.words import (
    DONE,
    error_frames,
    fingerprint,
    usage_object,
    usage_so_far,
)
from inference.records import RequestRecord

_dumps = orjson.dumps


class CompletionWording:
    """One completion request's answer. ``n`` counts the choices of all its prompts.

    ``include_usage`` is the stream option, ``continuous`` tells the usage so far in every chunk; ``logprobs`` whether
    they were asked for.
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
    ) -> None:
        self._id = id
        self._model = model
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._path = path
        self._created = int(time.time())
        self._head = b""
        self._scores = [CompletionLogprobs() for _ in range(n)]
        self._continuous = continuous
        self._prompt_tokens = self._completion_tokens = 0
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null}]' + self._end

    def begin(self, record: RequestRecord) -> bytes:
        self._prompt_tokens = record.prompt_tokens
        self._count(0)
        self._head = b"data: " + _dumps(self._fixed(record))[:-1] + b',"choices":[{"index":'
        return b""

    def delta(self, event: Delta) -> bytes:
        # A completion has no place for reasoning apart: the model's text is given as it came.
        text = event.reasoning + event.content
        if self._continuous:
            self._count(len(event.token_ids))
        if event.logprobs:
            logprobs = _dumps(self._scores[event.choice].object(event.logprobs, text))
            return self._text(event.choice, text) + b',"logprobs":' + logprobs + b',"finish_reason":null}]' + self._end
        return self._text(event.choice, text) + self._tail if text else b""

    def finish(self, event: Finished) -> bytes:
        reason = b',"logprobs":null,"finish_reason":' + _dumps(_reason(event.reason))
        return self._text(event.choice, "") + reason + b"}]" + self._end

    def end(self, usage: Usage) -> bytes:
        if not self._include_usage:
            return DONE
        head = self._head.removesuffix(b'[{"index":')
        return head + b'[],"usage":' + _dumps(usage_object(usage)) + b"}\n\n" + DONE

    def error(self, error: LmxError) -> bytes:
        return error_frames(error, self._path)

    def body(self, answer: Answer, record: RequestRecord) -> bytes:
        choices = [self._choice(index, choice) for index, choice in enumerate(answer.choices)]
        return _dumps({**self._fixed(record), "choices": choices, "usage": usage_object(answer.usage)})

    def _fixed(self, record: RequestRecord) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model or record.model,
            "system_fingerprint": fingerprint(record.model),
        }

    def _text(self, choice: int, text: str) -> bytes:
        return self._head + b'%d,"text":' % choice + _dumps(text)

    def _count(self, tokens: int) -> None:
        if self._continuous:
            self._completion_tokens += tokens
            usage = usage_so_far(self._prompt_tokens, self._completion_tokens)
            self._end = b',"usage":' + _dumps(usage) + b"}\n\n"
            self._tail = b',"logprobs":null,"finish_reason":null}]' + self._end

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        text = "".join(choice.written)
        return {
            "index": index,
            "text": text,
            "logprobs": CompletionLogprobs().object(choice.logprobs, text) if self._logprobs else None,
            "finish_reason": _reason(choice.reason),
        }


def _reason(reason: str | None) -> str | None:
    return "stop" if reason == "tool_calls" else reason
