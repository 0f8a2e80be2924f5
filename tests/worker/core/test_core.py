"""Arrivals, prefill in chunks, cancellation, slots, counters and waiting."""

from __future__ import annotations

import threading
from typing import Any

import mlx.core as mx
import pytest

from inference.worker.core.core import Core
from inference.worker.core.prefill import ChunkSizer
from inference.worker.core.types import ChoiceFinished, CoreRequest, PrefillProgress, Started, Tokens
from tests.worker.core.support import (
    VOCAB,
    Cycle,
    Outcome,
    alone,
    convolution_model,
    llama_model,
    request,
    run,
    same,
    state_space_model,
    window_model,
)


class Counted:
    """Notes the shape of every forward pass after the core has learnt the model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = model.layers
        self.shapes: list[tuple[int, int]] = []
        if hasattr(model, "make_cache"):
            self.make_cache = model.make_cache

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        self.shapes.append((tokens.shape[0], tokens.shape[1]))
        logits: mx.array = self.model(tokens, cache=cache)
        return logits


def counted(**settings: Any) -> tuple[Core, list[tuple[int, int]]]:
    model = Counted(llama_model())
    core = Core(model, **settings)
    model.shapes.clear()
    return core, model.shapes


@pytest.mark.parametrize("make", [llama_model, window_model, state_space_model, convolution_model])
@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_chunks_change_nothing(make: Any, chunk: int) -> None:
    model = make()
    whole, chunked = Core(model), Core(model, prefill_chunk=chunk)
    for length in (1, 2, 33, 65):
        one = request("r", length=length, temperature=1.0, seed=length, top_logprobs=3)
        same(alone(chunked, one).answers["r", 0], alone(whole, one).answers["r", 0])


def test_progress_of_a_chunked_prefill() -> None:
    core, shapes = counted(prefill_chunk=10)
    outcome = alone(core, request("r", length=36, max_tokens=2))
    done = [event.done for event in outcome.events if isinstance(event, PrefillProgress)]
    assert done == [10, 20, 30, 36]
    assert {event.total for event in outcome.events if isinstance(event, PrefillProgress)} == {36}
    assert isinstance(outcome.events[0], Started)
    assert shapes == [(1, 10), (1, 10), (1, 10), (1, 5), (1, 1), (1, 1)]


def test_short_prompts_are_prefilled_together_and_answers_are_not_longer_than_asked() -> None:
    core, shapes = counted()
    run(core, {0: [request(f"r{length}", length=length, max_tokens=5) for length in (20, 24, 17, 30)]})
    assert shapes == [(4, 29), *[(4, 1)] * 5]


def test_prompts_of_very_different_length_are_not_padded_to_each_other() -> None:
    core, shapes = counted()
    run(core, {0: [request("long", length=1500, max_tokens=1), request("short", length=300, max_tokens=1)]})
    assert sum(tokens for _, tokens in shapes) == 1500 + 300
    assert {rows for rows, _ in shapes} == {1}


def test_a_long_prompt_does_not_stop_the_streams_nor_the_short_prompts_behind_it() -> None:
    core, _ = counted(prefill_chunk=16)
    arrivals = {
        0: [request("stream", max_tokens=200)],
        5: [request("long", length=600, max_tokens=1)],
        8: [request("short", length=10, max_tokens=3)],
    }
    outcome = run(core, arrivals)
    finished = [event.key for event in outcome.events if isinstance(event, ChoiceFinished)]
    assert finished.index("short") < finished.index("long") < finished.index("stream")
    seen_since = 0
    for event in outcome.events:
        if isinstance(event, Tokens):
            seen_since = 0
        elif isinstance(event, PrefillProgress) and event.key == "long":
            seen_since += 1
            assert seen_since <= 1, "two chunks without a token of the stream in between"


def cancelled_after(step: int, choice: int | None = None, **settings: Any) -> tuple[Outcome, list[tuple[int, int]]]:
    core, shapes = counted(**settings)
    outcome = run(core, {0: [request("r", length=40, max_tokens=50, n=2)]}, {step: [("r", choice)]})
    return outcome, shapes


def test_cancel_in_prefill_takes_effect_before_the_next_chunk() -> None:
    outcome, shapes = cancelled_after(2, prefill_chunk=10)
    assert shapes == [(1, 10), (1, 10)]
    assert [answer.reason for answer in outcome.answers.values()] == ["cancelled", "cancelled"]
    assert {answer.completion_tokens for answer in outcome.answers.values()} == {0}


def test_cancel_in_decode_takes_effect_before_the_next_step() -> None:
    outcome, shapes = cancelled_after(6)
    assert shapes == [(1, 39), *[(2, 1)] * 5]
    for answer in outcome.answers.values():
        assert answer.reason == "cancelled"
        assert answer.completion_tokens == len(answer.tokens) == 4


def test_cancel_of_one_choice_leaves_the_other() -> None:
    outcome, _ = cancelled_after(6, choice=0)
    assert outcome.answers["r", 0].reason == "cancelled"
    assert outcome.answers["r", 1].reason == "length"
    assert len(outcome.answers["r", 1].tokens) == 50


def test_cancel_before_anything_began_and_of_what_is_unknown() -> None:
    core, shapes = counted(slots=1)
    arrivals = {0: [request("first", max_tokens=9), request("second")]}
    outcome = run(core, arrivals, {0: [("nobody", None)], 3: [("second", None), ("second", None), ("first", 7)]})
    assert outcome.answers["second", 0].reason == "cancelled"
    assert outcome.answers["first", 0].reason == "length"
    assert max(shape[0] for shape in shapes) == 1
    core.cancel("first")
    assert core.step() == []


def test_cancel_all() -> None:
    core, _ = counted(slots=2)
    for key in ("a", "b", "c"):
        core.submit(request(key, max_tokens=500))
    for _ in range(5):
        core.step()
    core.cancel_all()
    finished = [event for event in core.step() if isinstance(event, ChoiceFinished)]
    assert sorted(event.key for event in finished) == ["a", "b", "c"]
    assert not core.busy
    assert core.stats().kv_bytes == 0


def test_ends_by_eos_by_length_and_by_a_complete_constraint() -> None:
    core, _ = counted()
    everything = frozenset(range(VOCAB))
    outcome = run(
        core,
        {
            0: [
                request("eos", eos=everything),
                request("length", max_tokens=1),
                request("constraint", constraints=[Cycle(4)]),
                request("eos at the last", eos=everything, max_tokens=1),
            ]
        },
    )
    found = {key: (answer.reason, len(answer.tokens)) for (key, _), answer in outcome.answers.items()}
    assert found == {
        "eos": ("stop", 1),
        "length": ("length", 1),
        "constraint": ("stop", 4),
        "eos at the last": ("stop", 1),
    }


def test_slots_bound_the_rows_and_can_change() -> None:
    core, shapes = counted(slots=2)
    for key in "abcdef":
        core.submit(request(key, max_tokens=30))
    for _ in range(5):
        core.step()
    stats = core.stats()
    assert (stats.running, stats.queued, stats.rows) == (2, 4, 2)
    core.set_slots(5)
    for _ in range(5):
        core.step()
    assert core.stats().rows == 5
    assert max(shape[0] for shape in shapes) == 5
    core.cancel_all()
    core.step()


def test_more_choices_than_slots_run_alone() -> None:
    core, _ = counted(slots=2)
    outcome = run(core, {0: [request("many", n=5, max_tokens=3), request("next", max_tokens=3)]})
    assert len(outcome.answers) == 6


def test_counters() -> None:
    core, _ = counted()
    before = core.stats()
    core.submit(request("r", length=40, n=3, max_tokens=60))
    for _ in range(4):
        core.step()
    stats = core.stats()
    assert stats.kv_bytes == 3 * 256 * core.kv_bytes_per_token
    assert stats.step == before.step + 4
    assert stats.prefilled == 39
    while core.busy:
        core.step()
    assert core.stats().tokens == 180
    assert core.stats().kv_bytes == 0
    assert core.stats().running == core.stats().rows == 0


def test_a_key_that_is_open_cannot_be_used_twice() -> None:
    core, _ = counted()
    core.submit(request("r"))
    with pytest.raises(ValueError, match="open already"):
        core.submit(request("r"))
    run(core, {})
    run(core, {0: [request("r")]})


def test_waiting_ends_with_work_and_with_wake() -> None:
    core, _ = counted()
    assert not core.wait_for_work(0)
    waiting, results = threading.Event(), []

    def stepping() -> None:
        for _ in range(2):
            waiting.set()
            results.append(core.wait_for_work(30))

    thread = threading.Thread(target=stepping)
    thread.start()
    assert waiting.wait(30)
    core.wake()
    while not results:
        thread.join(0.001)
    core.submit(request("r"))
    thread.join(30)
    assert results == [False, True]
    run(core, {})


def test_submitting_from_many_threads() -> None:
    core, _ = counted(slots=8)

    def client(name: str) -> None:
        for index in range(5):
            core.submit(request(f"{name}{index}", max_tokens=3))

    threads = [threading.Thread(target=client, args=(f"t{number}-",)) for number in range(4)]
    for thread in threads:
        thread.start()
    outcome = Outcome()
    while any(thread.is_alive() for thread in threads) or core.busy:
        core.wait_for_work(0.01)
        outcome.add(core.step())
    assert len(outcome.answers) == 20
    assert {len(answer.tokens) for answer in outcome.answers.values()} == {3}


def test_chunk_sizes_follow_measured_time() -> None:
    sizer = ChunkSizer(0.040, 2048)
    assert sizer.size(decoding=False) == 512
    assert sizer.size(decoding=True) == 512
    sizer.saw_step(0.010)
    sizer.saw_chunk(512, 0.0612 + 0.010, beside_step=True)
    assert sizer.size(decoding=True) == 256
    assert sizer.size(decoding=False) == 2048
    for _ in range(30):
        sizer.saw_step(0.250)
    assert sizer.size(decoding=True) == 2048
    sizer.saw_chunk(32, 4.0, beside_step=True)
    sizer.saw_chunk(512, 9.0, beside_step=True)
    assert sizer.size(decoding=True) == 2048, "compiling kernels for a new shape is not the speed of the next chunk"
    slow = ChunkSizer(0.040, 2048)
    slow.saw_chunk(512, 5.12, beside_step=False)
    assert slow.size(decoding=True) == 32
    assert slow.size(decoding=False) == 32


@pytest.mark.parametrize(
    ("own", "token", "sizes"),
    [
        (0.050, 31e-6, {1024, 2048}),  # a GPU on which every chunk costs much for itself
        (0.011, 1.25e-3, {32}),  # a laptop: a chunk costs little more than its tokens
        (0.0, 60e-6, {512}),
        (1.0, 1e-6, {2048}),  # whatever one does, it takes long: then at least not often
    ],
)
def test_what_a_chunk_costs_for_itself_does_not_make_chunks_tiny(own: float, token: float, sizes: set[int]) -> None:
    sizer, used = ChunkSizer(0.040, 2048), []
    sizer.saw_step(0.003)
    for _ in range(40):
        used.append(sizer.size(decoding=True))
        sizer.saw_chunk(used[-1], 0.003 + own + token * used[-1], beside_step=True)
    assert set(used[-10:]) <= sizes


def test_one_slow_measurement_of_a_size_does_not_keep_from_it() -> None:
    """Kernels are compiled at the first chunk of 512, and the smallest chunks have slow ones."""
    sizer = ChunkSizer(0.040, 2048)
    for size, seconds in ((512, 0.82), (32, 0.046), (64, 0.043), (128, 0.0105), (256, 0.0157)):
        sizer.saw_chunk(size, seconds, beside_step=False)
    assert sizer.size(decoding=True) == 512
    assert sizer.size(decoding=False) == 2048


def test_a_constraint_may_have_nothing_against_anything() -> None:
    class Nothing:
        finished = False

        def mask(self, out: Any) -> bool:
            return False

        def advance(self, token: int) -> None:
            pass

    core, _ = counted()
    free = CoreRequest("r", [5, 6, 7], 9)
    constrained = CoreRequest("r", [5, 6, 7], 9, constraints=[Nothing()])
    for one in (free, constrained):
        one.sampling = request("r", seed=4).sampling
    same(alone(core, constrained).answers["r", 0], alone(core, free).answers["r", 0])
