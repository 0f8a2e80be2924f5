"""One response as it grows, and the numbered events that tell of it.

The same object words a stream, gathers an answer that is not streamed (``Gathered``) and shows what there is of a
background response. ``response`` is the response object; its ``output`` has the items that are done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from inference.errors import LmxError
from inference.ipc import Delta, Finished, FinishReason, TokenLogprob, ToolFragment, Usage
from inference.protocols.answer import Answer
from inference.protocols.errors import openai_body
from inference.protocols.responses.output import CallItem, Event, MessageItem, OpenItem, ReasoningItem, shown_logprobs
from inference.protocols.serving import rename
from inference.records import RequestRecord

_dumps = orjson.dumps
_FAILURE = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
_LAST = {"completed": "response.completed", "failed": "response.failed"}

# Where a worker or the engine names a part of the request, and what it is called in this protocol.
_PLACES = {
    "messages": "input",
    "prompt": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "thinking_budget": "thinking_token_budget",
}


class ResponseWording:
    """Words a request's events. ``on_last`` is called once, with the response in its last state.

    ``seal`` adds ``encrypted_content`` to reasoning.
    """

    def __init__(self, response: dict[str, Any], *, seal: bool) -> None:
        self.response = response
        self.number = 0
        self.on_last: Callable[[], None] | None = None
        self._seal = seal
        self._created = False
        self._begun = False
        self._item: OpenItem | None = None
        self._call: int | None = None
        self._early: list[TokenLogprob] = []
        self._reason: FinishReason | None = None

    @property
    def over(self) -> bool:
        """Whether the response is in its last state."""
        return self.response["status"] not in ("queued", "in_progress")

    # ------------------------------------------------------------------------------------------ what serving calls

    def queued(self) -> bytes:
        """The first events of a background response."""
        self._created = True
        self.response["status"] = "queued"
        return self._state("response.created") + self._state("response.queued")

    def begin(self, record: RequestRecord) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        self.response["model"] = self.response["model"] or record.model
        self.response["status"] = "in_progress"
        first = b"" if self._created else self._state("response.created")
        self._created = True
        return first + self._state("response.in_progress")

    def delta(self, event: Delta) -> bytes:
        frames = self._think(event.reasoning) if event.reasoning else b""
        if event.content or (event.logprobs and not event.reasoning and not event.tools):
            frames += self._say(event.content, event.logprobs)
        for fragment in event.tools:
            frames += self._use(fragment)
        return frames

    def finish(self, event: Finished) -> bytes:
        self._reason = event.reason
        if self._item is None and not self.response["output"]:
            return self._open(MessageItem(self.response["id"], 0)) + self._close()
        return self._close()

    def end(self, usage: Usage) -> bytes:
        self.response["usage"] = usage_object(usage)
        if self._reason == "length":
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
            return self._last("incomplete")
        self.response["completed_at"] = int(time.time())
        return self._last("completed")

    def error(self, error: LmxError) -> bytes:
        """``error`` with our own code, then ``response.failed`` with the nearest of OpenAI's."""
        rename(error, named)
        told = openai_body(error)["error"]
        first = b"" if self._created else self._state("response.created") + self._state("response.in_progress")
        self._reason = self._reason or "length"  # what is open is not complete
        frames = first + self._close()
        fields = {"code": told["code"], "message": told["message"], "param": told["param"]}
        frames += self._frame("error", fields)
        code = _FAILURE.get(error.status, "server_error")
        self.response["error"] = {"code": code, "message": told["message"]}
        return frames + self._last("failed")

    def cancel(self) -> bytes:
        """The client ended it. OpenAI publishes no event for that: the response tells."""
        self._reason = "cancelled"
        return self._close() + self._last("cancelled")

    def body(self, answer: Answer, record: RequestRecord) -> bytes:
        self.begin(record)
        self.end(answer.usage)
        return _dumps(self.response)

    # ------------------------------------------------------------------------------------------ parts of an answer

    def _think(self, text: str) -> bytes:
        self._early.clear()
        frames = b""
        if not isinstance(self._item, ReasoningItem):
            item = ReasoningItem(self.response["id"], self._next_index(), seal=self._seal)
            frames = self._open(item)
        return frames + self._piece(text)

    def _say(self, text: str, logprobs: list[TokenLogprob]) -> bytes:
        frames = b""
        item = self._item
        if not isinstance(item, MessageItem):
            if not text:
                if item is None:  # the text of the first tokens is held back; it may yet turn out to be the answer's
                    self._early += logprobs
                return b""
            item = MessageItem(self.response["id"], self._next_index())
            frames = self._open(item)
        logprobs, self._early = self._early + logprobs, []
        item.logprobs += logprobs
        shown = _dumps(shown_logprobs(logprobs, whole=False)) if logprobs else b"[]"
        return frames + self._piece(text, b',"logprobs":' + shown)

    def _use(self, fragment: ToolFragment) -> bytes:
        frames = b""
        if not isinstance(self._item, CallItem) or fragment.index != self._call:
            self._call = fragment.index
            self._early.clear()
            item = CallItem(self.response["id"], self._next_index(), fragment.id or "", fragment.name or "")
            frames = self._open(item)
        return frames + self._piece(fragment.arguments) if fragment.arguments else frames

    def _piece(self, text: str, more: bytes = b"") -> bytes:
        item = self._item
        assert item is not None
        item.add(text)
        number, self.number = self.number, self.number + 1
        return item.head + b'%d,"delta":' % number + _dumps(text) + more + b"}\n\n"

    def _next_index(self) -> int:
        return len(self.response["output"]) + (self._item is not None)

    def _open(self, item: OpenItem) -> bytes:
        frames = self._close()
        self._item = item
        return frames + self._frames(item.opening())

    def _close(self) -> bytes:
        item, self._item = self._item, None
        if item is None:
            return b""
        status = "incomplete" if self._reason in ("length", "cancelled") else "completed"
        closing = item.closing("incomplete" if status == "incomplete" else "completed")
        self.response["output"].append(closing[-1][1]["item"])
        return self._frames(closing)

    # --------------------------------------------------------------------------------------------------- frames

    def _last(self, status: str) -> bytes:
        self.response["status"] = status
        if self.on_last is not None:
            self.on_last()
        return self._state(_LAST.get(status, "response.incomplete"))

    def _state(self, event: str) -> bytes:
        return self._frame(event, {"response": self.response})

    def _frames(self, events: list[Event]) -> bytes:
        return b"".join(self._frame(kind, fields) for kind, fields in events)

    def _frame(self, kind: str, fields: dict[str, Any]) -> bytes:
        self.number += 1
        return _frame(kind, self.number - 1, fields)


class Gathered(Answer):
    """What makes an answer that is not streamed: every event goes to the wording, whose frames nobody reads."""

    def __init__(self, n: int, wording: ResponseWording, record: RequestRecord) -> None:
        super().__init__(n)
        self._wording = wording
        self._record = record

    def add(self, delta: Delta) -> None:
        self._wording.begin(self._record)
        self._wording.delta(delta)

    def finish(self, event: Finished) -> None:
        self._wording.begin(self._record)
        self._wording.finish(event)


def last_frame(response: dict[str, Any], number: int) -> bytes:
    """The last event of a response that is finished."""
    return _frame(_LAST.get(response["status"], "response.incomplete"), number, {"response": response})


def named(param: str) -> str:
    """What this protocol calls a parameter that the engine or a worker names."""
    return _PLACES.get(param.split("[")[0].split(".")[0], param.replace("].function.", "]."))


def usage_object(usage: Usage) -> dict[str, Any]:
    """``usage`` with the names that Responses have."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _frame(kind: str, number: int, fields: dict[str, Any]) -> bytes:
    numbered = {"type": kind, "sequence_number": number, **fields}
    return b"event: " + kind.encode() + b"\ndata: " + _dumps(numbered) + b"\n\n"
