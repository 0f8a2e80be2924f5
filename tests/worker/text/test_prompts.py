"""What a request is refused for before anything runs, and the plan it gets otherwise."""

from __future__ import annotations

import math
from functools import partial

import pytest

from inference.errors import ContextLengthExceeded, InvalidRequest, LmxError
from inference.ipc import GenerateRequest, OutputFormat, Sampling
from inference.worker.constraints.gate import ReasoningGate
from inference.worker.constraints.guide import Guide
from inference.worker.text.dialect import Dialect
from tests.material import EOS_TOKEN_ID
from tests.worker.constraints import walks

HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


model = partial(walks.model, context=64)


def test_it_works() -> None:
    ready = model().ready("r", GenerateRequest(messages=HI))
    assert ready.prompt.text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert model().tokenizer.decode(ready.prompt.tokens) == ready.prompt.text
    assert ready.plan.eos == {EOS_TOKEN_ID}
    assert ready.plan.syntax is None
    assert ready.core.constraints == []
    assert ready.core.max_tokens == 64 - len(ready.prompt.tokens)


def test_prompts_in_text_and_in_tokens() -> None:
    assert model().prompt(GenerateRequest(prompt="abc")).text == "abc"
    tokens = model().tokenizer.encode("abc")
    assert model().prompt(GenerateRequest(prompt=tokens)).tokens == tokens
    assert model().prompt(GenerateRequest(prompt=tokens)).text == "abc"
    assert model().prompt(GenerateRequest(prompt="")).tokens == [model().tokenizer.bos_token_id]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (GenerateRequest(), "messages"),
        (GenerateRequest(messages=HI, prompt="a"), "messages"),
        (GenerateRequest(messages=[]), "messages"),
        (GenerateRequest(prompt=[5, 512]), "prompt"),
        (GenerateRequest(prompt=[-1]), "prompt"),
        (GenerateRequest(prompt="a", n=0), "n"),
        (GenerateRequest(prompt="a", n=129), "n"),
        (GenerateRequest(prompt="a", max_tokens=0), "max_tokens"),
        (GenerateRequest(prompt="a", stop=["b", ""]), "stop"),
        (GenerateRequest(prompt="a", sampling=Sampling(logit_bias={512: 1.0})), "logit_bias"),
        (GenerateRequest(prompt="a", sampling=Sampling(logit_bias={5: math.nan})), "logit_bias"),
        (GenerateRequest(prompt="a", sampling=Sampling(temperature=math.nan)), "temperature"),
        (GenerateRequest(prompt="a", sampling=Sampling(temperature=-1)), "temperature"),
        (GenerateRequest(prompt="a", sampling=Sampling(top_p=math.inf)), "top_p"),
        (GenerateRequest(prompt="a", sampling=Sampling(top_k=-1)), "top_k"),
        (GenerateRequest(prompt="a", sampling=Sampling(repetition_penalty=0)), "repetition_penalty"),
        (GenerateRequest(messages=HI, tool_choice="required"), "tool_choice"),
        (GenerateRequest(messages=HI, tool_names=["weather"]), "tool_choice"),
        (GenerateRequest(messages=HI, tools=[TOOL], tool_names=["banana"]), "tool_choice"),
        (GenerateRequest(messages=HI, thinking_budget=-1), "thinking_budget"),
        (GenerateRequest(prompt="a", continue_final=True), "continue_final_message"),
        (GenerateRequest(messages=HI, continue_final=True), "continue_final_message"),
        (GenerateRequest(messages=HI, output_format=OutputFormat("regex", text="(")), "response_format"),
        (GenerateRequest(messages=HI, template_kwargs={"chat_template": "x"}), "chat_template_kwargs"),
    ],
)
def test_what_is_wrong_is_refused_by_name(body: GenerateRequest, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        model(context=2048).ready("r", body)
    assert refused.value.param == param


def test_an_echo_may_have_logprobs() -> None:
    wanted = GenerateRequest(prompt="a", echo=True, prompt_logprobs=2, sampling=Sampling(top_logprobs=2))
    assert model().ready("r", wanted).core.prompt_logprobs == 2


def test_more_alternatives_than_any_model_needs_are_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        model().ready("r", GenerateRequest(prompt="a", echo=True, prompt_logprobs=1025))
    assert refused.value.param == "prompt_logprobs"


def test_a_prompt_over_the_context_is_refused_with_both_numbers() -> None:
    long = [{"role": "user", "content": "word " * 100}]
    count = len(model().prompt(GenerateRequest(messages=long)).tokens)
    with pytest.raises(ContextLengthExceeded) as refused:
        model().ready("r", GenerateRequest(messages=long))
    assert refused.value.message == (
        f"This model's maximum context length is 64 tokens. However, your messages resulted in {count} tokens: "
        "the prompt is too long."
    )
    assert refused.value.param == "messages"


def test_a_prompt_that_leaves_no_token_for_the_answer_is_refused() -> None:
    assert len(model().ready("r", GenerateRequest(prompt=[9] * 63)).prompt.tokens) == 63
    with pytest.raises(LmxError, match="your prompt resulted in 64 tokens"):
        model().ready("r", GenerateRequest(prompt=[9] * 64))


def test_tools_are_shown_and_parsed_unless_the_choice_is_none() -> None:
    shown = model(context=2048).ready("r", GenerateRequest(messages=HI, tools=[TOOL]))
    assert "weather" in shown.prompt.text
    assert shown.plan.syntax is not None
    assert shown.plan.known_tools == {"weather"}
    hidden = model(context=2048).ready("r", GenerateRequest(messages=HI, tools=[TOOL], tool_choice="none"))
    assert "weather" not in hidden.prompt.text
    assert hidden.plan.syntax is None


def test_every_choice_has_a_constraint_of_its_own() -> None:
    ready = model().ready("r", GenerateRequest(messages=HI, n=3, output_format=OutputFormat("json_object")))
    assert len({id(constraint) for constraint in ready.core.constraints}) == 3
    assert all(isinstance(constraint, Guide) for constraint in ready.core.constraints)


def test_a_constraint_waits_for_the_end_of_the_reasoning() -> None:
    thinking = model(Dialect(None, "qwen3"))
    body = GenerateRequest(
        messages=[*HI, {"role": "assistant", "content": "<think>"}],
        template_kwargs={"continue_final_message": True},
        output_format=OutputFormat("json_object"),
    )
    assert isinstance(thinking.ready("r", body).core.constraints[0], ReasoningGate)


def test_ignore_eos_leaves_no_token_that_ends_the_answer() -> None:
    assert model().ready("r", GenerateRequest(prompt="a", ignore_eos=True)).plan.eos == frozenset()
