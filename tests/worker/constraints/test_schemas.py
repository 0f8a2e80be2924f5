"""Which schemas are enforced, which are refused and where, and that what is enforced validates."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.errors import InvalidRequest
from inference.ipc import GenerateRequest, OutputFormat
from inference.worker.constraints import schemas
from inference.worker.text.dialect import Dialect
from tests.worker.constraints.walks import HI, model, said, takes

STRING = {"type": "string"}


def body(schema: Any) -> GenerateRequest:
    return GenerateRequest(messages=HI, output_format=OutputFormat("json_schema", schema=schema))


def accepts(schema: Any, document: Any) -> bool:
    text = json.dumps(document)
    return takes(model(), body(schema), text) == text + "$"


@pytest.mark.parametrize(
    ("schema", "keyword", "place"),
    [
        ({"not": STRING}, "not", "/not"),
        ({"type": "object", "properties": {"a": {"not": STRING}}}, "not", "/properties/a/not"),
        ({"type": "object", "if": {}, "then": {}}, "if", "/if"),
        ({"type": "array", "items": {"type": "array", "uniqueItems": True}}, "uniqueItems", "/items/uniqueItems"),
        ({"type": "array", "contains": STRING}, "contains", "/contains"),
        ({"anyOf": [STRING, {"dependentRequired": {"a": ["b"]}}]}, "dependentRequired", "/anyOf/1/dependentRequired"),
        ({"dependentSchemas": {"a": {}}}, "dependentSchemas", "/dependentSchemas"),
        ({"dependencies": {"a": ["b"]}}, "dependencies", "/dependencies"),
        ({"$defs": {"a/b~c": {"propertyNames": STRING}}}, "propertyNames", "/$defs/a~1b~0c/propertyNames"),
        ({"unevaluatedProperties": False}, "unevaluatedProperties", "/unevaluatedProperties"),
        ({"prefixItems": [{"unevaluatedItems": False}]}, "unevaluatedItems", "/prefixItems/0/unevaluatedItems"),
        ({"$dynamicRef": "#a"}, "$dynamicRef", "/$dynamicRef"),
        ({"type": "string", "format": "banana"}, "banana", "/format"),
        ({"additionalProperties": {"type": "banana"}}, "banana", "/additionalProperties/type"),
        ({"items": {"type": ["string", 3]}}, "3 is no type", "/items/type"),
        ({"properties": {"a": {"oneOf": [{"type": "integer"}, {"minimum": 3}]}}}, "oneOf", "/properties/a/oneOf"),
        ({"properties": {"a": STRING, "b": {"pattern": "(?=a)"}}}, "pattern", "/properties/b/pattern"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "x.json", ""),
        ({"type": "string", "minLength": -1}, "minLength", ""),
        ({"minProperties": 1, "properties": {"a": STRING}}, "minProperties", "/minProperties"),
        ({"items": {"maxProperties": 0, "properties": {"a": STRING}}}, "maxProperties", "/items/maxProperties"),
        ({"type": "object", "required": "a"}, "required", ""),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_keyword_and_place(schema: Any, keyword: str, place: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        model().ready("r", body(schema))
    assert refused.value.param == "response_format"
    assert keyword in refused.value.message
    assert f"(at {place})" in refused.value.message or not place


def test_a_schema_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = STRING
    for _ in range(900):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidRequest, match=r"nested too deep|recursion"):
        model().ready("r", body(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"title": "t", "description": "d", "default": 1, "examples": [1], "$comment": "c", "type": "integer"},
        {"deprecated": True, "readOnly": True, "writeOnly": True, "type": "integer"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "http://a.example/b", "type": "integer"},
        {"type": "integer", "format": "int32"},
        {"type": "integer", "uniqueItems": False, "then": False, "minContains": 2, "not": False},
        {"type": "integer", "x-guidance": {"lenient": True}, "unknown": 3, "nullable": True},
        {"type": "integer", "unevaluatedProperties": True, "propertyNames": True, "dependencies": {}},
    ],
)
def test_what_says_nothing_passes(schema: Any) -> None:
    assert accepts(schema, 12)
    assert not accepts(schema, "a")


def test_llguidances_own_options_cannot_be_smuggled_in() -> None:
    with pytest.raises(InvalidRequest, match="not"):
        model().ready("r", body({"x-guidance": {"lenient": True}, "not": {}}))
    loose = {"type": "array", "x-guidance": {"whitespace_pattern": "[ ]*", "item_separator": ";"}}
    assert accepts(loose, [1, 2])


def test_a_property_may_have_the_name_of_a_keyword() -> None:
    schema = {
        "type": "object",
        "properties": {"not": STRING, "if": {"type": "integer"}, "x-guidance": {"type": "null"}, "type": STRING},
        "required": ["not", "if"],
    }
    assert accepts(schema, {"not": "a", "if": 1, "x-guidance": None, "type": "banana"})
    assert not accepts(schema, {"not": 1})


@pytest.mark.parametrize("place", ["enum", "const", "default", "examples"])
def test_values_are_no_schemas(place: str) -> None:
    value = {"not": 1, "type": "banana"}
    schema = {place: [value] if place in ("enum", "examples") else value}
    assert accepts(schema, value)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"$defs": {"n": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}, "type": "object"}
         | {"properties": {"next": {"$ref": "#/$defs/n"}}, "required": ["next"]},
         {"next": {"next": {"next": None}}}, {"next": 1}),
        ({"$defs": {"s": {"enum": ["a", 1]}}, "type": "array", "items": {"$ref": "#/$defs/s"}}, ["a", 1], [2]),
        ({"oneOf": [{"type": "integer"}, STRING]}, "a", None),
        ({"allOf": [{"properties": {"a": STRING}, "required": ["a"]}, {"properties": {"b": STRING}}], "type": "object"},
         {"a": "x", "b": "y"}, {"b": "y"}),
        ({"type": "number", "minimum": 0.5, "exclusiveMaximum": 2}, 1.25, 2),
        ({"type": "integer", "multipleOf": 3}, 9, 10),
        ({"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^a"}, "abc", "b"),
        ({"type": "string", "format": "date"}, "2024-02-29", "yesterday"),
        ({"type": "string", "format": "password"}, "x", 1),
        ({"type": "array", "prefixItems": [STRING], "items": {"type": "integer"}, "minItems": 2}, ["a", 1], ["a"]),
        ({"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
         {"x1": 1}, {"y": 1}),
        ({"type": "object", "additionalProperties": {"type": "array", "items": {"type": "array", "items": STRING}}},
         {"k": [["a"], []]}, {"k": [1]}),
        ({"type": "object", "minProperties": 1}, {"a": "x"}, {}),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/p", "description": "d"}}, "$defs": {"p": STRING}},
         {"a": "x"}, {"a": 1}),
    ],
)  # fmt: skip
def test_what_is_enforced(schema: Any, good: Any, bad: Any) -> None:
    jsonschema.validate(good, schema)
    assert accepts(schema, good)
    assert not accepts(schema, bad)


def test_an_object_that_lists_its_properties_gets_no_others() -> None:
    person = {"type": "object", "properties": {"a": STRING}}
    assert not accepts(person, {"a": "x", "b": 1})
    assert not accepts({"type": "array", "items": person}, [{"b": 1}])
    assert accepts(person | {"additionalProperties": True}, {"a": "x", "b": 1})
    assert accepts({"type": "object"}, {"b": 1})
    combined = {"type": "object", "properties": {"a": STRING}, "anyOf": [{"required": ["b"]}, {"required": ["a"]}]}
    assert accepts(combined, {"b": "x"}) or accepts(combined, {"a": "x", "b": 1})


def test_arguments_are_objects_and_empty_where_nothing_is_told() -> None:
    assert schemas.arguments(None) == {"type": "object", "properties": {}}
    assert schemas.arguments({"type": "object"}) == {"type": "object", "properties": {}}
    assert schemas.arguments({"additionalProperties": True}) == {"additionalProperties": True, "type": "object"}
    assert schemas.arguments({"$ref": "#/$defs/a"}) == {"$ref": "#/$defs/a"}


def leaves() -> st.SearchStrategy[dict[str, Any]]:
    small = st.integers(0, 4)
    return st.one_of(
        st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, small, small),
        st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, small, small),
        st.builds(
            lambda low, more: {"type": "number", "minimum": low, "exclusiveMaximum": low + more + 1}, small, small
        ),
        st.sampled_from(
            [{"type": "boolean"}, {"type": "null"}, {"const": {"a": [1, "x"]}}, {"type": ["null", "boolean"]}]
        ),
        st.lists(st.sampled_from(["a", "b c", 1, 2.5, None, True, '"', "\n"]), min_size=1, unique_by=repr).map(
            lambda values: {"enum": values}
        ),
        st.sampled_from(["^[a-c]{2}$", "x", "^(ab|cd)+$"]).map(
            lambda pattern: {"type": "string", "pattern": pattern, "maxLength": 8}
        ),
    )


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(["a", "b", "not", "x y", "\u00e9", "items"])
    properties = st.dictionaries(names, inner, max_size=3)

    def an_object(found: dict[str, Any], count: int, closed: bool | None) -> dict[str, Any]:
        made = {"type": "object", "properties": found, "required": list(found)[:count]}
        return made if closed is None else made | {"additionalProperties": closed}

    return st.one_of(
        st.builds(an_object, properties, st.integers(0, 3), st.sampled_from([None, False])),
        st.builds(lambda items, most: {"type": "array", "items": items, "maxItems": most}, inner, st.integers(0, 2)),
        st.lists(inner, min_size=1, max_size=3).map(lambda listed: {"anyOf": listed}),
    )


@given(st.recursive(leaves(), nested, max_leaves=6), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_walk_under_any_schema_validates(schema: dict[str, Any], seed: int) -> None:
    answer = said(model(), body(schema), seed, limit=300)
    if answer.reason == "stop":
        jsonschema.Draft202012Validator(schema).validate(json.loads(answer.text.removesuffix("<|im_end|>")))


@pytest.mark.parametrize("parser", ["hermes", "qwen3_xml", "glm47", "poolside_v1", "minimax", "deepseek_v4"])
@given(
    properties=st.dictionaries(st.sampled_from("abc"), st.recursive(leaves(), nested, max_leaves=4)), seed=st.integers()
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_call_of_any_strict_tool_validates(parser: str, properties: dict[str, Any], seed: int) -> None:
    schema = {"type": "object", "properties": properties, "required": list(properties)[:2]}
    function = {"name": "f", "parameters": schema, "strict": True}
    tools = [{"type": "function", "function": function}]
    request = GenerateRequest(messages=HI, tools=tools, tool_choice="required")
    answer = said(model(Dialect(parser, None)), request, seed, limit=250)
    complete = answer.calls if answer.reason == "tool_calls" else answer.calls[:-1]
    for name, arguments in complete:
        assert name == "f"
        jsonschema.Draft202012Validator(schema).validate(json.loads(arguments))
    assert answer.calls or answer.reason == "length"
