"""Finds stop strings in a text that arrives in pieces, and never lets a part of one out.

The result does not depend on where the text was cut: the first character at which any stop string is complete ends
the text, and among the strings complete there the longest one counts.
"""

from __future__ import annotations

from collections.abc import Sequence


def _failures(pattern: str) -> list[int]:
    """For each prefix length, the longest shorter prefix that is also its suffix (Knuth, Morris, Pratt)."""
    table = [0] * (len(pattern) + 1)
    matched = 0
    for position in range(1, len(pattern)):
        while matched and pattern[position] != pattern[matched]:
            matched = table[matched]
        if pattern[position] == pattern[matched]:
            matched += 1
        table[position + 1] = matched
    return table


class StopStrings:
    """The stop strings of one request with their search tables; shared by its choices. Strings must not be empty."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.patterns = sorted(set(stops), key=len, reverse=True)
        if "" in self.patterns:
            raise ValueError("a stop string must not be empty")
        self.failures = [_failures(pattern) for pattern in self.patterns]
        self.first_characters = frozenset(pattern[0] for pattern in self.patterns)

    def matcher(self) -> StopMatcher:
        return StopMatcher(self)


class StopMatcher:
    """The search state of one choice. After a match, ``matched`` names the string and nothing more comes out."""

    def __init__(self, stops: StopStrings) -> None:
        self._stops = stops
        self._states = [0] * len(stops.patterns)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Take the next piece; return what is certain to come before any stop string."""
        if self.matched is not None or not text:
            return ""
        if not self._held and self._stops.first_characters.isdisjoint(text):
            return text
        for position, character in enumerate(text):
            pattern = self._advance(character)
            if pattern is not None:
                self.matched = pattern
                seen = self._held + text[: position + 1]
                self._held = ""
                return seen[: len(seen) - len(pattern)]
        return self._release(self._held + text)

    def flush(self) -> str:
        """The text held back, once nothing more will come."""
        held, self._held = self._held, ""
        self._states = [0] * len(self._states)
        return held

    def _advance(self, character: str) -> str | None:
        """Move every search on by one character; return the longest string complete now."""
        found: str | None = None
        for index, pattern in enumerate(self._stops.patterns):
            state = self._states[index]
            failures = self._stops.failures[index]
            while state and pattern[state] != character:
                state = failures[state]
            if pattern[state] == character:
                state += 1
            if state == len(pattern) and found is None:
                found = pattern
            self._states[index] = state if state < len(pattern) else failures[state]
        return found

    def _release(self, text: str) -> str:
        keep = max(self._states)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]
