"""Foreign Python code that does not end is ended; everything after it in the same thread goes on."""

from __future__ import annotations

import threading

import pytest

from inference.errors import InvalidRequest
from inference.worker.text import chat
from inference.worker.text.chat import ChatTemplate
from inference.worker.text.time_limit import TookTooLong, time_limit
from tests.worker.text.test_chat import template, user

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def spin() -> None:
    while True:
        pass


def test_a_loop_is_ended_and_its_thread_goes_on() -> None:
    for _ in range(3):
        with pytest.raises(TookTooLong), time_limit(0.01):
            spin()
    with time_limit(60):
        assert sum(range(10)) == 45


def test_only_the_thread_that_asked_is_ended() -> None:
    ended: list[type[BaseException]] = []

    def limited() -> None:
        try:
            with time_limit(0.01):
                spin()
        except TookTooLong as error:
            ended.append(type(error))

    thread = threading.Thread(target=limited)
    thread.start()
    thread.join()
    assert ended == [TookTooLong]


def test_nothing_strikes_after_the_block() -> None:
    for _ in range(300):  # the limit runs out about when the block does
        try:
            with time_limit(0.0001):
                sum(range(1000))
        except TookTooLong:
            continue
    assert sum(range(100_000)) == 4999950000


def test_a_template_that_loops_ends_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "RENDER_LIMIT_S", 0.05)
    source = "{% for m in messages %}{{ m.content }}{% if m.content == 'loop' %}" + LOOP + "{% endif %}{% endfor %}"
    known: ChatTemplate = template(source)
    with pytest.raises(InvalidRequest, match="did not finish") as caught:
        known.render(user("loop"))
    assert caught.value.param == "messages"
    assert known.render(user("hi")) == "hi"


def test_a_template_that_always_loops_can_be_asked_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "PROBE_LIMIT_S", 0.01)
    assert not template(LOOP).tools
