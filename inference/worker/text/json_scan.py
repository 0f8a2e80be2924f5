"""Follows one JSON value that arrives in pieces, character by character, without recursion and without looking back."""

from __future__ import annotations

import re
from typing import Literal

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_SPACE = " \t\n\r"
_ESCAPES = '"\\/bfnrt'
_HEX = "0123456789abcdefABCDEF"
_CONTROL = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LITERALS = {"t": "rue", "f": "alse", "n": "ull"}
_DIGITS = "0123456789"
_NUMBER_STARTS = {"-": "minus", "0": "zero"} | dict.fromkeys("123456789", "integer")
_NUMBER: dict[str, dict[str, str]] = {
    "minus": {"0": "zero"} | dict.fromkeys("123456789", "integer"),
    "zero": {".": "point", "e": "exponent", "E": "exponent"},
    "integer": {".": "point", "e": "exponent", "E": "exponent"} | dict.fromkeys(_DIGITS, "integer"),
    "point": dict.fromkeys(_DIGITS, "fraction"),
    "fraction": {"e": "exponent", "E": "exponent"} | dict.fromkeys(_DIGITS, "fraction"),
    "exponent": {"+": "sign", "-": "sign"} | dict.fromkeys(_DIGITS, "power"),
    "sign": dict.fromkeys(_DIGITS, "power"),
    "power": dict.fromkeys(_DIGITS, "power"),
}
_NUMBER_ENDS = ("zero", "integer", "fraction", "power")

Expect = Literal["value", "first value", "key", "first key", "colon", "next"]


class JsonScanner:
    """The state of one value. ``done`` once it is complete, ``failed`` once what comes cannot belong to it.

    Two lapses within strings, which JSON forbids and models write, are mended: control characters come out escaped,
    and a backslash before a character that needs none stands for itself (before an apostrophe, for nothing).
    """

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._stack: list[str] = []
        self._expect: Expect = "value"
        self._string: Literal["", "key", "value"] = ""
        self._escaped = False
        self._hex = 0
        self._number = ""
        self._literal = ""

    def take(self, text: str, at: int) -> tuple[int, str]:
        """Read on from ``text[at]``; returns the place of the first character that was not read, and what was, as JSON.

        A number on its own is complete only when something else follows.
        """
        out: list[str] = []
        while at < len(text) and not (self.done or self.failed):
            if self._string:
                at = self._in_string(text, at, out)
            elif self._outside(text[at]):
                out.append(text[at])
                at += 1
        return at, "".join(out)

    def _in_string(self, text: str, at: int, out: list[str]) -> int:
        if self._hex:
            return self._in_hex(text, at, out)
        character = text[at]
        if self._escaped:
            self._escaped = False
            self._hex = 4 if character == "u" else 0
            out.append(_escape(character))
            return at + 1
        plain = _PLAIN.match(text, at)
        if plain is not None:
            out.append(plain[0])
            return plain.end()
        if character == "\\":
            self._escaped = True
            return at + 1
        out.append('"' if character == '"' else _control(character))
        if character == '"':
            self._string_ends()
        return at + 1

    def _in_hex(self, text: str, at: int, out: list[str]) -> int:
        if text[at] not in _HEX:
            self.failed = True
            return at
        self._hex -= 1
        out.append(text[at])
        return at + 1

    def _string_ends(self) -> None:
        kind, self._string = self._string, ""
        if kind == "key":
            self._expect = "colon"
        else:
            self._value_ends()

    def _outside(self, character: str) -> bool:
        """Take a character outside strings; False if it was not taken, because it ended a number or cannot come."""
        if self._number:
            return self._in_number(character)
        if self._literal:
            return self._in_literal(character)
        if character in _SPACE:
            return True
        if self._expect in ("value", "first value"):
            return self._begin(character)
        if self._expect in ("key", "first key"):
            return self._key(character)
        if self._expect == "colon":
            self._expect = "value"
            return self._require(character == ":")
        return self._next(character)

    def _require(self, right: bool) -> bool:
        self.failed = not right
        return right

    def _in_number(self, character: str) -> bool:
        following = _NUMBER[self._number].get(character, "")
        if following:
            self._number = following
            return True
        if self._require(self._number in _NUMBER_ENDS):
            self._number = ""
            self._value_ends()
        return False

    def _in_literal(self, character: str) -> bool:
        if not self._require(character == self._literal[0]):
            return False
        self._literal = self._literal[1:]
        if not self._literal:
            self._value_ends()
        return True

    def _begin(self, character: str) -> bool:
        if character == "]" and self._expect == "first value":
            return self._close("]")
        if character in "{[":
            self._stack.append("}" if character == "{" else "]")
            self._expect = "first key" if character == "{" else "first value"
        elif character == '"':
            self._string = "value"
        elif character in _NUMBER_STARTS:
            self._number = _NUMBER_STARTS[character]
        elif character in _LITERALS:
            self._literal = _LITERALS[character]
        else:
            self.failed = True
        return not self.failed

    def _key(self, character: str) -> bool:
        if character == "}" and self._expect == "first key":
            return self._close("}")
        self._string = "key" if character == '"' else ""
        return self._require(character == '"')

    def _next(self, character: str) -> bool:
        if character == ",":
            self._expect = "key" if self._stack[-1] == "}" else "value"
            return True
        return self._close(character)

    def _close(self, character: str) -> bool:
        if not self._require(character == self._stack[-1]):
            return False
        self._stack.pop()
        self._value_ends()
        return True

    def _value_ends(self) -> None:
        self.done = not self._stack
        self._expect = "next"


def _escape(character: str) -> str:
    if character in _ESCAPES or character == "u":
        return "\\" + character
    return "'" if character == "'" else "\\\\" + (character if character >= " " else _control(character))


def _control(character: str) -> str:
    return _CONTROL.get(character, f"\\u{ord(character):04x}")
