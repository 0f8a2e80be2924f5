"""From the core's events to frames, with events made by hand."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from inference import ipc
from inference.worker.core.types import (
    ChoiceFinished,
    CoreEvent,
    PrefillProgress,
    PromptLogprobs,
    RequestFailed,
    RowRef,
    Started,
    TokenLogprobs,
    Tokens,
)
from inference.worker.text.answers import Answer, Answers
from inference.worker.text.split import Part
from inference.worker.text.stops import StopStrings
from inference.worker.text.tools import SYNTAXES
from tests.material import EOS_TOKEN_ID
from tests.worker.text.nano import plan, table, tokenizer


class Rig:
    """An ``Answers`` whose frames and cancels are kept."""

    def __init__(self) -> None:
        self.frames: queue.SimpleQueue[list[ipc.Event]] = queue.SimpleQueue()
        self.cancelled: list[tuple[str, int | None]] = []
        self.answers = Answers(self.frames.put, lambda key, choice: self.cancelled.append((key, choice)))
        self.answers.start()

    def step(self, *events: CoreEvent) -> list[ipc.Event]:
        self.answers.put(list(events))
        return self.frames.get(timeout=10)

    def say(self, text: str, *rows: RowRef) -> list[ipc.Event]:
        """Every row says ``text``, a letter for each step; the events of the last step."""
        said: list[ipc.Event] = []
        for token in tokenizer().encode(text):
            said = self.step(Tokens(list(rows), [token] * len(rows)))
        return said


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.answers.close()


def test_it_works(rig: Rig) -> None:
    rig.answers.open("r", Answer(plan("r"), prompt_tokens=7, n=1))
    row = RowRef("r", 0)
    assert rig.step(Started("r"), PrefillProgress("r", 7, 7)) == [ipc.Started("r"), ipc.Prefill("r", 7, 7)]
    token = tokenizer().encode("a")[0]
    assert rig.step(Tokens([row], [token])) == [ipc.Delta("r", content="a", token_ids=[token])]
    delta, finished = rig.step(Tokens([row], [EOS_TOKEN_ID]), ChoiceFinished("r", 0, "stop", 7, 2))
    assert delta == ipc.Delta("r", token_ids=[EOS_TOKEN_ID])
    assert isinstance(finished, ipc.Finished)
    assert finished.reason == "stop"
    assert finished.usage == ipc.Usage(prompt_tokens=7, completion_tokens=2)
    timings = finished.timings
    assert 0 <= timings.queue_s <= timings.ttft_s <= timings.total_s


def test_small_steps_are_made_where_they_are_put_unless_others_wait_before_them() -> None:
    frames: list[list[ipc.Event]] = []
    answers = Answers(frames.append, lambda key, choice: None)
    answers.open("r", Answer(plan("r"), 1, n=8))
    rows = [RowRef("r", choice) for choice in range(8)]
    token = tokenizer().encode("a")[0]
    answers.put([Tokens(rows[:1], [token])])
    assert frames == [[ipc.Delta("r", content="a", token_ids=[token])]]
    answers.put([Tokens(rows, [token] * 8)])
    answers.put([Tokens(rows[:1], [token])])
    assert len(frames) == 1
    answers.start()
    answers.close()
    deltas = [event for event in frames[1] if isinstance(event, ipc.Delta)]
    assert [(delta.choice, delta.content) for delta in deltas] == [(0, "aa"), *((at, "a") for at in range(1, 8))]


def test_one_frame_holds_the_step_of_every_request(rig: Rig) -> None:
    for key in ("a", "b"):
        rig.answers.open(key, Answer(plan(key), 1, n=2))
    rows = [RowRef(key, choice) for key in ("a", "b") for choice in (0, 1)]
    frame = rig.say("x", *rows)
    assert [(event.request, event.choice) for event in frame if isinstance(event, ipc.Delta)] == rows


def test_a_stop_string_cancels_its_choice_alone_and_what_comes_later_is_not_counted(rig: Rig) -> None:
    rig.answers.open("r", Answer(plan("r", stops=StopStrings(["b"])), 1, n=2))
    one, two = RowRef("r", 0), RowRef("r", 1)
    rig.say("a", one, two)
    _, finished = rig.say("b", one)
    assert isinstance(finished, ipc.Finished)
    assert (finished.reason, finished.stop_sequence, finished.choice) == ("stop", "b", 0)
    assert finished.usage.completion_tokens == 2
    assert rig.cancelled == [("r", 0)]
    [delta] = rig.say("c", one, two)
    assert isinstance(delta, ipc.Delta)
    assert delta.choice == 1
    late = ChoiceFinished("r", 0, "cancelled", 1, 3)
    [other] = rig.step(late, ChoiceFinished("r", 1, "length", 1, 2))
    assert isinstance(other, ipc.Finished)
    assert (other.choice, other.reason) == (1, "length")


def test_a_choice_that_may_have_one_call_is_cancelled_after_it(rig: Rig) -> None:
    one = plan("r", syntax=SYNTAXES["qwen"], parallel_calls=False)
    rig.answers.open("r", Answer(one, 1, n=2))
    call = '<tool_call>{"name": "clock", "arguments": {}}</tool_call>'
    said = rig.say(call[: call.index("</")], RowRef("r", 0))
    finished = said[-1]
    assert isinstance(finished, ipc.Finished)
    assert (finished.choice, finished.reason, finished.stop_sequence) == (0, "tool_calls", None)
    assert rig.cancelled == [("r", 0)]
    [other] = rig.step(Tokens([RowRef("r", 0), RowRef("r", 1)], tokenizer().encode("a") * 2))
    assert isinstance(other, ipc.Delta)
    assert (other.choice, other.content, other.tools) == (1, "a", [])


def test_a_cancelled_request_says_so(rig: Rig) -> None:
    rig.answers.open("r", Answer(plan("r"), 1, n=1))
    [finished] = rig.step(ChoiceFinished("r", 0, "cancelled", 1, 0))
    assert isinstance(finished, ipc.Finished)
    assert finished.reason == "cancelled"


def test_a_failed_request_ends_with_its_reason(rig: Rig) -> None:
    rig.answers.open("r", Answer(plan("r"), 1, n=2))
    frame = rig.step(RequestFailed("r", "invalid_request", "no token is possible", "response_format"))
    assert frame == [ipc.Failed("r", "invalid_request", "no token is possible", "response_format")]


class Broken:
    """A splitter that fails at a certain letter."""

    thinking = False

    def feed(self, text: str) -> list[Part]:
        raise RuntimeError(f"cannot stand {text}")

    def finish(self) -> list[Part]:
        return []


def test_a_defect_in_one_answer_ends_that_one_alone(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.answers.open("bad", Answer(plan("bad", splitter=Broken), 1, n=1))
    rig.answers.open("good", Answer(plan("good"), 1, n=1))
    frame = rig.say("x", RowRef("bad", 0), RowRef("good", 0))
    assert ipc.Failed("bad", "internal_error", "the answer's text failed: RuntimeError") in frame
    assert any(isinstance(event, ipc.Delta) and event.request == "good" for event in frame)
    assert rig.cancelled == [("bad", None)]
    assert "cannot stand x" not in caplog.text


def test_an_echo_comes_before_the_answer(rig: Rig) -> None:
    rig.answers.open("r", Answer(plan("r"), 1, n=2, echo="Once"))
    frame = rig.step(Started("r"))
    assert frame[1:] == [ipc.Delta("r", content="Once"), ipc.Delta("r", choice=1, content="Once")]


def scores(key: str, tokens: int) -> PromptLogprobs:
    """One alternative each, the token itself."""
    entries: list[TokenLogprobs | None] = [TokenLogprobs(-float(at), [4 + at], [-float(at)]) for at in range(1, tokens)]
    return PromptLogprobs(key, list(range(4, 4 + tokens)), [None, *entries])


def test_an_echo_comes_after_the_prompts_logprobs(rig: Rig) -> None:
    rig.answers.open("r", Answer(plan("r"), 3, n=2, echo="Once", logprobs_first=True))
    assert rig.step(Started("r")) == [ipc.Started("r")]
    scored, *echoed = rig.step(scores("r", 3))
    assert isinstance(scored, ipc.PromptLogprobs)
    assert [token.token_id for token in scored.tokens] == [4, 5, 6]
    assert math.isnan(scored.tokens[0].logprob)
    assert scored.tokens[0].top == []
    assert scored.tokens[1].logprob == scored.tokens[1].top[0].logprob == -1.0
    assert scored.tokens[1].text == scored.tokens[1].top[0].text == table().raw_of(5).decode()
    assert echoed == [ipc.Delta("r", content="Once"), ipc.Delta("r", choice=1, content="Once")]


def test_the_texts_of_a_long_prompts_logprobs_are_not_made_where_they_are_put() -> None:
    """Thousands of tokens' texts would hold up the step that brings them."""
    threads: list[str] = []
    answers = Answers(lambda events: threads.append(threading.current_thread().name), lambda key, choice: None)
    answers.open("r", Answer(plan("r"), 9, n=1, logprobs_first=True))
    answers.put([scores("r", 2)])
    assert threads == [threading.current_thread().name]
    answers.start()
    answers.put([scores("r", 9)])
    answers.close()
    assert threads[1] == "text"


def test_events_of_unknown_requests_are_dropped(rig: Rig) -> None:
    rig.answers.open("r", Answer(plan("r"), 1, n=1))
    frame = rig.step(Started("x"), Tokens([RowRef("x", 0)], [9]), RequestFailed("x", "a", "b"), Started("r"))
    assert frame == [ipc.Started("r")]


def test_closing_fails_what_is_still_open() -> None:
    rig = Rig()
    rig.answers.open("r", Answer(plan("r"), 1, n=1))
    assert rig.answers.busy()
    rig.answers.close()
    [failed] = rig.frames.get_nowait()
    assert isinstance(failed, ipc.Failed)
    assert failed.code == "model_unavailable"
    assert not rig.answers.busy()


def test_an_answer_is_open_until_its_last_event_is_out(rig: Rig) -> None:
    rig.answers.open("r", Answer(replace(plan("r")), 1, n=1))
    rig.step(ChoiceFinished("r", 0, "length", 1, 0))
    rig.answers.open("other", Answer(plan("other"), 1, n=1))
    rig.step(Started("other"))
    assert rig.answers.busy()
    rig.step(ChoiceFinished("other", 0, "length", 1, 0))
