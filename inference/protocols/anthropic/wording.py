"""Messages: events of the stream, and the whole message.

A text's event is a prefix made once per block plus the JSON of the text, so that a streamed token costs about a
microsecond here. The usage at the start is what is known then; the one at the end is exact.
"""

from __future__ import annotations

from typing import Any

import orjson

from inference.errors import LmxError
from inference.ipc import Delta, Finished, FinishReason, Usage
from inference.protocols.answer import Answer
from inference.protocols.anthropic.answer import BlockAnswer, Cutter, Part, Piece, tool_input
from inference.protocols.anthropic.thinking import Signature, Visibility
from inference.protocols.errors import error_bytes
from inference.records import RequestRecord

PATH = "/v1/messages"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'

_dumps = orjson.dumps
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
_DELTAS = {
    "thinking": (b"thinking_delta", b"thinking"),
    "text": (b"text_delta", b"text"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}
# An error's ``param`` is named as workers have it where that is not Anthropic's name.
_PLACES = {
    "response_format": "output_config.format",
    "continue_final_message": "messages",
    "thinking_budget": "thinking.budget_tokens",
    ".function.parameters": ".input_schema",
}


class MessageWording:
    """One message. ``max_tokens`` is the bound that was asked for; ``thoughts`` how they are shown."""

    def __init__(self, id: str, model: str, *, max_tokens: int, thoughts: Visibility) -> None:
        self._id = id
        self._model = model
        self._max_tokens = max_tokens
        self._thoughts = thoughts
        self._cutter = Cutter()
        self._index = -1
        self._head = b""
        self._signature: Signature | None = None
        self._open = False
        self._called = False
        self._stop: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------------------- streamed

    def begin(self, record: RequestRecord) -> bytes:
        usage = Usage(prompt_tokens=record.prompt_tokens, cached_tokens=record.cached_tokens)
        message = self._message(record, [], {"stop_reason": None, "stop_sequence": None}, usage)
        return _frame("message_start", {"message": message}) + PING

    def delta(self, event: Delta) -> bytes:
        return b"".join(self._piece(piece) for piece in self._cutter.pieces(event))

    def finish(self, event: Finished) -> bytes:
        self._stop = self._stopped(event.reason, event.stop_sequence, event.usage.completion_tokens)
        return self._close()

    def end(self, usage: Usage) -> bytes:
        told = {
            "input_tokens": usage.prompt_tokens - usage.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached_tokens,
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        }
        return _frame("message_delta", {"delta": self._stop, "usage": told}) + _frame("message_stop", {})

    def error(self, error: LmxError) -> bytes:
        return b"event: error\ndata: " + error_bytes(renamed(error), PATH) + b"\n\n"

    # ---------------------------------------------------------------------------------------------------------- whole

    def body(self, answer: Answer, record: RequestRecord) -> bytes:
        [choice] = answer.choices
        parts = answer.parts if isinstance(answer, BlockAnswer) else []
        content = [self._block(part) for part in parts if part.kind != "thinking" or self._thoughts != "hidden"]
        self._called = any(part.kind == "tool_use" for part in parts)
        stopped = self._stopped(choice.reason, choice.stop_sequence, answer.usage.completion_tokens)
        return _dumps(self._message(record, content, stopped, answer.usage))

    # --------------------------------------------------------------------------------------------------------- pieces

    def _piece(self, piece: Piece) -> bytes:
        if piece.kind == "thinking" and self._thoughts == "hidden":
            return b""
        frames = self._start(piece) if piece.begins else b""
        if self._signature is not None and piece.kind == "thinking":
            self._signature.add(piece.text)
            if self._thoughts == "signed":
                return frames
        if not piece.text:
            return frames
        return frames + self._head + _dumps(piece.text) + b"}}\n\n"

    def _start(self, piece: Piece) -> bytes:
        closed = self._close()
        self._index += 1
        self._open = True
        self._head = _DELTA % (self._index, *_DELTAS[piece.kind])
        block: dict[str, Any]
        if piece.kind == "thinking":
            self._signature = Signature()
            block = {"type": "thinking", "thinking": "", "signature": ""}
        elif piece.kind == "text":
            block = {"type": "text", "text": ""}
        else:
            self._called = True
            block = {"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}
        return closed + _frame("content_block_start", {"index": self._index, "content_block": block})

    def _close(self) -> bytes:
        if not self._open:
            return b""
        frames = b""
        if self._signature is not None:
            delta = {"type": "signature_delta", "signature": self._signature.text()}
            frames = _frame("content_block_delta", {"index": self._index, "delta": delta})
        self._open, self._signature = False, None
        return frames + _frame("content_block_stop", {"index": self._index})

    def _block(self, part: Part) -> dict[str, Any]:
        if part.kind == "text":
            return {"type": "text", "text": part.text}
        if part.kind == "tool_use":
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": tool_input(part.text)}
        signature = Signature()
        signature.add(part.text)
        shown = part.text if self._thoughts == "shown" else ""
        return {"type": "thinking", "thinking": shown, "signature": signature.text()}

    # ---------------------------------------------------------------------------------------------------- the message

    def _message(
        self, record: RequestRecord, content: list[dict[str, Any]], stopped: dict[str, Any], usage: Usage
    ) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model or record.model,
            "content": content,
            **stopped,
            "usage": usage_object(usage),
        }

    def _stopped(self, reason: FinishReason | None, sequence: str | None, tokens: int) -> dict[str, Any]:
        if reason == "length":
            told = "max_tokens" if tokens >= self._max_tokens else "model_context_window_exceeded"
        elif sequence is not None:
            told = "stop_sequence"
        else:  # to OpenAI, a call of a tool that was named is no reason to stop
            told = "tool_use" if reason == "tool_calls" or self._called else "end_turn"
        return {"stop_reason": told, "stop_sequence": sequence if told == "stop_sequence" else None}


def usage_object(usage: Usage) -> dict[str, Any]:
    """``usage`` of a message. Tokens read from the cache are not among ``input_tokens``; writing it costs none."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "service_tier": "standard",
    }


def renamed(error: LmxError) -> LmxError:
    """An error of the engine's that names its parameter as this protocol does, also in its sentence."""
    if error.param is not None:
        for name, own in _PLACES.items():
            if name in error.param:
                error.param = error.param.replace(name, own)
                error.message = error.message.replace(name, own)
                error.args = (error.message,)
    return error


def _frame(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + _dumps({"type": kind, **fields}) + b"\n\n"
