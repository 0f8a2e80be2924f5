"""The model's own chat template: what it can do (found by trying it once), and applying it.

The template is Jinja in a sandbox (transformers) or, for a few models, a renderer that comes with the model library.
A template is a part of the model and may refuse messages with a sentence of its own; that is the client's error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inference.errors import InvalidRequest
from inference.worker.text.messages import Message, fold_late_system, fold_system, normalise, spell_out
from inference.worker.text.time_limit import TookTooLong, time_limit

RENDER_LIMIT_S = 10.0
"""A conversation of a hundred thousand messages takes about a second; a template that loops takes for ever."""
PROBE_LIMIT_S = 1.0
_PROBE = "lmx_probe"
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": _PROBE,
        "description": "",
        "parameters": {"type": "object", "properties": {_PROBE: {"type": "string"}}, "required": []},
    },
}


class ChatTemplate:
    """``tokenizer`` is mlx-lm's wrapper or a Hugging Face tokenizer. Used on the CPU thread only."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.source = _source(tokenizer)
        self.available = bool(getattr(tokenizer, "has_chat_template", bool(self.source)))
        self.developer = "developer" in self.source
        self.tools = True
        self.tools = self.available and self._shows_tools()
        self.system = self.available and self._shows_system()
        self.late_system = self.available and self._shows_late_system()
        self.arguments_as_text = self.available and self._wants_arguments_as_text()
        self.short_ids = self.available and self._wants_short_ids()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt's text. ``options`` go to the template (``enable_thinking``, ``add_generation_prompt``, ...)."""
        return self._rendered(self._clean(messages, tools), tools, dict(options or {}))

    def continued(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]], options: Mapping[str, Any]
    ) -> tuple[str, str]:
        """The prompt's text when the answer goes on with the last message, and what it has of that message.

        The text ends with the message's own, without what closes a message.
        """
        clean = self._clean(messages, tools)
        last = clean[-1]
        if last["role"] != "assistant" or last.get("tool_calls"):
            raise _not_continued("the last message must be the assistant's, a text and not a call")
        if options.get("add_generation_prompt"):
            raise _not_continued("add_generation_prompt opens a new message")
        more = dict(options) | {"continue_final_message": True, "add_generation_prompt": False}
        text = self._rendered(clean, tools, more)
        for begun in (last["content"], last["content"].rstrip(), last["content"].strip()):
            if text.endswith(begun):
                return text, begun
        raise _not_continued(_STRIPS)

    def _clean(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]]) -> list[Message]:
        if not self.available:
            raise InvalidRequest(
                "This model has no chat template, so it takes no messages; use /v1/completions with a prompt",
                param="messages",
            )
        clean = normalise(
            messages,
            arguments_as_text=self.arguments_as_text,
            developer=self.developer,
            short_ids=self.short_ids,
        )
        if not self.tools:
            clean = spell_out(clean, tools)
        if not self.system:
            return fold_system(clean)
        return clean if self.late_system else fold_late_system(clean)

    def _rendered(self, clean: list[Message], tools: Sequence[dict[str, Any]], options: dict[str, Any]) -> str:
        try:
            with time_limit(RENDER_LIMIT_S):
                return self._apply(clean, tools, options)
        except TookTooLong as error:
            raise InvalidRequest(
                f"The model's chat template did not finish within {RENDER_LIMIT_S:.0f} s", param="messages"
            ) from error
        except Exception as error:
            reason = str(error) or type(error).__name__
            if reason.startswith("continue_final_message"):
                raise _not_continued(_STRIPS) from error
            raise InvalidRequest(
                f"The model's chat template refused the messages: {reason}", param="messages"
            ) from error

    def _apply(self, messages: list[Message], tools: Sequence[dict[str, Any]], options: dict[str, Any]) -> str:
        options.setdefault("add_generation_prompt", not options.get("continue_final_message", False))
        options |= {"tokenize": False, "tools": (list(tools) or None) if self.tools else None}
        text: str = self._tokenizer.apply_chat_template(messages, **options)
        return text

    def _try(self, messages: list[Message], tools: Sequence[dict[str, Any]] = ()) -> str:
        """The rendered text, or "" if the template cannot render these."""
        try:
            with time_limit(PROBE_LIMIT_S):
                return self._apply(messages, tools, {})
        except Exception:
            return ""

    def _shows_tools(self) -> bool:
        return _PROBE in self._try([{"role": "user", "content": "a"}], [_PROBE_TOOL])

    def _shows_system(self) -> bool:
        return _PROBE in self._try([{"role": "system", "content": _PROBE}, {"role": "user", "content": "a"}])

    def _shows_late_system(self) -> bool:
        later = {"role": "system", "content": _PROBE}
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
        return _PROBE in self._try([{"role": "system", "content": "a"}, *turns, later, turns[0]])

    def _wants_short_ids(self) -> bool:
        """True if calls are shown with ids of nine letters and digits and refused with others."""
        arguments = json.dumps({}) if self.arguments_as_text else {}
        if self._try(_call_history(arguments, "call_0123456789abcdef"), [_PROBE_TOOL]):
            return False
        return bool(self._try(_call_history(arguments), [_PROBE_TOOL]))

    def _wants_arguments_as_text(self) -> bool:
        """True if a mapping comes out as Python writes it, or not at all, and JSON text comes out as it is."""
        as_mapping = self._try(_call_history({_PROBE: 1}), [_PROBE_TOOL])
        if _PROBE in as_mapping and f"'{_PROBE}'" not in as_mapping:
            return False
        return f'{{"{_PROBE}": 1}}' in self._try(_call_history(f'{{"{_PROBE}": 1}}'), [_PROBE_TOOL])


def opens_reasoning(prompt: str, start: str) -> bool:
    """True if the prompt ends with an open reasoning marker, so that the answer begins inside the reasoning."""
    return bool(start) and prompt.rstrip().endswith(start.rstrip())


_STRIPS = "the model's chat template does not end with that message's text as it is, so nothing can go on with it"


def _not_continued(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The final message cannot be continued: {reason}", param="continue_final_message")


def _call_history(arguments: Any, identity: str = "call00001") -> list[Message]:
    call = {"id": identity, "type": "function", "function": {"name": "a", "arguments": arguments}}
    return [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "a", "tool_call_id": identity, "name": "a"},
    ]


def _source(tokenizer: Any) -> str:
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        return "\n".join(str(part) for part in template.values())
    return template if isinstance(template, str) else ""
