"""Messages of every sort, and templates that can do more or less."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from inference.errors import InvalidRequest
from inference.worker.text.chat import ChatTemplate, opens_reasoning

PLAIN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}"
    "{{ '\\n' }}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def template(source: str | None) -> ChatTemplate:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
    tokenizer.chat_template = source
    return ChatTemplate(tokenizer)


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}


def test_it_works() -> None:
    assert template(PLAIN).render(user("hi")) == "[user]hi\n[assistant]"


def test_parts_become_one_text() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert template(PLAIN).render(user(parts)) == "[user]one\ntwo\n[assistant]"


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([], "messages"),
        ([{"role": "banana", "content": "a"}], "messages[0].role"),
        (user(None), "messages[0].content"),
        (user(3), "messages[0].content"),
        (user([{"type": "image_url", "image_url": {"url": "data:"}}]), "messages[0].content[0]"),
        (user([{"type": "text"}]), "messages[0].content[0]"),
        (user(["text"]), "messages[0].content[0]"),
        ([{"role": "system", "content": None}], "messages[0].content"),
        ([{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}], "messages[0].tool_calls[0]"),
        ([{"role": "assistant", "content": None, "tool_calls": "text"}], "messages[0].tool_calls"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(messages: list[dict[str, Any]], place: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        template(PLAIN).render(messages)
    assert refused.value.param == place


def test_developer_is_written_system_where_the_template_does_not_know_it() -> None:
    messages = [{"role": "developer", "content": "be brief"}, *user("hi")]
    assert template(PLAIN).render(messages) == "[system]be brief\n[user]hi\n[assistant]"
    knows = "{# developer #}" + PLAIN
    assert template(knows).render(messages).startswith("[developer]be brief")


def test_system_messages_at_the_beginning_become_one() -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, *user("hi")]
    assert template(PLAIN).render(messages) == "[system]a\n\nb\n[user]hi\n[assistant]"


def test_a_template_without_system_gets_it_in_the_user_message() -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + PLAIN
    messages = [{"role": "system", "content": "be brief"}, *user("hi")]
    assert template(refuses).render(messages) == "[user]be brief\n\nhi\n[assistant]"


def test_arguments_become_a_mapping_for_a_template_that_writes_json() -> None:
    chat = template(PLAIN)
    assert not chat.arguments_as_text
    messages = [*user("a"), {"role": "assistant", "content": None, "tool_calls": [call('{"city": "Oslo"}')]}]
    assert '<call>weather {"city": "Oslo"}</call>' in chat.render(messages)


def test_arguments_stay_text_for_a_template_that_joins_texts() -> None:
    chat = template(PLAIN.replace("{{ c.function.arguments | tojson }}", "{{ '' + c.function.arguments }}"))
    assert chat.arguments_as_text
    messages = [*user("a"), {"role": "assistant", "content": None, "tool_calls": [call('{"city": "Oslo"}')]}]
    assert '<call>weather {"city": "Oslo"}</call>' in chat.render(messages)


def test_a_template_that_would_print_python_gets_text() -> None:
    assert template(
        PLAIN.replace("{{ c.function.arguments | tojson }}", "{{ c.function.arguments }}")
    ).arguments_as_text


def test_broken_arguments_of_an_earlier_answer_are_shown_as_they_were() -> None:
    messages = [*user("a"), {"role": "assistant", "content": None, "tool_calls": [call('{"city": ')]}]
    assert "{" in template(PLAIN).render(messages)


def test_a_tool_result_gets_the_name_of_its_call() -> None:
    source = "{{ tools | tojson }}{% for m in messages %}{{ m.role }}:{{ m.name }}:{{ m.content }};{% endfor %}"
    messages = [
        *user("a"),
        {"role": "assistant", "content": None, "tool_calls": [call("{}")]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "12 C"}]},
    ]
    assert template(source).render(messages).endswith("tool:weather:12 C;")


def test_tools_are_shown() -> None:
    assert '"weather"' in template(PLAIN).render(user("a"), [TOOL])


def test_the_template_refuses_with_its_own_sentence() -> None:
    source = "{% if messages|length > 1 %}{{ raise_exception('one message only') }}{% endif %}" + PLAIN
    with pytest.raises(InvalidRequest, match="one message only"):
        template(source).render([*user("a"), *user("b")])


def test_a_template_cannot_leave_its_sandbox() -> None:
    source = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(InvalidRequest, match="template"):
        template(source).render(user("a"))


def test_without_a_template_there_is_a_clear_answer() -> None:
    chat = template(None)
    assert not chat.available
    with pytest.raises(InvalidRequest, match="no chat template"):
        chat.render(user("a"))


def test_options_reach_the_template() -> None:
    source = "{{ mood }}" + PLAIN
    assert template(source).render(user("a"), options={"mood": "calm"}).startswith("calm")
    assert template(PLAIN).render(user("a"), options={"add_generation_prompt": False}) == "[user]a\n"


def test_a_last_answer_can_be_continued() -> None:
    messages = [*user("a"), {"role": "assistant", "content": "I sa"}]
    assert template(PLAIN).render(messages, options={"continue_final_message": True}).endswith("I sa")


def test_an_open_reasoning_marker_is_seen() -> None:
    assert opens_reasoning("...<|assistant|><think>\n", "<think>")
    assert not opens_reasoning("...<think>\n\n</think>\n\n", "<think>")
    assert not opens_reasoning("...", "")
