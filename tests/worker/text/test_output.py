"""From tokens to deltas, with the nano tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from inference import ipc
from inference.worker.core.types import TokenLogprobs
from inference.worker.text.output import ChoiceOutput, OutputPlan
from inference.worker.text.split import Tags
from inference.worker.text.stops import StopStrings
from inference.worker.text.tools import SYNTAXES
from inference.worker.vllm_compat.parsers import parse_calls
from tests.material import EOS_TOKEN_ID
from tests.worker.text.nano import encode, plan

CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'


def talk(output: ChoiceOutput, tokens: list[int], *, logprobs: bool = False) -> list[ipc.Delta]:
    deltas = []
    for token in tokens:
        output.feed(token, TokenLogprobs(-1.0, [token, 5], [-1.0, -2.0]) if logprobs else None)
        deltas.append(output.take())
        if output.stopped is not None:
            break
    return [delta for delta in deltas if delta is not None]


def everything(
    deltas: list[ipc.Delta], output: ChoiceOutput, reason: ipc.FinishReason
) -> tuple[str, str, list[Any], str]:
    final = output.finish(reason)
    last = output.take()
    deltas = deltas + ([last] if last is not None else [])
    return (
        "".join(delta.content for delta in deltas),
        "".join(delta.reasoning for delta in deltas),
        gathered([tool for delta in deltas for tool in delta.tools]),
        final,
    )


def gathered(fragments: list[ipc.ToolFragment]) -> list[tuple[int, str | None, str]]:
    """Index, name and arguments of each call; only the first fragment of one has its id and name."""
    calls: list[tuple[int, str | None, str]] = []
    for fragment in fragments:
        if fragment.index == len(calls):
            assert fragment.id
            calls.append((fragment.index, fragment.name, fragment.arguments))
        else:
            assert fragment.index == len(calls) - 1
            assert fragment.id is fragment.name is None
            index, name, arguments = calls[-1]
            calls[-1] = index, name, arguments + fragment.arguments
    return calls


def test_it_works() -> None:
    output = ChoiceOutput(plan(), 0)
    deltas = talk(output, [*encode("Hello \U0001f600 there"), EOS_TOKEN_ID])
    assert everything(deltas, output, "stop") == ("Hello \U0001f600 there", "", [], "stop")
    assert (
        sum(len(delta.token_ids) for delta in deltas)
        == output.completion_tokens
        == len(encode("Hello \U0001f600 there")) + 1
    )


def test_one_delta_per_step_whatever_the_number_of_tokens() -> None:
    output = ChoiceOutput(plan(), 3)
    for token in encode("abc"):
        output.feed(token)
    delta = output.take()
    assert delta is not None
    assert (delta.content, delta.choice, delta.request) == ("abc", 3, "r")
    assert output.take() is None


def test_a_stop_string_ends_the_text_before_itself_and_the_count_with_its_last_token() -> None:
    output = ChoiceOutput(plan(stops=StopStrings(["END"])), 0)
    before = encode("one two E")
    deltas = talk(output, [*before, *encode("N"), *encode("D"), *encode("more")])
    assert output.stopped == "END"
    assert everything(deltas, output, "stop") == ("one two ", "", [], "stop")
    assert output.completion_tokens == len(before) + 2


def test_held_text_comes_out_at_the_end() -> None:
    output = ChoiceOutput(plan(stops=StopStrings(["END"])), 0)
    deltas = talk(output, encode("it is the EN"))
    assert everything(deltas, output, "length") == ("it is the EN", "", [], "length")


def test_stop_strings_do_not_apply_to_reasoning() -> None:
    made = plan(stops=StopStrings(["\n\n"]), splitter=lambda: Tags("<think>", "</think>", opened=True))
    output = ChoiceOutput(made, 0)
    deltas = talk(output, encode("a\n\nb</think>\n\nyes\n\nno"))
    assert everything(deltas, output, "stop") == ("yes", "a\n\nb", [], "stop")
    assert 0 < output.reasoning_tokens < output.completion_tokens


def tools(**options: Any) -> OutputPlan:
    return plan(
        syntax=SYNTAXES["hermes"],
        parse=lambda text: parse_calls("hermes", text, []),
        known_tools=frozenset({"weather"}),
        schemas={"weather": {"type": "object", "properties": {"city": {"type": "string"}}}},
        **options,
    )


def test_tool_calls_end_with_their_own_reason() -> None:
    output = ChoiceOutput(tools(), 0)
    deltas = talk(output, [*encode(f"Wait.\n{CALL}\n{CALL}"), EOS_TOKEN_ID])
    content, _, calls, reason = everything(deltas, output, "stop")
    assert content == "Wait."
    assert calls == [(0, "weather", '{"city": "Oslo"}'), (1, "weather", '{"city": "Oslo"}')]
    assert reason == "tool_calls"
    assert all("<" not in delta.content for delta in deltas)


def test_without_parallel_calls_the_first_counts() -> None:
    output = ChoiceOutput(tools(parallel_calls=False), 0)
    assert len(everything(talk(output, encode(CALL + CALL)), output, "stop")[2]) == 1


def test_an_answer_cut_short_says_so_even_with_a_call() -> None:
    output = ChoiceOutput(tools(), 0)
    assert everything(talk(output, encode(CALL + " and")), output, "length")[3] == "length"


def test_a_call_that_was_made_while_thinking_counts() -> None:
    output = ChoiceOutput(tools(splitter=lambda: Tags("<think>", "</think>", opened=True)), 0)
    content, reasoning, calls, reason = everything(talk(output, encode(f"hm {CALL}")), output, "stop")
    assert (content, reasoning, len(calls), reason) == ("", "hm", 1, "tool_calls")


def test_a_broken_call_is_text_and_stop_strings_apply_to_it() -> None:
    output = ChoiceOutput(tools(stops=StopStrings(["!"])), 0)
    deltas = talk(output, encode("<tool_call>no call! at all"))
    assert everything(deltas, output, "length") == ("<tool_call>no call", "", [], "stop")


@pytest.mark.parametrize("text", ["abc", "\u4f60\u597d"])
def test_logprobs_have_the_bytes_of_the_content(text: str) -> None:
    output = ChoiceOutput(plan(), 0)
    deltas = talk(output, [*encode(text), EOS_TOKEN_ID], logprobs=True)
    output.finish("stop")
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert b"".join(entry.raw for entry in entries) == text.encode()
    assert entries[0].top[1].token_id == 5
    assert entries[0].top[1].logprob == -2.0


@pytest.mark.parametrize("before", ["", "a", "\u4f60"])
def test_the_end_of_a_scored_prompts_answer_has_its_logprob(before: str) -> None:
    tokens = [*encode(before), EOS_TOKEN_ID]
    output = ChoiceOutput(plan(scored=True), 0)
    deltas = talk(output, tokens, logprobs=True)
    assert output.finish("stop") == "stop"
    deltas += [last] if (last := output.take()) is not None else []
    assert "".join(delta.content for delta in deltas) == before
    assert [entry.token_id for delta in deltas for entry in delta.logprobs] == tokens
    assert output.completion_tokens == len(tokens)


def test_logprobs_leave_out_what_a_stop_string_took() -> None:
    output = ChoiceOutput(plan(stops=StopStrings(["xyz"])), 0)
    deltas = talk(output, [*encode("ab"), *encode("x"), *encode("y"), *encode("z")], logprobs=True)
    output.finish("stop")
    assert b"".join(entry.raw for delta in deltas for entry in delta.logprobs) == b"ab"


def test_logprobs_of_held_text_come_with_it() -> None:
    output = ChoiceOutput(plan(stops=StopStrings(["xyz"])), 0)
    deltas = talk(output, [*encode("x"), *encode("y"), *encode("w")], logprobs=True)
    assert [len(delta.logprobs) for delta in deltas] == [0, 0, 3]
