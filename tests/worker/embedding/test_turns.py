"""Whose turn it is, and how large a batch becomes."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from inference.worker.embedding.turns import BATCH_SCORES, BATCH_TOKENS, Batch, Job, Turns

HEADS = 4


def job(request: str, *lengths: int) -> Job:
    return Job.of(request, [[1] * length for length in lengths], None)


def taken(batch: Batch | None) -> list[tuple[str, int, int]]:
    assert batch is not None
    return [(owner.request, place, len(ids)) for owner, place, ids in batch.rows]


def test_similar_lengths_go_together_whosoever_they_are() -> None:
    turns = Turns(HEADS)
    turns.put(job("a", 10, 100, 60))
    turns.put(job("b", 9, 70, 101))
    assert taken(turns.next()) == [("a", 1, 100), ("a", 2, 60), ("b", 1, 70)]
    assert taken(turns.next()) == [("b", 2, 101)]
    assert taken(turns.next()) == [("a", 0, 10), ("b", 0, 9)]


def test_a_large_request_does_not_keep_a_small_one_waiting() -> None:
    turns = Turns(HEADS)
    turns.put(job("large", *[64] * 1000))
    assert len(taken(turns.next())) == BATCH_TOKENS // 64
    turns.put(job("small", 3))
    assert taken(turns.next())[0][0] == "large"
    assert taken(turns.next()) == [("small", 0, 3)]
    assert taken(turns.next())[0][0] == "large"


def test_a_cancelled_one_has_no_further_batch() -> None:
    turns = Turns(HEADS)
    turns.put(job("a", *[64] * 1000))
    turns.put(job("b", 5))
    turns.next()
    assert turns.forget("a")
    assert not turns.forget("a")
    assert taken(turns.next()) == [("b", 0, 5)]
    assert turns.open() == 1  # until its vectors are delivered


def test_closing_wakes_who_waits() -> None:
    turns = Turns(HEADS)
    got: list[Batch | None] = []
    waiting = threading.Thread(target=lambda: got.append(turns.next()))
    waiting.start()
    turns.close()
    waiting.join(10)
    assert got == [None]
    assert not turns.put(job("late", 1))


def test_what_is_open_at_the_end_is_told() -> None:
    turns = Turns(HEADS)
    turns.put(job("a", 1))
    turns.close()
    assert turns.next() is None
    assert turns.rest() == ["a"]
    assert turns.open() == 0


@given(st.lists(st.lists(st.integers(1, 5000), min_size=1, max_size=40), min_size=1, max_size=5))
def test_every_input_once_and_within_bounds(requests: list[list[int]]) -> None:
    turns = Turns(HEADS)
    for number, lengths in enumerate(requests):
        turns.put(job(str(number), *lengths))
    seen: set[tuple[str, int]] = set()
    while len(seen) < sum(len(lengths) for lengths in requests):
        rows = taken(turns.next())
        width = rows[0][2]
        assert all(width / 2 <= length <= width for _, _, length in rows)
        assert len(rows) == 1 or len(rows) * width <= BATCH_TOKENS
        assert len(rows) == 1 or len(rows) * width * width * HEADS <= BATCH_SCORES
        assert all(length == requests[int(request)][place] for request, place, length in rows)
        assert not seen & {(request, place) for request, place, _ in rows}
        seen |= {(request, place) for request, place, _ in rows}
