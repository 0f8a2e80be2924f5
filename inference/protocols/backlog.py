"""What the reader of a stream has not taken yet: frames while they are few, bare text after that.

A model does not wait for a slow client: stopping it would hold its slot and its KV cache. So what it says is kept, but
not as one frame of 240 bytes a token: past ``FRAMES_BYTES`` deltas are joined, and worded when the reader comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from inference.errors import Overloaded
from inference.ipc import Delta, TokenLogprob

FRAMES_BYTES = 64 * 1024
HELD_BYTES = 8 * 1024 * 1024
_JOIN_EVERY = 256  # parts of a text: few enough to be small, so many that joining them costs nothing

# What the objects of one event take beside their text, in bytes.
_TOKEN, _LOGPROB, _TOP, _FRAGMENT = 40, 200, 160, 400


@dataclass(slots=True)
class _Run:
    """Consecutive deltas of one choice and one kind, joined."""

    request: str
    choice: int
    reasoning: bool
    parts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def add(self, event: Delta) -> None:
        self.parts.append(event.reasoning if self.reasoning else event.content)
        if len(self.parts) >= _JOIN_EVERY:
            self.parts[:] = ["".join(self.parts)]
        self.token_ids += event.token_ids
        self.logprobs += event.logprobs

    def delta(self) -> Delta:
        text = "".join(self.parts)
        content, reasoning = ("", text) if self.reasoning else (text, "")
        return Delta(self.request, self.choice, content, reasoning, [], self.token_ids, self.logprobs)


class Backlog:
    """Frames and held deltas of one stream, in order per choice. ``word`` turns a delta into a frame, or nothing."""

    def __init__(self, word: Callable[[Delta], bytes]) -> None:
        self._word = word
        self._frames: list[bytes] = []
        self._size = 0
        self._held: list[_Run | Delta] = []
        self._runs: dict[int, _Run] = {}
        self._held_size = 0

    def __bool__(self) -> bool:
        return bool(self._frames)

    @property
    def size(self) -> int:
        """Roughly what it holds in memory, in bytes."""
        return self._size + self._held_size

    def settle(self) -> None:
        """Word the deltas that are held: before a frame is made whose wording depends on all that came before it."""
        self._word_held()

    def frame(self, frame: bytes) -> None:
        """Keep a frame that comes after all deltas so far."""
        self._word_held()
        self._append(frame)

    def delta(self, event: Delta) -> None:
        """Keep a delta. Raises ``Overloaded`` when the reader is too far behind."""
        if self._size < FRAMES_BYTES:
            self._append(self._word(event))
        else:
            self._hold(event)

    def take(self) -> bytes:
        """All frames, joined; nothing is left."""
        self._word_held()
        chunk = b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        return chunk

    def _append(self, frame: bytes) -> None:
        if frame:
            self._frames.append(frame)
            self._size += len(frame)

    def _hold(self, event: Delta) -> None:
        self._held_size += _size_of(event)
        if self._held_size > HELD_BYTES:
            self._held.clear()
            self._runs.clear()
            self._held_size = 0
            raise Overloaded("the answer was ended: its client does not read it")
        if event.tools or (event.content and event.reasoning):
            self._runs.pop(event.choice, None)
            self._held.append(event)
            return
        run = self._runs.get(event.choice)
        if run is None or (event.content and run.reasoning) or (event.reasoning and not run.reasoning):
            run = self._runs[event.choice] = _Run(event.request, event.choice, bool(event.reasoning))
            self._held.append(run)
        run.add(event)

    def _word_held(self) -> None:
        if not self._held:
            return
        held, self._held, self._held_size = self._held, [], 0
        self._runs.clear()
        for entry in held:
            self._append(self._word(entry.delta() if isinstance(entry, _Run) else entry))


def _size_of(event: Delta) -> int:
    size = len(event.content) + len(event.reasoning) + _TOKEN * len(event.token_ids)
    size += sum(_FRAGMENT + len(fragment.arguments) for fragment in event.tools)
    return size + sum(_LOGPROB + _TOP * len(token.top) for token in event.logprobs)
