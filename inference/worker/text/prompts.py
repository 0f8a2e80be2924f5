"""From a ``GenerateRequest`` to prompt tokens, checked, with the plan for its answer. Runs on the CPU thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from inference import ipc
from inference.errors import ContextLengthExceeded, InvalidRequest, Unsupported
from inference.worker.constraints.gate import ReasoningGate
from inference.worker.constraints.guide import Compiler
from inference.worker.core import validate
from inference.worker.core.types import Constraint, CoreRequest
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
    """``text`` is what the tokens were made from; of a prompt given in tokens it is decoded."""

    tokens: list[int]
    text: str
    chat: bool


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
            text = self.template.render(body.messages, _tools(body), _options(body))
            return Prompt(self.tokenizer.encode(text, add_special_tokens=False), text, chat=True)
        if isinstance(body.prompt, str):
            tokens = self.tokenizer.encode(body.prompt, add_special_tokens=True)
            return Prompt(self._begun(tokens), body.prompt, chat=False)
        tokens = self._begun(list(body.prompt or ()))
        return Prompt(tokens, self.table.decode(tokens), chat=False)

    def ready(self, request: str, body: ipc.GenerateRequest) -> Ready:
        """Everything that can be refused is refused here."""
        _check(body)
        with self.lock:
            prompt = self.prompt(body)
            _check_context(prompt, self.context)
            plan = self._plan(request, body, prompt)
        make = None if body.output_format.kind == "text" else self._constraint(body, prompt)
        core = CoreRequest(
            key=request,
            prompt=prompt.tokens,
            max_tokens=self.context - len(prompt.tokens) if body.max_tokens is None else body.max_tokens,
            eos=plan.eos,
            sampling=body.sampling,
            n=body.n,
            constraints=[make() for _ in range(body.n)] if make is not None else [],
        )
        _check_core(core, self.vocabulary)
        return Ready(prompt, core, plan, prompt.text if body.echo else "")

    def _begun(self, tokens: list[int]) -> list[int]:
        """An empty prompt begins with the token that begins every text, where the model has one."""
        if tokens:
            return tokens
        begin = getattr(self.tokenizer, "bos_token_id", None)
        if begin is None:
            raise InvalidRequest("the prompt is empty, and this model has no token that begins a text", param="prompt")
        return [begin]

    def _plan(self, request: str, body: ipc.GenerateRequest, prompt: Prompt) -> OutputPlan:
        eos = frozenset() if body.ignore_eos else self.eos
        stops = StopStrings(body.stop)
        if not prompt.chat:
            return OutputPlan(request, self.table, eos=eos, stops=stops, continues=True)
        tools = _tools(body)
        parser = self.dialect.tool_parser
        markers = self.dialect.markers(tools=bool(tools))
        return OutputPlan(
            request,
            self.table,
            eos=eos,
            stops=stops,
            splitter=partial(self.dialect.splitter, prompt.text, tools=bool(tools)),
            syntax=self.dialect.syntax if tools else None,
            parse=partial(_parse, parser, tools) if parser is not None else None,
            known_tools=frozenset(_tool_names(tools)),
            parallel_calls=body.parallel_tool_calls,
            visible=frozenset(
                token
                for token, text in self.table.special_text.items()
                if text and any(text in marker for marker in markers)
            ),
        )

    def _constraint(self, body: ipc.GenerateRequest, prompt: Prompt) -> Callable[[], Constraint]:
        if _tools(body):
            raise InvalidRequest(
                "response_format and tools cannot be used together yet; send tool_choice none with it",
                param="response_format",
            )
        guide = self.compiler.compile(body.output_format)
        after = self.dialect.constrained_after(prompt.text, self.ids) if prompt.chat else None
        if after is None:
            return guide
        return lambda: ReasoningGate(guide(), after, self.table)


def _parse(parser: str, tools: list[dict[str, Any]], text: str) -> list[Call]:
    return parse_calls(parser, text, tools)


def _tools(body: ipc.GenerateRequest) -> list[dict[str, Any]]:
    """The tools the model is shown."""
    return [] if body.tool_choice == "none" else body.tools


def _tool_names(tools: list[dict[str, Any]]) -> list[str]:
    return [str(tool["function"]["name"]) for tool in tools if isinstance(tool.get("function"), dict)]


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
    if body.tool_choice == "required" or body.tool_names:
        raise Unsupported("tool_choice can be auto or none for this model", param="tool_choice")
    if body.echo and body.sampling.top_logprobs is not None:
        raise Unsupported("logprobs of an echoed prompt are not available", param="echo")


def _check_core(request: CoreRequest, vocabulary: int) -> None:
    """What the core would refuse at the start is refused now, while there is still a status code to say it with."""
    try:
        validate.checked_prompt(request, vocabulary)
        validate.check(request, vocabulary)
    except validate.Refusal as refusal:
        raise InvalidRequest(str(refusal), param=refusal.param) from refusal


def _check_context(prompt: Prompt, context: int) -> None:
    """One token of the context must be left for the answer."""
    if len(prompt.tokens) >= context:
        raise ContextLengthExceeded.of(len(prompt.tokens), context, "messages" if prompt.chat else "prompt")
