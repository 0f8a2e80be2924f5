"""What a slow reader leaves lying: little memory, the same text in the same order, and an end to it."""

from __future__ import annotations

import orjson
import pytest

from inference.errors import Overloaded
from inference.ipc import Delta, TokenLogprob, ToolFragment
from inference.protocols.backlog import FRAMES_BYTES, HELD_BYTES, Backlog


def word(event: Delta) -> bytes:
    said = [event.choice, event.content, event.reasoning, len(event.tools), len(event.token_ids), len(event.logprobs)]
    return b"data: %s %s\n\n" % (orjson.dumps(said), b"-" * 200)


def frames(chunk: bytes) -> list[list[object]]:
    return [orjson.loads(frame[6:].rsplit(b" ", 1)[0]) for frame in chunk.split(b"\n\n") if frame]


def said(content: str = "x", *, choice: int = 0, reasoning: str = "") -> Delta:
    return Delta("r1", choice, content, reasoning, token_ids=[1000])


def behind() -> Backlog:
    """A backlog whose reader is behind already."""
    backlog = Backlog(word)
    backlog.frame(b'data: [0,"","",0,0,0] ' + b"-" * FRAMES_BYTES + b"\n\n")
    return backlog


def test_a_reader_that_keeps_up_gets_a_frame_a_token() -> None:
    backlog = Backlog(word)
    for letter in "abc":
        backlog.delta(said(letter))
    assert [frame[1] for frame in frames(backlog.take())] == ["a", "b", "c"]
    assert not backlog
    assert backlog.size == 0


def test_a_long_answer_that_nobody_reads_stays_small_and_whole() -> None:
    backlog = Backlog(word)
    for number in range(50_000):
        backlog.delta(said(f"{number} "))
    assert backlog.size < FRAMES_BYTES + 50_000 * 50
    backlog.frame(b'data: [0,"end","",0,0,0] -\n\n')
    found = frames(backlog.take())
    assert "".join(str(frame[1]) for frame in found) == "".join(f"{number} " for number in range(50_000)) + "end"
    assert sum(int(str(frame[4])) for frame in found) == 50_000
    assert len(found) < 500
    assert backlog.size == 0


def test_choices_and_kinds_keep_their_order() -> None:
    backlog = behind()
    for event in (
        said("", reasoning="why"),
        said("one", choice=1),
        said("", reasoning=" not"),
        said("so"),
        said(" it"),
        Delta("r1", 0, tools=[ToolFragment(0, "c1", "look")]),
        Delta("r1", 0, tools=[ToolFragment(0, arguments="{}")]),
        said(" is"),
        said(" two", choice=1),
        Delta("r1", 1, " three", logprobs=[TokenLogprob(5, "x", b"x", -1.0)]),
    ):
        backlog.delta(event)
    found = [frame[:4] for frame in frames(backlog.take())][1:]
    assert [frame[1:] for frame in found if frame[0] == 0] == [
        ["", "why not", 0],
        ["so it", "", 0],
        ["", "", 1],
        ["", "", 1],
        [" is", "", 0],
    ]
    assert [frame[1:] for frame in found if frame[0] == 1] == [["one two three", "", 0]]


def test_after_catching_up_each_token_has_its_frame_again() -> None:
    backlog = behind()
    backlog.delta(said("a"))
    backlog.delta(said("b"))
    assert [frame[1] for frame in frames(backlog.take())] == ["", "ab"]
    backlog.delta(said("c"))
    backlog.delta(said("d"))
    assert [frame[1] for frame in frames(backlog.take())] == ["c", "d"]


def test_there_is_an_end_to_it() -> None:
    backlog = behind()
    backlog.delta(said("x" * (HELD_BYTES - 1000)))
    with pytest.raises(Overloaded):
        backlog.delta(said("x" * 1000))
    assert backlog.size < 2 * FRAMES_BYTES
