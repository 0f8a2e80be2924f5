"""The log probabilities of prompts: the numbers, their place among the events, and what they cost the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from inference.worker.core import scoring
from inference.worker.core.core import Core
from inference.worker.core.decode import DecodeBatch, Unread
from inference.worker.core.scoring import PromptScores
from inference.worker.core.types import (
    ChoiceFinished,
    CoreRequest,
    PrefillProgress,
    PromptLogprobs,
    Started,
    Tokens,
)
from tests.worker.core.support import (
    VOCAB,
    Cycle,
    Outcome,
    alone,
    convolution_model,
    llama_model,
    prompt,
    request,
    run,
    same,
    state_space_model,
    window_model,
)
from tests.worker.core.test_core import counted
from tests.worker.core.test_failures import POISON, NotANumber, PlainOnly, Wrapped, clean, neighbours, unharmed

MODELS = [llama_model, window_model, state_space_model, convolution_model]


def reference(model: Any, tokens: Any) -> np.ndarray:
    """(T, V) log probabilities of every position: one forward pass over the whole prompt, without any cache."""
    logits = np.array(model(mx.array([list(tokens)]))[0].astype(mx.float32)).astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def check(outcome: Outcome, asked: CoreRequest, wanted: np.ndarray) -> None:
    """The request's scores are those of the reference, alternatives from the most likely down."""
    scored, tokens = outcome.scored[asked.key], list(asked.prompt)
    assert scored.token_ids == tokens
    assert scored.logprobs[0] is None
    assert len(scored.logprobs) == len(tokens)
    count = min(asked.prompt_logprobs or 0, wanted.shape[-1])
    for at, entry in enumerate(scored.logprobs[1:]):
        assert entry is not None
        row = wanted[at]
        assert entry.logprob == pytest.approx(row[tokens[at + 1]], abs=1e-4)
        assert np.allclose(entry.top_logprobs, np.sort(row)[::-1][:count], atol=1e-4)
        assert np.allclose(row[entry.top_ids], entry.top_logprobs, atol=1e-4)
        assert len(set(entry.top_ids)) == count
        assert entry.top_logprobs == sorted(entry.top_logprobs, reverse=True)
        if tokens[at + 1] in entry.top_ids:
            assert entry.logprob == entry.top_logprobs[entry.top_ids.index(tokens[at + 1])]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("chunk", [1, 7, 2048])
def test_they_are_those_of_a_plain_forward_pass(make: Any, chunk: int) -> None:
    model = make()
    core = Core(model, prefill_chunk=chunk)
    for length in (1, 2, 33, 70):
        asked = request("r", length=length, max_tokens=3, prompt_logprobs=4, temperature=0.0)
        outcome = alone(core, asked)
        check(outcome, asked, reference(model, asked.prompt))
        plain = request("r", length=length, max_tokens=3, temperature=0.0)
        same(outcome.answers["r", 0], alone(core, plain).answers["r", 0])


@pytest.mark.parametrize("make", [llama_model, window_model])
def test_beside_running_streams(make: Any) -> None:
    """Eight streams go on as if alone, and the scores of prompts of all lengths are as if alone."""
    model = make()
    core = Core(model, prefill_chunk=16)
    streams = [request(f"s{at}", length=5 + at, max_tokens=150, temperature=1.0, seed=at) for at in range(8)]
    wanted = [request(f"p{length}", length=length, max_tokens=2, prompt_logprobs=3) for length in (1, 2, 17, 40, 300)]
    outcome = run(core, {0: streams, 20: wanted[:3], 23: wanted[3:]})
    for asked in wanted:
        check(outcome, asked, reference(model, asked.prompt))
    for stream in streams:
        same(outcome.answers[stream.key, 0], alone(core, stream).answers[stream.key, 0])
        assert stream.key not in outcome.scored


def test_a_prompt_longer_than_a_block_and_a_wide_vocabulary() -> None:
    """More than one chunk of logits, and rows whose largest are found part by part."""
    model = llama_model(vocab=8192, layers=1)
    core = Core(model)
    asked = CoreRequest("r", request("r", length=2 * scoring.BLOCK + 30).prompt, 1, prompt_logprobs=20)
    outcome = alone(core, asked)
    done = [event.done for event in outcome.events if isinstance(event, PrefillProgress)]
    assert done[0] == scoring.BLOCK  # where others would take more at first
    assert max(np.diff(done)) <= scoring.BLOCK
    assert done[-1] == 2 * scoring.BLOCK + 30
    check(outcome, asked, reference(model, asked.prompt))


@pytest.mark.parametrize("vocab", [130, 128, 1280, 2560, 2561, 16384])
@pytest.mark.parametrize("count", [1, 5, 9, 64])
def test_the_largest_of_a_row_however_they_lie(vocab: int, count: int) -> None:
    """All in one part, spread, and with equal ones."""
    numbers = np.random.default_rng(vocab).integers(0, 50, (6, vocab)).astype(np.float32)
    numbers[0] = np.arange(vocab)
    numbers[1] = -np.arange(vocab)
    numbers[2] = 0.0
    ids, values = (np.array(found) for found in scoring._largest(mx.array(numbers), count))
    assert np.array_equal(np.sort(values)[:, ::-1], np.sort(numbers)[:, ::-1][:, :count])
    assert np.array_equal(np.take_along_axis(numbers, ids, axis=-1), values)
    assert all(len(set(row)) == count for row in ids.tolist())


@pytest.mark.parametrize("count", [0, 1, VOCAB + 5])
def test_as_many_alternatives_as_asked_for(count: int) -> None:
    model = llama_model()
    asked = request("r", length=20, prompt_logprobs=count)
    check(alone(Core(model), asked), asked, reference(model, asked.prompt))


def test_the_scores_come_once_and_before_the_first_token_of_all_choices() -> None:
    model = llama_model()
    asked = request("r", length=40, max_tokens=4, n=3, prompt_logprobs=1, temperature=1.0, seed=3)
    outcome = run(Core(model, prefill_chunk=16), {0: [request("s", max_tokens=30)], 5: [asked]})
    mine = [event for event in outcome.events if not isinstance(event, Tokens) and event.key == "r"]
    kinds = [type(event) for event in mine]
    assert kinds == [Started, *[PrefillProgress] * 3, PromptLogprobs, *[ChoiceFinished] * 3]
    first = next(
        at
        for at, event in enumerate(outcome.events)
        if isinstance(event, Tokens) and any(ref.key == "r" for ref in event.rows)
    )
    assert [type(event) for event in outcome.events].index(PromptLogprobs) < first
    assert [len(outcome.answers["r", choice].tokens) for choice in range(3)] == [4, 4, 4]


def test_an_answer_held_to_a_grammar_has_them_too() -> None:
    model = llama_model()
    asked = request("r", length=40, max_tokens=4, n=2, prompt_logprobs=1, constraints=[Cycle(), None])
    outcome = run(Core(model, prefill_chunk=16), {0: [request("s", max_tokens=30)], 5: [asked]})
    check(outcome, asked, reference(model, asked.prompt))
    assert [token % 3 for token in outcome.answers["r", 0].tokens] == [0, 1, 2, 0]


def test_of_a_model_that_runs_one_row_at_a_time() -> None:
    model = llama_model()
    core = Core(PlainOnly(model))
    assert not core.batching
    asked = request("r", length=40, max_tokens=4, n=2, prompt_logprobs=2)
    outcome = run(core, {0: [request("s", max_tokens=8)], 2: [asked]})
    check(outcome, asked, reference(model, asked.prompt))
    assert [len(outcome.answers["r", choice].tokens) for choice in range(2)] == [4, 4]


def test_a_scored_prompt_is_computed_alone_and_whole() -> None:
    """Beside prompts that go together, after the same prompt."""
    core, shapes = counted()
    asked = [request("a", length=20, max_tokens=1, prompt_logprobs=0), request("b", length=20, max_tokens=1)]
    others = [request(f"o{at}", length=20, max_tokens=1) for at in range(3)]
    for _ in range(2):
        shapes.clear()
        run(core, {0: [others[0], asked[0], *others[1:], asked[1]]})
        prefills = [shape for shape in shapes if shape[1] > 1]
        assert sorted(prefills) == [(1, 19), (4, 19)]


@pytest.mark.parametrize("make", [llama_model, window_model])
def test_of_what_was_read_before_nothing_is_taken(make: Any) -> None:
    """Neither after the same prompt nor beside it; but what a scored prompt leaves is good for others."""
    model = make()
    core = Core(model, prefill_chunk=64, prefix_cache_bytes=1 << 30)
    asked = request("r", length=700, max_tokens=3, prompt_logprobs=2, temperature=0.0)
    plain = replace(asked, key="plain", prompt_logprobs=None)
    wanted = alone(Core(model), plain).answers["plain", 0]
    before = run(core, {0: [plain], 3: [asked]})
    after = run(core, {0: [asked], 1: [plain]})
    for outcome in (before, after):
        check(outcome, asked, reference(model, asked.prompt))
        same(outcome.answers["plain", 0], wanted)
        same(outcome.answers["r", 0], wanted)
    cached = {event.key: event.cached for event in after.events if isinstance(event, PrefillProgress)}
    assert cached["r"] == 0
    assert cached["plain"] > 600
    fresh = Core(model, prefill_chunk=64, prefix_cache_bytes=1 << 30)
    alone(fresh, asked)
    again = alone(fresh, plain)
    assert max(event.cached for event in again.events if isinstance(event, PrefillProgress)) > 600
    same(again.answers["plain", 0], wanted)


def test_cancelled_in_the_middle_of_the_prompt() -> None:
    core, shapes = counted(prefill_chunk=10)
    asked = request("r", length=100, max_tokens=5, n=2, prompt_logprobs=1)
    outcome = run(core, {0: [asked, request("s", length=3, temperature=0.0)]}, {8: [("r", None)]})
    assert 2 <= [shape[1] for shape in shapes].count(10) < 9
    assert "r" not in outcome.scored
    assert [outcome.answers["r", choice].reason for choice in range(2)] == ["cancelled", "cancelled"]
    same(outcome.answers["s", 0], alone(core, request("s", length=3, temperature=0.0)).answers["s", 0])
    assert not core._scoring._awaited


@pytest.mark.parametrize("step", range(1, 6))
def test_cancelled_about_the_first_token(step: int) -> None:
    """Whenever the cancel comes: no token without the scores before it, and nothing is kept of the request."""
    core = Core(llama_model())
    asked = request("r", length=30, max_tokens=2, n=2, prompt_logprobs=1)
    outcome = run(core, {0: [asked]}, {step: [("r", 0)]})
    assert "r" in outcome.scored
    assert outcome.answers["r", 1].reason == "length"
    outcome = run(core, {0: [asked]}, {step: [("r", None)]})
    assert ("r" in outcome.scored) == any(answer.tokens for answer in outcome.answers.values())
    alone(core, request("s", max_tokens=1))
    assert not core._scoring._awaited


@pytest.mark.parametrize("at", [2, 38], ids=["read while it is prefilled", "read with the first token"])
def test_logits_that_are_not_numbers_end_their_request_alone(at: int) -> None:
    core = Core(NotANumber(llama_model()), prefill_chunk=10)
    tokens = clean(prompt(40))
    tokens[at] = POISON
    asked = CoreRequest("r", tokens, 5, n=2, prompt_logprobs=1)
    outcome = run(core, {0: [*neighbours(), asked]})
    assert outcome.failures.keys() == {"r"}
    assert "not numbers" in outcome.failures["r"].message
    assert not outcome.scored
    unharmed(outcome, core)


def test_a_model_that_gives_the_last_logits_only_is_found_out() -> None:
    class LastOnly(Wrapped):
        def answer(self, tokens: mx.array, logits: mx.array) -> mx.array:
            return logits[:, -1:]

    core = Core(LastOnly(llama_model()))
    outcome = run(core, {0: [*neighbours(), request("r", length=40, prompt_logprobs=1)]})
    assert "no logits" in outcome.failures["r"].message
    unharmed(outcome, core)


def test_no_stream_waits_for_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host reads the scores of a chunk when at least two decode steps were queued behind it and one was read."""
    order: list[str] = []
    for owner, name in ((DecodeBatch, "draw"), (Unread, "read"), (PromptScores, "queue"), (PromptScores, "_take")):
        monkeypatch.setattr(owner, name, noted(order, getattr(owner, name), name))
    core = Core(llama_model(), prefill_chunk=10)
    order.clear()
    run(core, {0: [request("s", max_tokens=60)], 8: [request("r", length=101, max_tokens=3, prompt_logprobs=1)]})
    queued = [at for at, what in enumerate(order) if what == "queue"]
    taken = [at for at, what in enumerate(order) if what == "_take"]
    assert len(queued) == len(taken) == 10
    for begin, end in zip(queued, taken, strict=True):
        assert order[begin:end].count("draw") >= 2
        assert order[begin:end].count("read") >= 2
    # Nothing is left for the first token but the last two chunks.
    assert taken[7] == queued[9] + 1
    assert order[taken[8] - 1 : taken[9] + 1] == ["read", "_take", "_take"]


def noted(order: list[str], function: Any, name: str) -> Any:
    def wrapped(*arguments: Any) -> Any:
        order.append(name)
        return function(*arguments)

    return wrapped
