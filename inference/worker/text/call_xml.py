"""Machines for calls with a marker around each parameter, of which the JSON of the arguments is made.

A parameter that the function's schema declares a string comes out while it is decoded; any other when it is complete,
as JSON if it reads as such (``call_values``). The call begins to come out with its first parameter or its end. A
parameter given twice counts once, the first time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from inference.worker.text.call_reader import MAX_NAME, Calls, NotACall, Reader, Steps
from inference.worker.text.call_values import as_json, types_of
from inference.worker.text.split import held_length

Trim = Literal["space", "line", ""]


@dataclass(frozen=True)
class Form:
    """The markers of a family: before a parameter's name, between name and value, after the value, after the call.

    ``between`` has one entry for each way; an entry's value is the JSON type it announces, "" for none. ``trim`` is
    what belongs to the markers and not to the value: white space, one line break on either side, or nothing. Where
    ``followed`` names what stands behind ``after``, an ``after`` before anything else is a part of the value.
    """

    before: str
    between: dict[str, str]
    after: str
    end: str
    trim: Trim
    followed: tuple[str, ...] = ()


FUNCTION = Form("<parameter=", {">": ""}, "</parameter>", "</function>", "line")
FUNCTION_SPACED = Form("<parameter=", {">": ""}, "</parameter>", "</function>", "space")
_AFTER_VALUE = ("<arg_key>", "</tool_call>", "<tool_call>")
KEYS = Form("<arg_key>", {"</arg_key>": ""}, "</arg_value>", "</tool_call>", "space", _AFTER_VALUE)
KEYS_EXACT = Form("<arg_key>", {"</arg_key>": ""}, "</arg_value>", "</tool_call>", "", _AFTER_VALUE)
INVOKE = Form('<parameter name="', {'">': ""}, "</parameter>", "</invoke>", "space")
DSML = Form(
    '<｜DSML｜parameter name="',
    {'" string="true">': "string", '" string="false">': "other"},
    "</｜DSML｜parameter>",
    "</｜DSML｜invoke>",
    "",
)


def parameters(reader: Reader, calls: Calls, name: str, form: Form) -> Steps[None]:
    """Read the parameters of a call to ``name`` and the marker that ends it."""
    seen: set[str] = set()
    while True:
        yield from reader.space()
        found = yield from reader.choose((form.before, form.end))
        if not found or not name:
            raise NotACall
        if not calls.open:
            calls.start(name)
        if found == form.end:
            break
        yield from _parameter(reader, calls, name, form, seen)
    calls.add("}" if seen else "{}")
    calls.end()


def _parameter(reader: Reader, calls: Calls, name: str, form: Form, seen: set[str]) -> Steps[None]:
    key, marker = yield from reader.until(form.between, MAX_NAME)
    key = key.strip()
    if marker == "</arg_key>":
        yield from reader.space()
        if not (yield from reader.choose(("<arg_value>",))):
            raise NotACall
    announced = form.between[marker]
    types = types_of(calls.schemas.get(name, {}), key) if not announced else frozenset((announced,))
    value = _Value(calls, key, seen)
    if types == {"string"}:
        yield from _string(reader, value, form)
        return
    text, _ = yield from _all(reader, form)
    value.whole(as_json(text, types if announced != "other" else frozenset()))


class _Value:
    """Writes one member of the arguments; nothing for a key that is there already."""

    def __init__(self, calls: Calls, key: str, seen: set[str]) -> None:
        self._calls = None if key in seen else calls
        self._before = ("," if seen else "{") + json.dumps(key, ensure_ascii=False) + ":"
        seen.add(key)

    def add(self, text: str) -> None:
        if self._calls is not None:
            self._calls.add(text)

    def begin(self) -> None:
        self.add(self._before + '"')

    def whole(self, text: str) -> None:
        self.add(self._before + text)


def _string(reader: Reader, value: _Value, form: Form) -> Steps[None]:
    """Pass a string on, without what belongs to the markers. Up to ``space`` nothing but white space is held."""
    value.begin()
    yield from _skip_lead(reader, form)
    space = looked = reader.place
    while True:
        at = reader.text.find(form.after, looked - reader.base)
        if at >= 0:
            place = reader.base + at
            if not (yield from _ends(reader, place + len(form.after), form)):
                looked = place + len(form.after)
                continue
            at = place - reader.base
        start = space - reader.base if form.trim == "space" else reader.at
        end = at if at >= 0 else len(reader.text) - held_length(reader.text[looked - reader.base :], (form.after,))
        text = _without_tail(reader.text[start:end], form)
        if text:
            value.add(json.dumps(reader.text[reader.at : start + len(text)], ensure_ascii=False)[1:-1])
            reader.at = start + len(text)
        if at >= 0:
            reader.at = at + len(form.after)
            value.add('"')
            return
        space = looked = reader.base + end
        yield from reader.more()


def _ends(reader: Reader, place: int, form: Form) -> Steps[bool]:
    """Whether the marker before ``place`` ends the value, by what follows it; the end of the answer does not."""
    longest = max(map(len, form.followed), default=0)
    while form.followed:
        while place < reader.base + len(reader.text) and reader.text[place - reader.base].isspace():
            place += 1
        at = place - reader.base
        rest = reader.text[at : at + longest]
        if reader.ended or rest.startswith(form.followed):
            return True
        if not any(marker.startswith(rest) for marker in form.followed):
            return False
        yield from reader.more()
    return True


def _skip_lead(reader: Reader, form: Form) -> Steps[None]:
    if form.trim == "space":
        yield from reader.space()
    elif form.trim == "line" and (yield from reader.peek()) == "\n":
        reader.at += 1


def _without_tail(text: str, form: Form) -> str:
    if form.trim == "space":
        return text.rstrip()
    return text.removesuffix("\n") if form.trim == "line" else text


def _all(reader: Reader, form: Form) -> Steps[tuple[str, str]]:
    """The whole value, as the family trims it."""
    searched = reader.place
    while True:
        at = reader.text.find(form.after, max(reader.at, searched - reader.base))
        if at >= 0:
            place = reader.base + at
            if (yield from _ends(reader, place + len(form.after), form)):
                at = place - reader.base
                break
            searched = place + len(form.after)
            continue
        searched = max(reader.place, reader.base + len(reader.text) - len(form.after))
        yield from reader.more()
    text = reader.text[reader.at : at]
    reader.at = at + len(form.after)
    if form.trim == "space":
        text = text.strip()
    elif form.trim == "line":
        text = text.removeprefix("\n").removesuffix("\n")
    return text, form.after
