"""The grammar of a whole answer: calls, or free text with held calls in it, or a format, or calls or a format.

All are sources in llguidance's Lark. With harmony's channels the grammar describes the reasoning as well, because
there it is one of the messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from inference.worker.constraints.calls import BARE, PLAIN, SPACE, CallSyntax, Tool, carries, rules_of
from inference.worker.constraints.lark import Lark, document, escaped, json_rule, quoted

Forced = Literal["", "native", "json"]

_TEXT = r"(.|\n)*"
FORMAT = "format"
"""The name of the format's grammar, which an answer's may use."""


@dataclass(frozen=True)
class Offer:
    """The tools that an answer may call. ``forms`` are the ways of the model to begin a call, the first the usual one.

    ``starts`` are all the markers at which its parser looks for calls, each with what closes
    them or "". ``bare`` says that it takes an answer that
    begins as a JSON object for a call. ``required`` leaves no other answer, ``single`` no second call.
    """

    tools: Sequence[Tool]
    forms: Sequence[CallSyntax]
    starts: Mapping[str, str] = field(default_factory=dict)
    bare: bool = False
    required: bool = False
    single: bool = False


_UNCARRIED = "Calls of these tools, in this model's own syntax and within a free answer,"


class Uncarried(ValueError):
    """The model's own syntax cannot carry the tools, and nothing else can stand in a free text."""


def forced_calls(lark: Lark, offer: Offer) -> tuple[str, Forced]:
    """An answer that is calls and nothing else, and in which syntax they are."""
    native = bool(offer.forms) and not offer.bare and carries(offer.forms[0], offer.tools)
    form = offer.forms[0] if native else PLAIN
    rules = {"start": "calls"} | rules_of(lark, form, offer.tools, single=offer.single, prefix="calls")
    return document(rules), "native" if native else "json"


def free_text(lark: Lark, offer: Offer) -> str:
    """A text as the model likes, held to the tools wherever it begins a call.

    After a call that its syntax does not close there is nothing but further calls.
    """
    rules: dict[str, str] = {}
    closed: list[str] = []
    last = ["tail"]
    for index, form in enumerate(offer.forms):
        marker = next((start for start in offer.starts if form.start.startswith(start)), None)
        if marker is None or not carries(form, offer.tools):
            continue
        name, ends = f"form_{index}", bool(offer.starts[marker])
        rules |= rules_of(lark, form, offer.tools, single=ends or offer.single, prefix=name, begun=marker)
        rules |= _led_to(lark, marker, name)
        (closed if ends and not offer.single else last).append(f"free_{name}")
    if offer.bare:
        rules |= rules_of(lark, BARE, offer.tools, single=offer.single, prefix="bare")
    elif not rules:
        raise Uncarried(_UNCARRIED)
    whole = (f"({' | '.join(closed)})* " if closed else "") + f"({' | '.join(last)})"
    start = f"bare | {whole}" if offer.bare else whole
    return document({"start": start, "tail": "TEXT"} | rules | {"TEXT": _text(offer)})


def _led_to(lark: Lark, marker: str, name: str) -> dict[str, str]:
    """Free text up to a marker, and what follows it."""
    token = lark.leading_token(marker)
    if token is not None:
        return {f"free_{name}": f"TEXT <[{token}]> {name}"}
    return {f"head_{name}[lazy]": f"TEXT {quoted(marker)}", f"free_{name}": f"head_{name} {name}"}


def calls_or_format(lark: Lark, offer: Offer) -> str:
    """An answer that is calls or a text under the format, whose grammar is called ``format``."""
    form = BARE if offer.bare else next((form for form in offer.forms if carries(form, offer.tools)), None)
    if form is None:
        raise Uncarried(_UNCARRIED)
    rules = {"start": f"calls | @{FORMAT}"} | rules_of(lark, form, offer.tools, single=offer.single, prefix="calls")
    return document(rules)


def channels(lark: Lark, offer: Offer | None, *, formatted: bool, thinks: bool = True, opened: bool = False) -> str:
    """Harmony's messages: analysis, then a call or the final one. A call ends the answer, so there is one at most.

    ``opened`` says that the prompt ends within the final message.
    """
    body = f"@{FORMAT}" if formatted else "TEXT"
    if opened:
        return document({"start": body, "TEXT": f"/{_TEXT}/"})
    then = lark.literal("<|end|><|start|>assistant")
    analysis = f"{lark.literal('<|channel|>analysis<|message|>')} TEXT {then}"
    rules = {"final": f"{lark.literal('<|channel|>final<|message|>')} {body}", "analysis": analysis}
    ends = [] if offer is not None and offer.required else ["final"]
    if offer is not None:
        ends.append("calls")
        for index, tool in enumerate(offer.tools):
            head = f"<|channel|>commentary to=functions.{tool.name} <|constrain|>json<|message|>"
            rules[f"calls_{index}"] = f"{lark.literal(head)} {json_rule(tool.schema, SPACE)}"
        rules["calls"] = " | ".join(f"calls_{index}" for index in range(len(offer.tools)))
        if not formatted and not offer.required:
            rules["preamble"] = f"{lark.literal('<|channel|>commentary<|message|>')} TEXT {then}"
    first = "analysis? " if thinks else ""
    first += "preamble? " if "preamble" in rules else ""
    rules["start"] = f"{first}({' | '.join(ends)})"
    return document(rules | {"TEXT": f"/{_TEXT}/"})


def _text(offer: Offer) -> str:
    """Free text without the markers at which a call begins, so that every call is a held one."""
    never = [escaped(start) for start in offer.starts]
    if offer.bare:
        never.append(r'\{[ \n\t]*"(name|type|function)"')
    return f"/{_TEXT}/ & ~/{_TEXT}({'|'.join(never)}){_TEXT}/" if never else f"/{_TEXT}/"
