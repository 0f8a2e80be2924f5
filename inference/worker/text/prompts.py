"""From a ``GenerateRequest`` to prompt tokens, checked, with the plan for its answer. Runs on the CPU thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from inference import ipc
from inference.errors import ContextLengthExceeded, InvalidRequest
from inference.worker.constraints.guide import Compiler
from inference.worker.constraints.holding import Habits, Held, hold
from inference.worker.core import validate
from inference.worker.core.types import CoreRequest
from inference.worker.text.chat import ChatTemplate
from inference.worker.text.detok import TokenTable
from inference.worker.text.dialect import Dialect
from inference.worker.text.output import OutputPlan
from inference.worker.text.split import Call
from inference.worker.text.stops import StopStrings
from inference.worker.vllm_compat.parsers import parse_calls

MAX_CHOICES = 128
_RESERVED_OPTIONS = ("chat_template", "tokenize", "return_dict", "return_tensors", "padding", "truncation", "tools")


@dataclass(frozen=True)
class Prompt:
    """``text`` is what the tokens were made from; of a prompt given in tokens it is decoded.

    ``begun`` is the end of it, where that is the beginning of the answer's own message.
    """

    tokens: list[int]
    text: str
    chat: bool
    begun: str = ""


@dataclass(frozen=True)
class Ready:
    """A checked request, waiting for ``start``. ``core`` has the ``max_tokens`` asked for, or all that fits."""

    prompt: Prompt
    core: CoreRequest
    plan: OutputPlan
    echo: str = ""


@dataclass(frozen=True)
class TextModel:
    """What the text path knows of a loaded model. ``vocabulary`` is the width of its logits, ``context`` in tokens.

    ``tokenizer`` is the Hugging Face tokenizer itself. ``eos`` are the tokens that end an answer. ``lock`` keeps the
    threads that prepare apart while they use template and tokenizer, not while they compile a grammar.
    """

    tokenizer: Any
    template: ChatTemplate
    table: TokenTable
    dialect: Dialect
    compiler: Compiler
    vocabulary: int
    context: int
    eos: frozenset[int]
    ids: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prompt(self, body: ipc.GenerateRequest) -> Prompt:
        """Template and tokenise. Raises ``InvalidRequest``."""
        if (body.messages is None) == (body.prompt is None):
            raise InvalidRequest("a request has either messages or a prompt", param="messages")
        if body.messages is not None:
            return self._chat(body, body.messages)
        if body.continue_final:
            raise InvalidRequest("only messages have a final one to continue", param="continue_final_message")
        if isinstance(body.prompt, str):
            tokens = self.tokenizer.encode(body.prompt, add_special_tokens=True)
            return Prompt(self._not_empty(tokens), body.prompt, chat=False)
        tokens = self._not_empty(list(body.prompt or ()))
        return Prompt(tokens, self.table.decode(tokens), chat=False)

    def _chat(self, body: ipc.GenerateRequest, messages: list[dict[str, Any]]) -> Prompt:
        options = _options(body)
        if not (body.continue_final or options.get("continue_final_message") is True):
            text = self.template.render(messages, _tools(body), options)
            return Prompt(self.tokenizer.encode(text, add_special_tokens=False), text, chat=True)
        text, begun = self.template.continued(messages, _tools(body), options)
        return Prompt(self.tokenizer.encode(text, add_special_tokens=False), text, chat=True, begun=begun)

    def ready(self, request: str, body: ipc.GenerateRequest) -> Ready:
        """Everything that can be refused is refused here."""
        _check(body)
        with self.lock:
            prompt = self.prompt(body)
            _check_context(prompt, self.context)
            habits = self._habits(prompt, budget=body.thinking_budget is not None)
        held = hold(body if prompt.chat else _without_tools(body), self.compiler, habits, self.table)
        plan = self._plan(request, body, prompt, held)
        core = CoreRequest(
            key=request,
            prompt=prompt.tokens,
            max_tokens=self.context - len(prompt.tokens) if body.max_tokens is None else body.max_tokens,
            eos=plan.eos,
            sampling=body.sampling,
            n=body.n,
            prompt_logprobs=body.prompt_logprobs,
            constraints=[held.make() for _ in range(body.n)] if held.make is not None else [],
        )
        core.prompt = _checked_prompt(core, self.vocabulary)
        return Ready(prompt, core, plan, prompt.text if body.echo else "")

    def _habits(self, prompt: Prompt, *, budget: bool) -> Habits:
        dialect, begun = self.dialect, prompt.begun
        if not prompt.chat:
            return Habits(eos=self.eos)
        reasoning = dialect.reasoning(prompt.text, self.ids, begun)
        end = reasoning.end if reasoning is not None and budget else ""
        if reasoning is not None and reasoning.end in begun:
            begun = begun.rpartition(reasoning.end)[2].lstrip()
        return Habits(
            forms=dialect.forms,
            starts=_starts(dialect),
            bare=dialect.bare_calls,
            channels=dialect.channels,
            reasoning=reasoning,
            endings={end[at:]: self.tokenizer.encode(end[at:], add_special_tokens=False) for at in range(len(end))},
            eos=self.eos,
            begun=begun,
        )

    def _not_empty(self, tokens: list[int]) -> list[int]:
        """An empty prompt begins with the token that begins every text, where the model has one."""
        if tokens:
            return tokens
        begin = getattr(self.tokenizer, "bos_token_id", None)
        if begin is None:
            raise InvalidRequest("the prompt is empty, and this model has no token that begins a text", param="prompt")
        return [begin]

    def _plan(self, request: str, body: ipc.GenerateRequest, prompt: Prompt, held: Held) -> OutputPlan:
        eos = frozenset() if body.ignore_eos else self.eos
        stops = StopStrings(body.stop)
        if not prompt.chat:
            scored = body.prompt_logprobs is not None
            return OutputPlan(request, self.table, eos=eos, stops=stops, continues=True, scored=scored)
        tools = _tools(body)
        parser = self.dialect.tool_parser
        markers = self.dialect.markers(tools=bool(tools))
        return OutputPlan(
            request,
            self.table,
            eos=eos,
            stops=stops,
            splitter=partial(
                self.dialect.splitter,
                prompt.text,
                tools=bool(tools),
                begun=prompt.begun,
                held=held.described,
            ),
            syntax=self.dialect.syntax if tools else None,
            parse=partial(_parse, parser, tools) if parser is not None else None,
            known_tools=frozenset() if held.marked and not held.forced else frozenset(_tool_names(tools)),
            schemas=_schemas(tools),
            parallel_calls=body.parallel_tool_calls,
            visible=frozenset(
                token
                for token, text in self.table.special_text.items()
                if text and any(text in marker for marker in markers)
            ),
            continues=bool(prompt.begun),
            forced=held.forced,
            named=held.named,
            either=bool(tools) and not held.forced and body.output_format.kind != "text",
        )


def _starts(dialect: Dialect) -> dict[str, str]:
    """The markers at which calls are looked for, each with what ends them."""
    if dialect.syntax is None:
        return {}
    return {start: block.end for start, block in dialect.syntax.blocks.items()}


def _parse(parser: str, tools: list[dict[str, Any]], text: str) -> list[Call]:
    return parse_calls(parser, text, tools)


def _tools(body: ipc.GenerateRequest) -> list[dict[str, Any]]:
    """The tools the model is shown; ``strict`` is between the client and us."""
    return [] if body.tool_choice == "none" else [_shown(tool) for tool in body.tools]


def _shown(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, dict) or "strict" not in function:
        return tool
    return tool | {"function": {key: value for key, value in function.items() if key != "strict"}}


def _without_tools(body: ipc.GenerateRequest) -> ipc.GenerateRequest:
    """What a plain prompt is held to: its text shows the model no tools."""
    return msgspec.structs.replace(body, tools=[]) if body.tools else body


def _tool_names(tools: list[dict[str, Any]]) -> list[str]:
    return [str(tool["function"]["name"]) for tool in tools if isinstance(tool.get("function"), dict)]


def _schemas(tools: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    functions = [tool["function"] for tool in tools if isinstance(tool.get("function"), dict)]
    return {str(function["name"]): function.get("parameters") or {} for function in functions}


def _options(body: ipc.GenerateRequest) -> dict[str, Any]:
    for name in _RESERVED_OPTIONS:
        if name in body.template_kwargs:
            raise InvalidRequest(f"chat_template_kwargs must not contain {name}", param="chat_template_kwargs")
    return body.template_kwargs


def _check(body: ipc.GenerateRequest) -> None:
    if not 1 <= body.n <= MAX_CHOICES:
        raise InvalidRequest(f"n must be between 1 and {MAX_CHOICES}", param="n")
    if "" in body.stop:
        raise InvalidRequest("a stop string must not be empty", param="stop")
    if (body.tool_choice == "required" or body.tool_names) and not body.tools:
        raise InvalidRequest("tool_choice needs tools", param="tool_choice")


def _checked_prompt(request: CoreRequest, vocabulary: int) -> NDArray[np.int32]:
    """What the core would refuse at the start is refused now, while there is still a status code to say it with."""
    try:
        prompt = validate.checked_prompt(request, vocabulary)
        validate.check(request, vocabulary)
    except validate.Refusal as refusal:
        raise InvalidRequest(str(refusal), param=refusal.param) from refusal
    return prompt


def _check_context(prompt: Prompt, context: int) -> None:
    """One token of the context must be left for the answer."""
    if len(prompt.tokens) >= context:
        raise ContextLengthExceeded.of(len(prompt.tokens), context, "messages" if prompt.chat else "prompt")
