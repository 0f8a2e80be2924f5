"""OpenAI's answers with LM Studio's ``stats``, ``model_info`` and ``runtime``: ``/api/v0``'s."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from inference.errors import LmxError
from inference.ipc import Delta, Finished, Usage
from inference.protocols.answer import Answer
from inference.protocols.serving import Wording
from inference.records import RequestRecord

_REASONS = {"stop": "eosFound", "length": "maxPredictedTokensReached", "tool_calls": "toolCalls"}
_FRAME_END = b"}\n\n"


class StatsWording:
    """``inner``'s answer and, at its end, the statistics; ``about`` gives ``model_info`` and ``runtime`` of a model.

    In a stream they stand in the chunk that finishes the last choice.
    """

    def __init__(self, inner: Wording, n: int, about: Callable[[str], dict[str, Any]]) -> None:
        self._inner = inner
        self._open = n
        self._about = about
        self._tokens = 0
        self._record: RequestRecord | None = None

    def begin(self, record: RequestRecord) -> bytes:
        self._record = record
        return self._inner.begin(record)

    def delta(self, event: Delta) -> bytes:
        return self._inner.delta(event)

    def finish(self, event: Finished) -> bytes:
        frames = self._inner.finish(event)
        self._tokens += event.usage.completion_tokens
        self._open -= 1
        if self._open or self._record is None or not frames.endswith(_FRAME_END):
            return frames
        extra = self._extra(self._record, self._tokens, event.reason, event.stop_sequence)
        return frames.removesuffix(_FRAME_END) + b"," + extra + b"\n\n"

    def end(self, usage: Usage) -> bytes:
        return self._inner.end(usage)

    def error(self, error: LmxError) -> bytes:
        return self._inner.error(error)

    def body(self, answer: Answer, record: RequestRecord) -> bytes:
        last = answer.choices[-1]
        extra = self._extra(record, answer.usage.completion_tokens, last.reason, last.stop_sequence)
        return self._inner.body(answer, record).removesuffix(b"}") + b"," + extra

    def _extra(self, record: RequestRecord, tokens: int, reason: str | None, stopped_by: str | None) -> bytes:
        """The further members and the closing brace."""
        told = {"stats": stats(record, tokens, reason, stopped_by), **self._about(record.model)}
        return orjson.dumps(told).removeprefix(b"{")


def stats(record: RequestRecord, tokens: int, reason: str | None, stopped_by: str | None) -> dict[str, Any]:
    """Seconds; the time to the first token counts from when the prompt's reading began, not from the queue."""
    now = record.finished or time.time()
    begun = record.started or record.received
    first = record.first_token or now
    took = max(0.0, now - first)
    return {
        "tokens_per_second": tokens / took if took > 0 else 0.0,
        "time_to_first_token": round(max(0.0, first - begun), 6),
        "generation_time": round(took, 6),
        "stop_reason": "stopStringFound" if stopped_by is not None else _REASONS.get(reason or "", "failed"),
    }
