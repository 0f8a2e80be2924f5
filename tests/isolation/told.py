"""What an answer of each protocol says, whole or as the events of a stream come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.isolation.seen import Entry, Said, Seen

Told = dict[str, Any]


def whole(protocol: str, answer: Told, seen: Seen) -> None:
    """Take an answer that was not streamed."""
    readers = {"chat": _openai, "completions": _openai, "responses": _response, "messages": _message}
    readers[protocol](answer, seen)
    seen.over = True


def refusal(status: int, answer: Told, seen: Seen) -> None:
    """Take an error, of any protocol. One that says that somebody cancelled the request is not the answer's own end."""
    error = answer["error"]
    code = error.get("code") or (error.get("details") or {}).get("error_code")
    seen.refused = (status, code, error["message"], error.get("param"))
    seen.over = code != "request_cancelled"


def stored(response: Told, seen: Seen) -> None:
    """Take a response that was made in the background and is in its last state."""
    if response["status"] in ("completed", "incomplete"):
        whole("responses", response, seen)
        return
    error = response["error"]
    seen.refused = (error["code"], error["message"])
    seen.over = not error["message"].startswith("the request was cancelled")


class Stream:
    """Takes the events of one stream, by its protocol. ``ended`` at its regular end; only a response has an id."""

    def __init__(self, protocol: str, seen: Seen) -> None:
        self._seen = seen
        self._blocks: list[str] = []
        takers: dict[str, Callable[[Told], None]] = {
            "chat": self._take_openai,
            "completions": self._take_openai,
            "responses": self._take_response,
            "messages": self._take_message,
        }
        self._take = takers[protocol]
        self.ended = False
        self.response_id: str | None = None

    def line(self, line: str) -> bool:
        """Take one line of the stream; True if it was an event."""
        if not line.startswith("data: "):
            return False
        assert not self.ended, "an event came after the last"
        if line == "data: [DONE]":
            self._end()
            return True
        told = json.loads(line[6:])
        error = told if told.get("type") == "error" and "error" not in told else told.get("error")
        if error:
            self._error(error)
        else:
            self._take(told)
        return True

    def _end(self) -> None:
        self.ended = True
        self._seen.over = self._seen.refused is None

    def _error(self, error: Told) -> None:
        """What was open is cut off by it."""
        refusal(200, {"error": error}, self._seen)
        for said in self._seen.choices.values():
            said.reason = said.reason or "cancelled"

    def _take_openai(self, chunk: Told) -> None:
        if chunk["usage"] is not None:
            self._seen.usage = _openai_usage(chunk["usage"])
        for choice in chunk["choices"]:
            said = self._seen.choice(choice["index"])
            assert said.reason is None, "a chunk came after the last of its choice"
            _add_openai(said, choice, choice.get("delta", choice))

    def _take_response(self, event: Told) -> None:
        kind = event["type"].removeprefix("response.")
        if kind == "created":
            self.response_id = event["response"]["id"]
        said = self._seen.choice(0)
        if kind in ("completed", "incomplete", "failed"):
            self.ended = True
            if kind != "failed":  # what the deltas said is what the response says
                streamed, self._seen.choices[0] = said, Said()
                whole("responses", event["response"], self._seen)
                final = self._seen.choice(0)
                assert (streamed.content, streamed.reasoning) == (final.content, final.reasoning)
                assert streamed.calls == final.calls
        elif kind == "output_text.delta":
            said.content += event["delta"]
            said.logprobs += map(_chat_entry, event["logprobs"])
        elif kind == "reasoning_text.delta":
            said.reasoning += event["delta"]
        elif kind == "output_item.added" and event["item"]["type"] == "function_call":
            said.calls.append([event["item"]["name"], ""])
        elif kind == "function_call_arguments.delta":
            said.calls[-1][1] += event["delta"]

    def _take_message(self, event: Told) -> None:
        said = self._seen.choice(0)
        match event["type"]:
            case "content_block_start":
                block = event["content_block"]
                assert event["index"] == len(self._blocks)
                self._blocks.append(block["type"])
                if block["type"] == "tool_use":
                    said.calls.append([block["name"], ""])
            case "content_block_delta":
                assert event["index"] == len(self._blocks) - 1
                delta = event["delta"]
                said.content += delta.get("text", "")
                said.reasoning += delta.get("thinking", "")
                if "partial_json" in delta:
                    said.calls[-1][1] += delta["partial_json"]
            case "message_delta":
                said.reason, said.stopped = event["delta"]["stop_reason"], event["delta"]["stop_sequence"]
                self._seen.usage = _message_usage(event["usage"])
            case "message_stop":
                self._end()


# ---------------------------------------------------------------------------------------------------------- OpenAI's


def _openai(answer: Told, seen: Seen) -> None:
    seen.usage = _openai_usage(answer["usage"])
    for choice in answer["choices"]:
        _add_openai(seen.choice(choice["index"]), choice, choice.get("message", choice))


def _add_openai(said: Said, choice: Told, part: Told) -> None:
    said.content += part.get("content") or part.get("text") or ""
    said.reasoning += part.get("reasoning_content") or ""
    for at, call in enumerate(part.get("tool_calls") or []):
        function = call["function"]
        if "name" in function:
            assert call.get("index", at) == len(said.calls)
            said.calls.append([function["name"], ""])
        said.calls[call.get("index", at)][1] += function["arguments"]
    said.logprobs += _openai_entries(choice.get("logprobs") or {})
    said.reason = choice["finish_reason"] or said.reason


def _openai_entries(told: Told) -> list[Entry]:
    if "content" in told:
        return [_chat_entry(entry) for entry in told["content"] or []]
    if not told:
        return []
    lists = (told["tokens"], told["token_logprobs"], told["top_logprobs"])
    return [
        (token, logprob or 0.0, sorted((top or {}).items(), key=lambda entry: -entry[1]))
        for token, logprob, top in zip(*lists, strict=True)
    ]


def _chat_entry(entry: Told) -> Entry:
    return entry["token"], entry["logprob"], [(top["token"], top["logprob"]) for top in entry["top_logprobs"]]


def _openai_usage(usage: Told) -> dict[str, int]:
    return {
        "prompt": usage["prompt_tokens"],
        "completion": usage["completion_tokens"],
        "reasoning": usage["completion_tokens_details"]["reasoning_tokens"],
    }


# -------------------------------------------------------------------------------------------------- the other two's


def _response(answer: Told, seen: Seen) -> None:
    said = seen.choice(0)
    said.reason = answer["status"]
    seen.usage = {
        "prompt": answer["usage"]["input_tokens"],
        "completion": answer["usage"]["output_tokens"],
        "reasoning": answer["usage"]["output_tokens_details"]["reasoning_tokens"],
    }
    for item in answer["output"]:
        if item["type"] == "function_call":
            said.calls.append([item["name"], item["arguments"]])
            continue
        for part in item["content"]:
            if item["type"] == "reasoning":
                said.reasoning += part["text"]
            else:
                said.content += part["text"]
                said.logprobs += map(_chat_entry, part["logprobs"])


def _message(answer: Told, seen: Seen) -> None:
    said = seen.choice(0)
    said.reason, said.stopped = answer["stop_reason"], answer["stop_sequence"]
    seen.usage = _message_usage(answer["usage"])
    for block in answer["content"]:
        if block["type"] == "tool_use":
            said.calls.append([block["name"], json.dumps(block["input"])])
        said.content += block.get("text", "")
        said.reasoning += block.get("thinking", "")


def _message_usage(usage: Told) -> dict[str, int]:
    return {
        "prompt": usage["input_tokens"] + usage["cache_read_input_tokens"],
        "completion": usage["output_tokens"],
        "reasoning": usage["output_tokens_details"]["thinking_tokens"],
    }
