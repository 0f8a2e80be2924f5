"""The default backend through its whole life, with the nano model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference import ipc
from inference.errors import InvalidRequest, LmxError, ModelUnavailable, Unsupported
from inference.ipc import GenerateRequest, OutputFormat, Sampling
from inference.worker.backends.vllm_mlx import VllmMlxBackend
from inference.worker.core.types import Bitmask
from tests.material import EOS_TOKEN_ID, broken_models, nano_model
from tests.worker.backends.served import Served

HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def chat(**options: Any) -> GenerateRequest:
    sampling = Sampling(**({"temperature": 0.0} | options.pop("sampling", {})))
    return GenerateRequest(messages=HI, max_tokens=options.pop("max_tokens", 8), sampling=sampling, **options)


class RaisingConstraint:
    """A constraint with a defect."""

    finished = False

    def mask(self, out: Bitmask) -> bool:
        raise TypeError("a defect in a constraint")

    def advance(self, token: int) -> None: ...


class Sabotaged(VllmMlxBackend):
    """Gives a broken constraint to every request that asks for JSON."""

    def prepare(self, request: str, body: GenerateRequest) -> ipc.Prepared:
        prepared = super().prepare(request, body)
        if body.output_format.kind == "json_object":
            ready = self._ready[request]
            self._ready[request] = replace(ready, core=replace(ready.core, constraints=[RaisingConstraint()]))
        return prepared


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(nano_model(), Sabotaged()) as made:
        yield made


def test_it_works(served: Served) -> None:
    result = served.run(chat())
    said = result.choices[0]
    assert (said.reason, len(said.tokens)) == ("length", 8)
    assert said.content == served.backend.detokenize(said.tokens)
    assert isinstance(result.events[0], ipc.Started)


def test_what_is_told_about_a_loaded_model(served: Served) -> None:
    loaded = served.loaded
    capabilities = loaded.capabilities
    assert (loaded.context, loaded.vocab_size, loaded.backend) == (2048, 512, "vllm_mlx")
    assert loaded.weight_bytes > 100_000
    assert loaded.kv_bytes_per_token == 2 * 1 * 16 * 4
    assert capabilities.chat
    assert capabilities.json_schema
    assert capabilities.batching
    assert (capabilities.tools, capabilities.tool_parser) == (True, "hermes")
    assert not capabilities.reasoning
    phases = [note.phase for note in served.notes if isinstance(note, ipc.LoadProgress)]
    assert list(dict.fromkeys(phases)) == ["import", "weights", "warmup", "tokenizer"]


def test_a_context_can_be_bounded() -> None:
    with Served(nano_model(), context=128, slots=4) as small:
        assert (small.loaded.context, small.loaded.slots) == (128, 4)
        result = small.run(chat(max_tokens=5000))
        assert result.choices[0].reason == "length"
        usage = result.choices[0].usage
        assert usage.prompt_tokens + usage.completion_tokens == 128


@pytest.mark.parametrize("defect", ["nan-weights", "truncated", "unknown-architecture"])
def test_a_broken_model_does_not_load(tmp_path: Path, defect: str) -> None:
    with pytest.raises(ModelUnavailable):
        VllmMlxBackend().load(ipc.Load(str(broken_models(tmp_path)[defect]), "broken"), lambda events: None)


def test_an_unknown_parser_does_not_load() -> None:
    with pytest.raises(ModelUnavailable, match="can be one of"):
        VllmMlxBackend().load(ipc.Load(str(nano_model()), "n", tool_parser="nope"), lambda events: None)


def test_tokens_and_counts(served: Served) -> None:
    tokens = served.backend.tokenize("hello <|im_end|>", True)
    assert tokens[-1] == EOS_TOKEN_ID
    assert served.backend.detokenize(tokens) == "hello <|im_end|>"
    assert served.backend.count(chat()) == len(
        served.backend.tokenize("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", False)
    )
    with pytest.raises(Unsupported):
        served.backend.embed("e", ["a"], None)


def test_a_constrained_answer_is_complete_and_ends_by_itself(served: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "yy"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    result = served.run(chat(output_format=OutputFormat("json_schema", schema=schema), max_tokens=200))
    assert json.loads(result.content)["a"] in ("x", "yy")
    assert result.choices[0].reason == "stop"


def test_a_choice_is_taken(served: Served) -> None:
    result = served.run(chat(output_format=OutputFormat("choice", choices=["yes", "no"])))
    assert result.content in ("yes", "no")


@pytest.mark.parametrize(("names", "reason"), [([], "tool_calls"), (["weather"], "stop")])
def test_a_random_model_calls_when_it_must(served: Served, names: list[str], reason: str) -> None:
    said = served.run(
        GenerateRequest(
            messages=HI,
            max_tokens=200,
            tools=[TOOL],
            tool_choice="required",
            tool_names=names,
            parallel_tool_calls=False,
            sampling=Sampling(temperature=0.0),
        )
    ).choices[0]
    assert said.calls[0][0] == "weather"
    assert json.loads("".join(text for _, text in said.calls)) == {}
    assert (said.content, said.reason) == ("", reason)


def test_the_end_token_can_be_ignored(served: Served) -> None:
    result = served.run(chat(ignore_eos=True, sampling={"logit_bias": {EOS_TOKEN_ID: 200.0}}))
    assert (result.choices[0].reason, result.choices[0].tokens) == ("length", [EOS_TOKEN_ID] * 8)


def test_an_echo_is_the_prompt_and_then_the_answer(served: Served) -> None:
    body = GenerateRequest(prompt="Once upon", max_tokens=4, echo=True, sampling=Sampling(temperature=0.0))
    plain = served.run(replace_echo(body))
    assert served.run(body).content == "Once upon" + plain.content


@pytest.mark.parametrize("prompt", ["Once upon", [9, 200, 30, 5]], ids=["text", "tokens"])
def test_an_echo_with_the_prompts_own_logprobs(served: Served, prompt: str | list[int]) -> None:
    sampling = Sampling(temperature=0.0, top_logprobs=2)
    body = GenerateRequest(prompt=prompt, max_tokens=3, n=2, echo=True, prompt_logprobs=2, sampling=sampling)
    result = served.run(body)
    kinds = [type(event) for event in result.events]
    assert kinds.count(ipc.PromptLogprobs) == 1
    assert kinds.index(ipc.PromptLogprobs) < kinds.index(ipc.Delta)
    [scored] = [event for event in result.events if isinstance(event, ipc.PromptLogprobs)]
    tokens = served.backend.prompt_tokens(body)
    assert [token.token_id for token in scored.tokens] == tokens
    assert math.isnan(scored.tokens[0].logprob)
    for token in scored.tokens[1:]:
        assert token.logprob < 0
        assert len(token.top) == 2
        assert token.text == served.backend.detokenize([token.token_id])
    plain = served.run(replace_echo(body))
    for said in result.choices:
        assert said.content == served.backend.detokenize(tokens) + plain.content
        assert [token.token_id for token in said.logprobs] == plain.choices[0].tokens
    # What is a prompt in the one is an answer in the other: the numbers are the same.
    longer = [*tokens, *plain.choices[0].tokens]
    whole = served.run(GenerateRequest(prompt=longer, max_tokens=1, echo=True, prompt_logprobs=2, sampling=sampling))
    [other] = [event for event in whole.events if isinstance(event, ipc.PromptLogprobs)]
    for one, same in zip([*scored.tokens[1:], *result.choices[0].logprobs], other.tokens[1:], strict=True):
        assert one.token_id == same.token_id
        assert one.logprob == pytest.approx(same.logprob, abs=1e-4)
        assert [top.token_id for top in one.top] == [top.token_id for top in same.top]


def replace_echo(body: GenerateRequest) -> GenerateRequest:
    return GenerateRequest(prompt=body.prompt, max_tokens=body.max_tokens, sampling=body.sampling)


def test_without_a_seed_answers_differ(served: Served) -> None:
    hot = chat(sampling={"temperature": 1.5}, n=2, max_tokens=24)
    first, second = served.run(hot).choices
    assert first.tokens != second.tokens


def test_a_cancelled_request_ends_and_the_others_go_on(served: Served) -> None:
    alone = served.run(chat(max_tokens=60)).content
    victim = served.start(chat(max_tokens=1900, n=2))
    other = served.start(chat(max_tokens=60))
    served.until(victim, ipc.Delta)
    served.backend.cancel(victim)
    ended = served.result(victim)
    assert [said.reason for said in ended.choices] == ["cancelled", "cancelled"]
    assert served.result(other).content == alone


def test_a_prepared_request_can_be_forgotten(served: Served) -> None:
    request = served.prepare(chat())
    served.backend.cancel(request)
    served.backend.start(request, 4)
    assert isinstance(served.next_event(request), ipc.Failed)
    served.backend.cancel("never heard of")


@pytest.mark.parametrize(
    "broken",
    [
        GenerateRequest(prompt=[5, 100_000]),
        chat(sampling={"logit_bias": {100_000: 5.0}}),
        chat(output_format=OutputFormat("json_schema", schema={"type": "banana"})),
        chat(output_format=OutputFormat("regex", text="(?<=a)b")),
        GenerateRequest(messages=[]),
    ],
)
def test_a_refused_request_touches_no_other(served: Served, broken: GenerateRequest) -> None:
    alone = served.run(chat(max_tokens=40)).content
    other = served.start(chat(max_tokens=40))
    with pytest.raises(InvalidRequest):
        served.prepare(broken)
    assert served.result(other).content == alone


@pytest.mark.parametrize(
    "failing",
    [
        chat(output_format=OutputFormat("json_object"), max_tokens=40),
        chat(output_format=OutputFormat("regex", text="((a|b)*a(a|b){18}){9}x"), max_tokens=200),
    ],
)
def test_a_request_that_fails_while_it_runs_ends_alone(served: Served, failing: GenerateRequest) -> None:
    alone = served.run(chat(max_tokens=60)).content
    others = [served.start(chat(max_tokens=60)) for _ in range(3)]
    bad = served.start(failing)
    result = served.result(bad)
    if failing.output_format.kind == "json_object":
        assert result.failed is not None
    assert [served.result(other).content for other in others] == [alone] * 3


def test_numbers_while_it_runs(served: Served) -> None:
    before = served.backend.step_number()
    request = served.start(chat(max_tokens=200))
    served.until(request, ipc.Delta)
    assert served.backend.busy()
    stats = served.backend.stats()
    assert stats.active_bytes > 0
    served.result(request)
    assert served.backend.step_number() > before


def test_stopping_ends_what_is_open() -> None:
    with Served(nano_model()) as made:
        request = made.start(chat(max_tokens=2000))
        made.until(request, ipc.Delta)
        made.backend.stop()
        last = made.until(request, ipc.Failed)
    assert isinstance(last, ipc.Failed)
    assert last.code == "model_unavailable"
    assert not made.backend.busy()


def test_limits_can_change_while_it_runs(served: Served) -> None:
    served.backend.set_limits(ipc.SetLimits(cache_limit_bytes=64 * 1024 * 1024, slots=2))
    started = [served.start(chat()) for _ in range(5)]
    assert len({served.result(request).content for request in started}) == 1
    served.backend.set_limits(ipc.SetLimits(slots=32))


def test_refusals_are_our_own_errors(served: Served) -> None:
    with pytest.raises(LmxError):
        served.prepare(GenerateRequest(messages=[{"role": "user", "content": "word " * 5000}]))
