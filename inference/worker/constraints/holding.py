"""What one request's answers are held to: its tools, its format and its bound on reasoning, put together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inference import ipc
from inference.errors import InvalidRequest
from inference.worker.constraints import answers, schemas
from inference.worker.constraints.answers import Forced, Offer, Uncarried
from inference.worker.constraints.calls import SPACE, CallSyntax, Tool
from inference.worker.constraints.formats import schema_grammar
from inference.worker.constraints.gate import Budget, RawTokens, Reasoning, ReasoningGate
from inference.worker.constraints.guide import Compiler, Guide
from inference.worker.constraints.lark import Lark
from inference.worker.constraints.needs import holds_calls, is_strict
from inference.worker.core.types import Constraint


@dataclass(frozen=True)
class Habits:
    """How this model writes calls and reasoning after one prompt.

    ``forms``, ``starts`` and ``bare`` as in ``answers.Offer``. ``channels`` says that it writes harmony's messages.
    ``reasoning`` is None where it does none. ``endings`` are the tokens of the end marker and of each ending of it.
    ``eos`` end an answer. ``begun`` is the text of the assistant's message that the answer goes on with.
    """

    forms: Sequence[CallSyntax] = ()
    starts: Mapping[str, str] = field(default_factory=dict)
    bare: bool = False
    channels: bool = False
    reasoning: Reasoning | None = None
    endings: Mapping[str, list[int]] = field(default_factory=dict)
    eos: Collection[int] = ()
    begun: str = ""


@dataclass(frozen=True)
class Held:
    """``make`` makes the constraint of one choice. ``described`` says that a grammar describes the answer, ``marked``
    that what has no marker around it is no call.
    """

    make: Callable[[], Constraint] | None = None
    forced: Forced = ""
    named: bool = False
    described: bool = False
    marked: bool = False


def hold(body: ipc.GenerateRequest, compiler: Compiler, habits: Habits, tokens: RawTokens) -> Held:
    """Raises ``InvalidRequest`` for what cannot be enforced."""
    if body.thinking_budget is not None and body.thinking_budget < 0:
        raise InvalidRequest("thinking_budget must not be negative", param="thinking_budget")
    formatted = body.output_format.kind != "text"
    budget = body.thinking_budget is not None and habits.reasoning is not None
    offer = _offer(body, habits) if holds_calls(body) or formatted or (habits.channels and budget) else None
    guide: Callable[[], Guide] | None = None
    forced: Forced = ""
    if offer is not None or formatted or (habits.channels and budget):
        guide, forced = _guide(body, compiler, habits, offer)
    return Held(
        _gated(guide, body, compiler, habits, tokens),
        forced,
        named=bool(forced) and len(body.tool_names) == 1,
        described=guide is not None,
        marked=offer is not None and not habits.bare,
    )


def _offer(body: ipc.GenerateRequest, habits: Habits) -> Offer | None:
    """The tools that may be called, None where the model is shown none."""
    if not body.tools or body.tool_choice == "none":
        return None
    functions = [tool.get("function") for tool in body.tools]
    names = [str(function.get("name")) if isinstance(function, dict) else "" for function in functions]
    missing = [name for name in body.tool_names if name not in names]
    if missing:
        raise InvalidRequest(f"tool_choice names {missing[0]!r}, which is not in tools", param="tool_choice")
    tools = [
        Tool(name, _parameters(tool, f"tools[{index}].function.parameters"))
        for index, (name, tool) in enumerate(zip(names, body.tools, strict=True))
        if name and (name in body.tool_names or not body.tool_names)
    ]
    required = body.tool_choice == "required"
    return Offer(
        tools,
        habits.forms,
        habits.starts,
        bare=habits.bare,
        required=required,
        single=not body.parallel_tool_calls or (required and len(body.tool_names) == 1),
    )


def _parameters(tool: dict[str, Any], place: str) -> schemas.Schema:
    """The schema of a tool's arguments. A strict tool's is kept wholly or refused; of another's what can be kept."""
    try:
        schema = schemas.arguments(tool["function"].get("parameters"))
        if is_strict(tool):
            return _strict(schema, place)
        return _lenient(schema)
    except RecursionError:
        raise InvalidRequest(f"{place} is nested too deeply", param=place) from None


def _strict(schema: schemas.Schema, place: str) -> schemas.Schema:
    try:
        schemas.check(schema)
        made = schemas.definite(schema)
        schema_grammar(made, SPACE)
    except ValueError as error:
        raise InvalidRequest(f"{place} cannot be enforced: {error}", param=place) from error
    return made


def _lenient(schema: schemas.Schema) -> schemas.Schema:
    """The first of ever weaker readings that can be enforced."""
    for patterns in (True, False):
        try:
            made = schemas.definite(schemas.relaxed(schema, patterns=patterns))
            schema_grammar(made, SPACE)
        except ValueError:
            continue
        return made
    return {"type": "object"}


def _guide(
    body: ipc.GenerateRequest, compiler: Compiler, habits: Habits, offer: Offer | None
) -> tuple[Callable[[], Guide], Forced]:
    kind = body.output_format.kind
    formatted = kind != "text"
    alone = compiler.compile(body.output_format) if formatted else None
    try:
        source, forced = _source(body, compiler, habits, offer, formatted=formatted)
    except Uncarried as error:
        raise InvalidRequest(f"{error} cannot be enforced while decoding", param=_blamed(body)) from error
    if source is None and alone is not None:
        return _begun(alone, compiler, body, habits), ""
    grammars = [{"name": "answer", "lark_grammar": source}]
    if formatted:
        grammars.append({**compiler.format(body.output_format), "name": answers.FORMAT})
    make = compiler.build(grammars, kind if formatted and offer is None else "")
    return make if forced else _begun(make, compiler, body, habits), forced


def _source(
    body: ipc.GenerateRequest, compiler: Compiler, habits: Habits, offer: Offer | None, *, formatted: bool
) -> tuple[str | None, Forced]:
    lark = Lark(compiler.special)
    if habits.channels:
        forced: Forced = "native" if offer is not None and offer.required else ""
        return answers.channels(lark, offer, formatted=formatted, opened=bool(habits.begun)), forced
    if offer is None:
        return None, ""
    if offer.required:
        return answers.forced_calls(lark, offer)
    return (answers.calls_or_format(lark, offer) if formatted else answers.free_text(lark, offer)), ""


def _blamed(body: ipc.GenerateRequest) -> str:
    if body.output_format.kind != "text":
        return "response_format"
    return "tool_choice" if body.tool_names else "tools"


def _begun(
    make: Callable[[], Guide], compiler: Compiler, body: ipc.GenerateRequest, habits: Habits
) -> Callable[[], Guide]:
    """An answer that goes on with a message is held to the format as a whole."""
    if not habits.begun or (habits.reasoning is not None and habits.reasoning.open):
        return make
    tokens = compiler.tokens_of(habits.begun)

    def begun() -> Guide:
        guide = make()
        if guide.begun_with(tokens):
            return guide
        if body.output_format.kind == "text":
            return make()
        raise InvalidRequest(
            "the last message, which the answer goes on with, does not begin as response_format demands",
            param="response_format",
        )

    begun()
    return begun


def _gated(
    guide: Callable[[], Guide] | None,
    body: ipc.GenerateRequest,
    compiler: Compiler,
    habits: Habits,
    tokens: RawTokens,
) -> Callable[[], Constraint] | None:
    """The grammar behind the reasoning, where there is any."""
    reasoning = habits.reasoning
    budget = None if body.thinking_budget is None else Budget(body.thinking_budget, habits.endings)
    if reasoning is None or (habits.channels and budget is None):
        return guide
    if guide is None:
        return None if budget is None else lambda: ReasoningGate(None, reasoning, tokens, budget=budget)
    if not (reasoning.open or reasoning.within or reasoning.start_token is not None):
        return guide
    lark = Lark(compiler.special)
    starts = (lark.leading_token(start) for start in habits.starts)
    forbidden = {*habits.eos, *(token for token in starts if token is not None)}
    made = guide
    return lambda: ReasoningGate(made(), reasoning, tokens, budget=budget, forbidden=forbidden)
