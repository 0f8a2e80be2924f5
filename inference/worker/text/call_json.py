"""Machines for calls written as JSON: ``{"name": ..., "arguments": {...}}``, lists of such, and bare argument objects.

A call begins to come out when its name and the opening brace of its arguments are read; the arguments come out as the
model wrote them (``JsonScanner`` tells what is mended). A call whose arguments stand before its name, or are a text,
is ``NotStreamable``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from inference.worker.text.call_reader import MAX_NAME, Calls, NotACall, NotStreamable, Reader, Steps
from inference.worker.text.json_scan import JsonScanner

_ARGUMENTS = ("arguments", "parameters")
_BARE_KEYS = ("name", "type", "id", "function", *_ARGUMENTS)
_MAX_KEY = 64


@dataclass(frozen=True)
class Envelope:
    """How a family writes the object around the arguments.

    ``bare`` is one without a marker: its name must be a known function's, its arguments must be there, and nothing but
    a type and an id may come beside them. ``type_is_name`` is Granite's habit of writing the name as ``type``.
    """

    bare: bool = False
    type_is_name: bool = False


def follow(reader: Reader, emit: Callable[[str], None]) -> Steps[None]:
    """Read one JSON value and pass it on as it comes."""
    scanner = JsonScanner()
    while True:
        reader.at, text = scanner.take(reader.text, reader.at)
        emit(text)
        if scanner.failed:
            raise NotACall
        if scanner.done:
            return
        yield from reader.more()


def string(reader: Reader, limit: int) -> Steps[str]:
    """Read a JSON string of at most ``limit`` characters as it is written."""
    if (yield from reader.peek()) != '"':
        raise NotACall
    scanner, raw = JsonScanner(), ""
    while not scanner.done:
        reader.at, text = scanner.take(reader.text, reader.at)
        raw += text
        if scanner.failed or len(raw) > limit + 2:
            raise NotACall
        if not scanner.done:
            yield from reader.more()
    return str(json.loads(raw))


def arguments(reader: Reader, calls: Calls, name: str) -> Steps[None]:
    """Read the object that is the arguments of ``name``; the call is left open, for its family to end."""
    if not name or (yield from reader.peek()) != "{":
        raise NotACall
    calls.start(name)
    yield from follow(reader, calls.add)


def whole_call(reader: Reader, calls: Calls, name: str) -> Steps[None]:
    yield from arguments(reader, calls, name)
    calls.end()


def envelope(reader: Reader, calls: Calls, form: Envelope) -> Steps[None]:
    """Read one ``{"name": ..., "arguments": {...}}``."""
    yield from reader.expect("{")
    name = ""
    yield from reader.space()
    while True:
        key = yield from string(reader, _MAX_KEY)
        yield from reader.space()
        yield from reader.expect(":")
        yield from reader.space()
        if form.bare and key not in _BARE_KEYS:
            raise NotACall
        if key == "name" or (key == "type" and form.type_is_name and not name):
            name = yield from _name(reader, calls, form)
        elif key in _ARGUMENTS and not calls.open:
            yield from _member(reader, calls, name)
        else:
            yield from follow(reader, _drop)
        yield from reader.space()
        following = yield from reader.choose((",", "}"))
        if following == "}":
            break
        if not following:
            raise NotACall
        yield from reader.space()
    _finish(calls, name, form)


def array(reader: Reader, calls: Calls, form: Envelope) -> Steps[None]:
    """Read a list of such objects."""
    yield from reader.expect("[")
    while True:
        yield from reader.space()
        yield from envelope(reader, calls, form)
        yield from reader.space()
        following = yield from reader.choose((",", "]"))
        if following == "]":
            return
        if not following:
            raise NotACall


def envelope_or_array(reader: Reader, calls: Calls, form: Envelope) -> Steps[None]:
    yield from reader.space()
    if (yield from reader.peek()) == "[":
        yield from array(reader, calls, form)
    else:
        yield from envelope(reader, calls, form)


def _name(reader: Reader, calls: Calls, form: Envelope) -> Steps[str]:
    name = (yield from string(reader, MAX_NAME)).strip()
    if not name.isprintable() or not name or (form.bare and name not in calls.known):
        raise NotACall
    return name


def _member(reader: Reader, calls: Calls, name: str) -> Steps[None]:
    """The member that holds the arguments; null stands for none."""
    first = yield from reader.peek()
    if first == "n":
        yield from follow(reader, _drop)
    elif not name or first == '"':
        raise NotStreamable
    else:
        yield from arguments(reader, calls, name)


def _finish(calls: Calls, name: str, form: Envelope) -> None:
    if not calls.open:
        if not name or form.bare:
            raise NotACall
        calls.start(name)
        calls.add("{}")
    calls.end()


def _drop(text: str) -> None:
    """Members that say nothing of the call."""
