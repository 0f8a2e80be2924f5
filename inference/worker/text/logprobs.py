"""Log probabilities of an answer's tokens, let out with the text they belong to."""

from __future__ import annotations

from collections import deque

from inference import ipc
from inference.worker.core.types import TokenLogprobs
from inference.worker.text.detok import TokenTable
from inference.worker.text.split import Sections


class LogprobEntries:
    """The entries of one choice that are not out yet. Places are counted in characters of the whole decoded text."""

    def __init__(self) -> None:
        self._undecided: deque[tuple[int, int, ipc.TokenLogprob]] = deque()
        self._waiting: deque[tuple[int, ipc.TokenLogprob]] = deque()
        self._content = 0

    def add(self, start: int, end: int, entry: ipc.TokenLogprob) -> None:
        """The token's text is from ``start`` to ``end``; none if it only begins a character."""
        self._undecided.append((start, end, entry))

    def release(self, apart: Sections, decided: int, out: int) -> list[ipc.TokenLogprob]:
        """Entries of tokens whose text is content and out at least in part, and those that precede them.

        ``apart`` is what is not content, known up to ``decided``; ``out`` is how many characters of content are out.
        """
        while self._undecided and self._decide(apart, decided):
            pass
        released = []
        while self._waiting and self._waiting[0][0] < out:
            released.append(self._waiting.popleft()[1])
        return released

    def _decide(self, apart: Sections, decided: int) -> bool:
        start, end, entry = self._undecided[0]
        if end > decided or (start == end == decided):
            return False
        self._undecided.popleft()
        content = max(end, start + 1) - start - apart.within(start, max(end, start + 1))
        if content:
            self._waiting.append((self._content, entry))
            self._content += content if end > start else 0
        return True


def wire_logprob(table: TokenTable, token: int, logprobs: TokenLogprobs) -> ipc.TokenLogprob:
    """A token's log probabilities with the texts and bytes of the tokens."""
    raw = table.raw_of(token)
    top = []
    for index, logprob in zip(logprobs.top_ids, logprobs.top_logprobs, strict=True):
        bytes_ = table.raw_of(index)
        top.append(ipc.TopLogprob(index, bytes_.decode("utf-8", "replace"), bytes_, logprob))
    return ipc.TokenLogprob(token, raw.decode("utf-8", "replace"), raw, logprobs.logprob, top)
