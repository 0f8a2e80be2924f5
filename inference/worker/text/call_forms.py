"""The machine of each start marker: what a family writes after it."""

from __future__ import annotations

import re
from collections.abc import Callable

from inference.worker.text.call_json import Envelope, array, envelope, envelope_or_array, whole_call
from inference.worker.text.call_reader import Calls, NotACall, Reader, Steps
from inference.worker.text.call_xml import Form, parameters

Machine = Callable[[Reader, Calls], Steps[bool]]
"""Reads what follows a start marker; True if it read the block's end marker too. Raises ``NotACall``."""

_PLAIN_NAME = re.compile(r"[^\s<>{}\[\]()\"]+")
_KIMI_INDEX = re.compile(r":\d+$")
_KIMI_CALL = "<|tool_call_begin|>"
_DEEPSEEK_CALL = "<｜tool▁call▁begin｜>"
_MARKED = Envelope()


def _plain(name: str) -> str:
    name = name.strip()
    if _PLAIN_NAME.fullmatch(name) is None:
        raise NotACall
    return name


def tagged(function: Form, keys: Form | None = None, form: Envelope = _MARKED) -> Machine:
    """``<tool_call>`` with JSON, with ``<function=NAME>``, or, given ``keys``, with a bare name and its parameters."""

    def read(reader: Reader, calls: Calls) -> Steps[bool]:
        made = calls.made
        while True:
            yield from reader.space()
            if (yield from reader.peek()) in "{[":
                yield from envelope_or_array(reader, calls, form)
            elif (yield from reader.choose(("<function=",))):
                yield from function_call(function)(reader, calls)
            elif calls.made > made and (yield from reader.choose(("</tool_call>",))):
                return True
            elif keys is not None:
                return (yield from _keyed(reader, calls, keys))
            else:
                raise NotACall

    return read


def function_call(form: Form) -> Machine:
    """``<function=NAME>`` with JSON or with parameters, up to ``</function>``."""

    def read(reader: Reader, calls: Calls) -> Steps[bool]:
        name = _plain((yield from reader.until((">",)))[0])
        yield from reader.space()
        if (yield from reader.peek()) != "{":
            yield from parameters(reader, calls, name, form)
            return True
        yield from whole_call(reader, calls, name)
        yield from reader.space()
        if not (yield from reader.choose((form.end,))):
            raise NotACall
        reader.mark = reader.at
        return True

    return read


def _keyed(reader: Reader, calls: Calls, form: Form) -> Steps[bool]:
    """A name on a line of its own, then keys and values. Without any the name must be a known one."""
    text, marker = yield from reader.until(("\n", form.before, form.end))
    name = _plain(text)
    reader.at -= len(marker)
    yield from reader.space()
    if name not in calls.known and name not in calls.schemas:
        if not (yield from reader.choose((form.before,))):
            raise NotACall
        reader.at -= len(form.before)
    yield from parameters(reader, calls, name, form)
    return True


def mistral(reader: Reader, calls: Calls) -> Steps[bool]:
    """A list of calls, as in the beginning, or a name with ``[CALL_ID]``, ``[ARGS]`` or nothing before the braces."""
    yield from reader.space()
    if (yield from reader.peek()) in "{[":
        yield from envelope_or_array(reader, calls, _MARKED)
        return False
    name, marker = yield from reader.until(("[ARGS]", "[CALL_ID]", "{"))
    if marker == "[CALL_ID]":
        _, marker = yield from reader.until(("[ARGS]", "{"))
    if marker == "{":
        reader.at -= 1
    yield from reader.space()
    yield from whole_call(reader, calls, _plain(name))
    return False


def listed(form: Envelope) -> Machine:
    """A list of calls."""

    def read(reader: Reader, calls: Calls) -> Steps[bool]:
        yield from reader.space()
        yield from array(reader, calls, form)
        return False

    return read


def several(form: Envelope) -> Machine:
    """One call, or several with semicolons or white space between them, or a list."""

    def read(reader: Reader, calls: Calls) -> Steps[bool]:
        yield from envelope_or_array(reader, calls, form)
        while True:
            yield from reader.space()
            if (yield from reader.choose((";",))):
                yield from reader.space()
            yield from envelope(reader, calls, form)

    return read


def fenced(reader: Reader, calls: Calls) -> Steps[bool]:
    """A fence of Markdown around calls of known functions."""
    yield from envelope_or_array(reader, calls, Envelope(bare=True))
    return False


def bracketed(reader: Reader, calls: Calls) -> Steps[bool]:
    """``NAME({...})``."""
    name = _plain((yield from reader.until(("(",)))[0])
    yield from reader.space()
    yield from whole_call(reader, calls, name)
    return False


def kimi(*, begun: bool) -> Machine:
    """Calls up to the end of their section. ``begun``: the first one's own marker was read, a section's was not."""

    def read(reader: Reader, calls: Calls) -> Steps[bool]:
        made, found = calls.made, _KIMI_CALL if begun else ""
        while True:
            if not found:
                yield from reader.space()
                found = yield from reader.choose(
                    (_KIMI_CALL, "<|tool_calls_section_end|>", "<|tool_call_section_end|>")
                )
            if not found or (found != _KIMI_CALL and calls.made == made):
                raise NotACall
            if found != _KIMI_CALL:
                return True
            text, _ = yield from reader.until(("<|tool_call_argument_begin|>",))
            yield from reader.space()
            yield from whole_call(reader, calls, _plain(_KIMI_INDEX.sub("", text.strip()).split(".")[-1]))
            yield from reader.space()
            if not (yield from reader.choose(("<|tool_call_end|>",))):
                raise NotACall
            reader.mark, found = reader.at, ""

    return read


def deepseek(*, begun: bool) -> Machine:
    """V3 and R1: a type, a name and fenced JSON. V3.1: a name and JSON. ``begun`` as in ``kimi``."""

    def read(reader: Reader, calls: Calls) -> Steps[bool]:
        made, found = calls.made, _DEEPSEEK_CALL if begun else ""
        while True:
            if not found:
                yield from reader.space()
                found = yield from reader.choose((_DEEPSEEK_CALL, "<｜tool▁calls▁end｜>"))
            if not found or (found != _DEEPSEEK_CALL and calls.made == made):
                raise NotACall
            if found != _DEEPSEEK_CALL:
                return True
            yield from _deepseek_call(reader, calls)
            yield from reader.space()
            yield from reader.choose(("```",))
            yield from reader.space()
            if not (yield from reader.choose(("<｜tool▁call▁end｜>",))):
                raise NotACall
            reader.mark, found = reader.at, ""

    return read


def _deepseek_call(reader: Reader, calls: Calls) -> Steps[None]:
    name, marker = yield from reader.until(("<｜tool▁sep｜>", "\n"))
    yield from reader.space()
    if marker == "<｜tool▁sep｜>" and (yield from reader.peek()) not in "{`":
        name, _ = yield from reader.until(("\n",))
        yield from reader.space()
    yield from reader.choose(("```json", "```"))
    yield from reader.space()
    yield from whole_call(reader, calls, _plain(name))


def invokes(before: str, end: str, form: Form, *, begun: bool = False, known: bool = False) -> Machine:
    """Calls of the kind ``<invoke name="NAME">`` up to ``end``, the block's end marker. ``begun`` as in ``kimi``.

    ``known``: the first counts only if it names a function of the request.
    """

    def read(reader: Reader, calls: Calls) -> Steps[bool]:
        made, found = calls.made, before if begun else ""
        while True:
            if not found:
                yield from reader.space()
                found = yield from reader.choose((before, end))
            if not found or (found == end and calls.made == made):
                raise NotACall
            if found == end:
                return True
            name = _plain((yield from reader.until(('">',)))[0])
            if known and calls.made == made and name not in calls.known:
                raise NotACall
            yield from parameters(reader, calls, name, form)
            found = ""

    return read


def functionary(*, from_: bool) -> Machine:
    """``<|recipient|>NAME\\n<|content|>{...}``. A message to the user or to all is text, not a call."""

    def read(reader: Reader, calls: Calls) -> Steps[bool]:
        if from_:
            yield from reader.until(("<|recipient|>",))
        text, _ = yield from reader.until(("<|content|>",))
        name = _plain(text)
        if name in ("all", "user"):
            reader.mark = None
            return False
        yield from reader.space()
        yield from whole_call(reader, calls, name)
        return False

    return read
