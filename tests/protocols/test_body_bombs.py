"""Bodies within 32 MB that would take gigabytes and seconds apart are refused by their number of values alone."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from inference.errors import InvalidRequest
from inference.principal import Principal
from inference.protocols.jsonbody import MAX_NODES, MAX_VALUES, parse_object
from inference.protocols.openai import chat_call

OWNER = Principal("owner", "tests", frozenset({"inference"}))
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": [' + b"[]," * MAX_NODES + b"1]}",
        b'{"a": [' + b"{}," * MAX_NODES + b"1]}",
        b'{"a": 1' + b',"k": 1' * MAX_NODES + b"}",
        b'{"a": [' + b"1," * (MAX_VALUES + 1) + b"1]}",
        b'{"a": [' + b'"[",' * (2 * MAX_NODES) + b"1]}",
        b'{"a' + b'"\\,' * (2 * MAX_VALUES),
    ],
    ids=["arrays", "objects", "members", "numbers", "texts", "an open text"],
)
def test_too_many_values(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_object(raw)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize("text", ["[{: ,]", '\\"[{:,', "\\", '"[]"'])
def test_what_stands_in_a_text_does_not_count(text: str) -> None:
    long = text * MAX_VALUES
    assert parse_object(orjson.dumps({"a": long})) == {"a": long}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": MESSAGES, "tools": [{}] * 100_000}, "tools[0].type"),
        ({"messages": MESSAGES, "stop": [1] * 100_000}, "stop[0]"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}] * 100_000}]}, "messages[0].tool_calls[0].function"),
    ],
    ids=["tools", "stop", "tool_calls"],
)
def test_a_list_of_wrong_items_is_refused_at_its_first(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat_call(orjson.dumps({"model": "m", **fields}), OWNER)
    assert caught.value.param == param
