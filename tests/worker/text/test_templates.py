"""What the templates of four families make of calls, results, systems and unfinished answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inference.errors import InvalidRequest
from tests.material.templates import HARMONY, HERMES, LLAMA, MISTRAL, THINKING
from tests.worker.text.test_chat import TOOL, call, template, user

FAMILIES = {"hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL, "harmony": HARMONY}
SYSTEM = {"role": "system", "content": "Be brief."}
CALLS = {"role": "assistant", "content": None, "tool_calls": [call('{"city": "Oslo"}')]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "12 C"}
HISTORY = [SYSTEM, *user("Weather?"), CALLS, RESULT]


@pytest.mark.parametrize("family", FAMILIES)
def test_tools_are_shown(family: str) -> None:
    chat = template(FAMILIES[family])
    assert chat.tools
    assert "weather" in chat.render(user("a"), [TOOL])


@pytest.mark.parametrize(
    ("family", "shown"),
    [
        ("hermes", '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>'),
        ("hermes", "<|im_start|>user\n<tool_response>\n12 C\n</tool_response><|im_end|>"),
        ("llama", '{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>'),
        ("llama", "<|start_header_id|>ipython<|end_header_id|>\n\n12 C<|eot_id|>"),
        ("mistral", '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}, "id": "'),
        ("mistral", '[TOOL_RESULTS] {"content": "12 C", "call_id": "'),
        ("harmony", 'assistant to=functions.weather<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>'),
        ("harmony", '<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"12 C"<|end|>'),
    ],
)
def test_earlier_calls_and_their_results_are_shown_as_the_family_writes_them(family: str, shown: str) -> None:
    text = template(FAMILIES[family]).render(HISTORY, [TOOL])
    assert shown in text
    assert "None" not in text
    assert "Be brief." in text or family == "mistral", "Mistral shows the system with the last question"


def test_mistrals_ids_are_shortened_and_the_result_goes_by_the_same() -> None:
    chat = template(MISTRAL)
    assert chat.short_ids
    text = chat.render(HISTORY)
    [identity] = [
        json.loads(line)["id"] for line in text.split("[TOOL_CALLS] [")[1:] for line in [line.split("]</s>")[0]]
    ]
    assert len(identity) == 9
    assert identity.isalnum()
    assert f'"call_id": "{identity}"' in text
    kept = [
        *user("a"),
        CALLS | {"tool_calls": [call("{}") | {"id": "Abc123xyz"}]},
        RESULT | {"tool_call_id": "Abc123xyz"},
    ]
    assert chat.render(kept).count("Abc123xyz") == 2
    assert not template(HERMES).short_ids


def test_several_results_follow_one_answer() -> None:
    both = CALLS | {"tool_calls": [call("{}"), call("{}") | {"id": "c2"}]}
    text = template(HERMES).render([*user("a"), both, RESULT, RESULT | {"tool_call_id": "c2", "content": None}], [TOOL])
    assert text.count("<tool_response>") == 2
    assert text.count("<|im_start|>user") == 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("empty", [{"content": None}, {"content": ""}, {"content": []}, {}])
def test_an_answer_without_content_may_stand_in_the_history(family: str, empty: dict[str, Any]) -> None:
    history = [*user("a"), {"role": "assistant", "reasoning_content": "hm"} | empty, *user("b")]
    text = template(FAMILIES[family]).render(history)
    assert "None" not in text
    assert "b" in text


def test_a_later_system_message_goes_to_the_user_where_the_template_refuses_it() -> None:
    history = [
        SYSTEM,
        *user("a"),
        {"role": "assistant", "content": "b"},
        SYSTEM | {"content": "Now in German."},
        *user("c"),
    ]
    text = template(HERMES).render(history)
    assert text.count("<|im_start|>system") == 1
    assert "<|im_start|>user\nNow in German.\n\nc<|im_end|>" in text


@pytest.mark.parametrize(
    ("family", "messages", "sentence"),
    [
        ("mistral", [*user("a"), *user("b")], "roles must alternate"),
        ("harmony", [*user("a"), RESULT], "no previous assistant message"),
        ("llama", [*user("a"), CALLS | {"tool_calls": [call("{}"), call("{}")]}], "only supports single tool-calls"),
    ],
)
def test_an_order_that_the_template_refuses_is_the_clients_error(
    family: str, messages: list[Any], sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=sentence) as refused:
        template(FAMILIES[family]).render(messages)
    assert refused.value.param == "messages"


# ---------------------------------------------------------------------------------------- templates without tools


def test_a_template_that_knows_no_tools_gets_them_as_text() -> None:
    source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    chat = template(source)
    assert not chat.tools
    text = chat.render(HISTORY, [TOOL])
    assert text.startswith("[system]Be brief.\n\nYou can call these functions")
    assert '\n{"name": "weather", "parameters"' in text
    assert '[assistant]<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>' in text
    assert text.endswith("[user]<tool_response>\n12 C\n</tool_response>")
    assert chat.render(user("a"), [TOOL]).startswith("[system]You can call")
    assert "function" not in chat.render(user("a"))


def test_results_of_one_answer_are_one_turn_then() -> None:
    both = CALLS | {"content": "Wait.", "tool_calls": [call("{}"), call("{broken") | {"id": "c2"}]}
    text = template("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}").render(
        [*user("a"), both, RESULT, RESULT, *user("b")]
    )
    assert text.count("[user]") == 3
    assert text.count("<tool_response>") == 2
    assert "[assistant]Wait.\n<tool_call>" in text


# ------------------------------------------------------------------------------------- answers that are continued


def begun(content: Any) -> list[dict[str, Any]]:
    return [*user("a"), {"role": "assistant", "content": content}]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_ends_where_the_answer_goes_on(family: str) -> None:
    text, so_far = template(FAMILIES[family]).continued(begun("Once upon"), (), {})
    assert text.endswith("Once upon")
    assert so_far == "Once upon"
    assert template(FAMILIES[family]).continued(begun([{"type": "text", "text": "Once"}]), (), {})[1] == "Once"


def test_white_space_that_the_template_trims_is_not_counted_as_said() -> None:
    assert template(LLAMA).continued(begun("Once upon "), (), {})[1] == "Once upon"
    assert template(HERMES).continued(begun("Once upon "), (), {})[1] == "Once upon "


def test_nothing_said_yet_can_be_continued_too() -> None:
    text, so_far = template(HERMES).continued(begun(""), (), {})
    assert text.endswith("<|im_start|>assistant\n")
    assert so_far == ""


@pytest.mark.parametrize(
    ("source", "messages", "options", "why"),
    [
        (HERMES, user("a"), {}, "must be the assistant's"),
        (HERMES, [*user("a"), CALLS], {}, "not a call"),
        (HERMES, begun("a"), {"add_generation_prompt": True}, "add_generation_prompt"),
        (THINKING, begun("<think>a</think>\nb"), {}, "does not end with that message's text"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", begun("abc"), {}, "does not end with"),
    ],
)
def test_what_cannot_be_continued_is_said_with_the_reason(
    source: str, messages: list[Any], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why) as refused:
        template(source).continued(messages, (), options)
    assert refused.value.param == "continue_final_message"
    assert len(refused.value.message) < 250, "the prompt is not told"
