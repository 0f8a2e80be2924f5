"""Each request gives, in any company, exactly what it gives alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.worker.core.core import Core
from inference.worker.core.types import CoreRequest
from tests.worker.core.support import (
    EOS,
    VOCAB,
    Answer,
    Cycle,
    alone,
    convolution_model,
    llama_model,
    request,
    run,
    same,
    state_space_model,
    window_model,
)

MODELS: dict[str, Callable[[], Any]] = {
    "attention": llama_model,
    "sliding window": window_model,
    "state space": state_space_model,
    "convolution": convolution_model,
}

_cores: dict[str, Core] = {}


def core_of(kind: str) -> Core:
    """One core per kind of model for all tests: what one test leaves behind must not matter to the next."""
    if kind not in _cores:
        _cores[kind] = Core(MODELS[kind](), slots=64)
    return _cores[kind]


def sixteen() -> list[CoreRequest]:
    """Requests that differ in every parameter there is. Made anew at each call, since constraints have state."""
    biased = {7: 4.0, 11: -100.0, VOCAB - 1: 3.5}
    return [
        request("greedy", temperature=0.0),
        request("greedy, logprobs", temperature=0.0, top_logprobs=5),
        request("warm", temperature=0.7, seed=1),
        request("hot", temperature=1.7, seed=2, length=21),
        request("top_p", temperature=1.1, top_p=0.6, seed=3),
        request("top_k", temperature=1.4, top_k=4, seed=4, length=1),
        request("both", temperature=1.2, top_k=40, top_p=0.8, min_p=0.01, seed=5),
        request("min_p", temperature=1.5, min_p=0.2, seed=6, length=33),
        request("presence", temperature=0.9, presence_penalty=1.5, seed=7),
        request("frequency", temperature=0.0, frequency_penalty=0.8, max_tokens=20),
        request("repetition", temperature=0.6, repetition_penalty=1.4, seed=8, length=40),
        request("bias", temperature=0.8, logit_bias=biased, seed=9),
        request("constraint", temperature=0.9, seed=10, constraints=[Cycle(9)], top_logprobs=2),
        request("two", temperature=1.0, seed=11, n=2, top_p=0.9, top_logprobs=0),
        request("two constraints", temperature=1.0, seed=12, n=2, constraints=[Cycle(), None]),
        request("eos", temperature=1.0, seed=13, eos=frozenset({EOS, *range(100, 160)}), max_tokens=30),
    ]


def by_itself(core: Core, requests: list[CoreRequest]) -> dict[tuple[str, int], Answer]:
    answers: dict[tuple[str, int], Answer] = {}
    for one in requests:
        outcome = alone(core, one)
        assert not outcome.failures
        answers.update(outcome.answers)
    return answers


def compare(found: dict[tuple[str, int], Answer], wanted: dict[tuple[str, int], Answer]) -> None:
    assert found.keys() == wanted.keys()
    for key, answer in found.items():
        same(answer, wanted[key])


@pytest.mark.parametrize("kind", MODELS)
def test_models_share_a_batch(kind: str) -> None:
    facts = core_of(kind).facts
    assert facts.batching, facts.why_not
    assert facts.joint_prefill
    assert facts.vocab_size == VOCAB
    assert facts.kv_bytes_per_token > 0


@pytest.mark.parametrize("kind", MODELS)
def test_sixteen_at_once(kind: str) -> None:
    core = core_of(kind)
    compare(run(core, {0: sixteen()}).answers, by_itself(core, sixteen()))


@pytest.mark.parametrize("kind", MODELS)
def test_sixteen_one_after_the_other(kind: str) -> None:
    core = core_of(kind)
    arrivals = {2 * step: [one] for step, one in enumerate(reversed(sixteen()))}
    compare(run(core, arrivals).answers, by_itself(core, sixteen()))


def test_long_answers_past_the_growth_of_the_cache() -> None:
    core = core_of("attention")

    def three() -> list[CoreRequest]:
        return [
            request("a", temperature=0.0, max_tokens=300),
            request("b", temperature=1.0, seed=1, max_tokens=280, length=250),
            request("c", temperature=1.0, seed=2, max_tokens=20, frequency_penalty=0.5),
        ]

    arrivals = {0: three()[:1], 3: three()[1:2], 100: three()[2:]}
    compare(run(core, arrivals).answers, by_itself(core, three()))


def test_few_slots_change_nothing_but_the_time() -> None:
    core = Core(llama_model(), slots=3)
    outcome = run(core, {0: sixteen()})
    compare(outcome.answers, by_itself(core_of("attention"), sixteen()))


def test_rows_of_very_different_length_are_stepped_apart_with_the_same_result() -> None:
    core = Core(llama_model())
    core._placement._limit = 256 * 10
    compare(run(core, {0: sixteen()[:6], 2: sixteen()[6:]}).answers, by_itself(core_of("attention"), sixteen()))


def test_seeds_repeat_and_choices_differ() -> None:
    core = core_of("attention")
    first = alone(core, request("r", seed=5, n=3, max_tokens=16)).answers
    again = alone(core, request("r", seed=5, n=3, max_tokens=16)).answers
    other = alone(core, request("r", seed=6, n=3, max_tokens=16)).answers
    compare(again, first)
    assert len({tuple(answer.tokens) for answer in [*first.values(), *other.values()]}) == 6
    free = [alone(core, request("r", max_tokens=16)).answers["r", 0].tokens for _ in range(2)]
    assert free[0] != free[1]


def test_choices_that_share_a_prefill_are_requests_of_their_own_otherwise() -> None:
    core = core_of("attention")
    two = alone(core, request("r", seed=5, n=2)).answers
    one = alone(core, request("r", seed=5, n=1)).answers
    same(two["r", 0], one["r", 0])


_parameters = st.fixed_dictionaries(
    {
        "length": st.integers(1, 40),
        "max_tokens": st.integers(1, 14),
        "temperature": st.sampled_from([0.0, 0.3, 0.8, 1.0, 2.0]),
        "top_p": st.sampled_from([1.0, 0.95, 0.5, 0.05]),
        "top_k": st.sampled_from([0, 1, 7, 100, 10_000]),
        "min_p": st.sampled_from([0.0, 0.05, 0.5, 1.0]),
        "presence_penalty": st.sampled_from([0.0, 0.0, 1.0, -2.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.0, 0.7]),
        "repetition_penalty": st.sampled_from([1.0, 1.0, 1.3, 0.8]),
        "logit_bias": st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-5, 5), max_size=3),
        "top_logprobs": st.sampled_from([None, None, 0, 3]),
        "seed": st.integers(-(2**70), 2**70),
        "n": st.sampled_from([1, 1, 1, 3]),
        "eos": st.sampled_from([frozenset(), frozenset(range(0, VOCAB, 9))]),
    }
)
_arrival = st.tuples(_parameters, st.booleans(), st.integers(0, 12), st.one_of(st.none(), st.integers(0, 25)))


def _made(index: int, parameters: dict[str, Any], constrained: bool) -> CoreRequest:
    constraints = [Cycle(8) for _ in range(parameters["n"])] if constrained else []
    return request(f"r{index}", constraints=constraints, **parameters)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["attention", "sliding window", "state space"]), st.lists(_arrival, min_size=2, max_size=7))
def test_any_company(kind: str, drawn: list[tuple[dict[str, Any], bool, int, int | None]]) -> None:
    core = core_of(kind)
    make: Callable[[int], CoreRequest] = lambda index: _made(index, drawn[index][0], drawn[index][1])  # noqa: E731
    arrivals: dict[int, list[CoreRequest]] = {}
    cancels: dict[int, list[tuple[str, int | None]]] = {}
    for index, (_, _, step, cancelled) in enumerate(drawn):
        arrivals.setdefault(step, []).append(make(index))
        if cancelled is not None:
            cancels.setdefault(cancelled, []).append((f"r{index}", None))
    outcome = run(core, arrivals, cancels)
    assert not outcome.failures
    wanted = by_itself(core, [make(index) for index in range(len(drawn))])
    assert outcome.answers.keys() == wanted.keys()
    for key, answer in outcome.answers.items():
        if answer.reason == "cancelled":
            assert answer.completion_tokens == len(answer.tokens)
            assert answer.tokens == wanted[key].tokens[: len(answer.tokens)]
        else:
            same(answer, wanted[key])
