"""One request's failure ends that request, and nothing else."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import ConcatenateKVCache, KVCache

from inference.ipc import Sampling
from inference.worker.core.core import Core
from inference.worker.core.types import ConstraintError, CoreRequest, RequestFailed, Tokens
from tests.worker.core.support import (
    VOCAB,
    Broken,
    Outcome,
    alone,
    llama_model,
    prompt,
    request,
    run,
    same,
)

POISON = 77


class Wrapped:
    """A model with a fault that a test switches on, before it computes anything."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = model.layers
        self.armed = True

    def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
        if self.armed:
            self.fault(tokens)
        logits: mx.array = self.model(tokens, cache=cache)
        return self.answer(tokens, logits)

    def fault(self, tokens: mx.array) -> None:
        """Raise, or not."""

    def answer(self, tokens: mx.array, logits: mx.array) -> mx.array:
        return logits


class FailsInPrefill(Wrapped):
    def fault(self, tokens: mx.array) -> None:
        if tokens.shape[1] > 1 and bool(mx.any(tokens == POISON).item()):
            raise RuntimeError("this prompt cannot be computed")


class FailsInDecode(Wrapped):
    def fault(self, tokens: mx.array) -> None:
        if tokens.shape[1] == 1 and bool(mx.any(tokens == POISON).item()):
            raise RuntimeError("this step cannot be computed")


class NotANumber(Wrapped):
    """A row that is fed one token gets NaN."""

    def answer(self, tokens: mx.array, logits: mx.array) -> mx.array:
        return mx.where((tokens == POISON)[:, :, None], mx.nan, logits)


def neighbours() -> list[CoreRequest]:
    return [request("one", temperature=0.0), request("two", temperature=1.0, seed=3, top_p=0.9, n=2)]


def unharmed(outcome: Outcome, core: Core) -> None:
    """The neighbours' answers are those they have alone."""
    for one in neighbours():
        for key, answer in alone(core, one).answers.items():
            same(outcome.answers[key], answer)
    assert not core.busy


def clean(tokens: list[int]) -> list[int]:
    return [token if token != POISON else POISON + 1 for token in tokens]


def poisoned(at: int) -> CoreRequest:
    tokens = clean(prompt(9, seed=5))
    tokens[at] = POISON
    return CoreRequest("bad", tokens, 8, sampling=Sampling(temperature=0.0))


INVALID = {
    "token above the vocabulary": CoreRequest("bad", [5, VOCAB], 8),
    "token below zero": CoreRequest("bad", [5, -1], 8),
    "no prompt": CoreRequest("bad", [], 8),
    "not token ids": CoreRequest("bad", [0.5], 8),  # type: ignore[list-item]
    "a list of lists": CoreRequest("bad", [[5], [5, 6]], 8),  # type: ignore[list-item]
    "no tokens wanted": CoreRequest("bad", [5], 0),
    "no choices": CoreRequest("bad", [5], 8, n=0),
    "too few constraints": CoreRequest("bad", [5], 8, n=2, constraints=[None]),
    "bias outside the vocabulary": request("bad", logit_bias={VOCAB: 1.0}),
    "bias below zero": request("bad", logit_bias={-1: 1.0}),
    "bias that is not a number": request("bad", logit_bias={1: float("nan")}),
    "temperature": request("bad", temperature=-0.1),
    "temperature that is not a number": request("bad", temperature=float("nan")),
    "top_p": request("bad", top_p=0.0),
    "top_k": request("bad", top_k=-1),
    "min_p": request("bad", min_p=1.1),
    "repetition_penalty": request("bad", repetition_penalty=0.0),
    "presence_penalty": request("bad", presence_penalty=float("inf")),
    "top_logprobs": request("bad", top_logprobs=5000),
}


@pytest.mark.parametrize("bad", INVALID.values(), ids=INVALID.keys())
def test_what_cannot_run_is_refused_by_name(bad: CoreRequest) -> None:
    core = Core(llama_model())
    outcome = run(core, {0: [*neighbours(), bad]})
    failure = outcome.failures["bad"]
    assert failure.code == "invalid_request"
    assert failure.param
    assert failure.message
    unharmed(outcome, core)


@pytest.mark.parametrize("how", ["mask", "advance", "nothing"])
@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"seed": 1, "temperature": 1.0}], ids=str)
def test_a_constraint_that_fails_ends_its_request_alone(how: str, sampling: dict[str, Any]) -> None:
    core = Core(llama_model())
    bad = request("bad", constraints=[Broken(how)], **sampling)
    outcome = run(core, {0: [neighbours()[0], bad, neighbours()[1]]})
    assert "constraint" in outcome.failures["bad"].message
    assert len(outcome.answers["bad", 0].tokens) == 3
    unharmed(outcome, core)


def test_a_constraint_that_takes_too_much_work_is_the_request_s_fault() -> None:
    class TooMuch(Broken):
        def advance(self, token: int) -> None:
            raise ConstraintError("this schema takes too much work")

    outcome = run(Core(llama_model()), {0: [request("bad", constraints=[TooMuch("")]), *neighbours()]})
    failure = outcome.failures["bad"]
    assert (failure.code, failure.param) == ("invalid_request", "response_format")
    assert "too much work" in failure.message


def test_one_failing_choice_ends_all_choices_of_its_request_once() -> None:
    core = Core(llama_model())
    bad = request("bad", n=3, constraints=[None, Broken("mask"), None], seed=4)
    outcome = run(core, {0: [bad, *neighbours()]})
    assert [event.key for event in outcome.events if isinstance(event, RequestFailed)] == ["bad"]
    unharmed(outcome, core)


def test_logits_that_are_not_numbers_end_their_row() -> None:
    core = Core(NotANumber(llama_model()))
    outcome = run(core, {0: [neighbours()[0], poisoned(-1), neighbours()[1]]})
    assert "not numbers" in outcome.failures["bad"].message
    assert "bad" not in {key for key, _ in outcome.answers}
    unharmed(outcome, core)


def test_a_model_of_nothing_but_nan_fails_every_request_and_the_core_lives() -> None:
    model = llama_model()
    model.update({"lm_head": {"weight": mx.full((VOCAB, 32), mx.nan)}})
    outcome = run(Core(model), {0: neighbours(), 4: [request("three")]})
    assert outcome.failures.keys() == {"one", "two", "three"}
    assert not outcome.answers


@pytest.mark.parametrize("beside", [0, 5], ids=["in one prefill", "beside running streams"])
def test_a_prefill_that_fails_ends_its_request_alone(beside: int) -> None:
    core = Core(FailsInPrefill(llama_model()))
    first = [*neighbours(), poisoned(2)] if not beside else neighbours()
    outcome = run(core, {0: first, beside or 1: [poisoned(2)] if beside else []})
    assert "cannot be computed" in outcome.failures["bad"].message
    unharmed(outcome, core)


def test_a_decode_step_that_fails_ends_what_runs_and_the_core_goes_on() -> None:
    model = FailsInDecode(llama_model())
    core = Core(model)
    outcome = run(core, {0: neighbours(), 4: [poisoned(-1)], 9: [request("later", temperature=0.0)]})
    assert outcome.failures.keys() == {"one", "two", "bad"}
    assert {failure.code for failure in outcome.failures.values()} == {"internal_error"}
    assert outcome.answers["later", 0].reason == "length"
    assert core.stats().running == 0


class PlainOnly(Wrapped):
    """A model whose caches know nothing of batches."""

    def make_cache(self) -> list[ConcatenateKVCache]:
        return [ConcatenateKVCache() for _ in self.layers]


class WrongInBatches(Wrapped):
    """A model that can be batched as far as its caches tell, but computes something else then."""

    def answer(self, tokens: mx.array, logits: mx.array) -> mx.array:
        return logits * 1.5 if tokens.shape[0] > 1 else logits


class RaisesInBatches(Wrapped):
    def fault(self, tokens: mx.array) -> None:
        if tokens.shape[0] > 1:
            raise NotImplementedError("one row only")

    def make_cache(self) -> list[KVCache]:
        return [KVCache() for _ in self.layers]


@pytest.mark.parametrize("kind", [PlainOnly, WrongInBatches, RaisesInBatches])
def test_models_that_cannot_be_batched_run_one_request_at_a_time(kind: type[Wrapped]) -> None:
    core = Core(kind(llama_model()))
    assert not core.batching
    assert core.facts.why_not
    requests = [*neighbours(), request("three", n=2, seed=8, length=40, presence_penalty=1.0)]
    outcome = run(core, {0: requests[:2], 3: requests[2:]})
    whole = Core(llama_model())
    for one in [*neighbours(), request("three", n=2, seed=8, length=40, presence_penalty=1.0)]:
        for key, answer in alone(whole, one).answers.items():
            same(outcome.answers[key], answer)
    order = [event.rows[0].key for event in outcome.events if isinstance(event, Tokens)]
    assert order == sorted(order, key=["one", "two", "three"].index)
