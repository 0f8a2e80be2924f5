"""The truth, from a real model: templates, stop tokens, JSON. Slow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from inference.ipc import GenerateRequest, OutputFormat, Sampling
from tests.worker.backends.real import smollm2
from tests.worker.backends.served import Served

pytestmark = pytest.mark.slow

PERSON = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "capital": {"type": "boolean"}},
    "required": ["city", "capital"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(smollm2()) as made:
        yield made


def ask(question: str, **options: Any) -> GenerateRequest:
    sampling = Sampling(**({"temperature": 0.0} | options.pop("sampling", {})))
    messages = [{"role": "user", "content": question}]
    return GenerateRequest(messages=messages, max_tokens=options.pop("max_tokens", 24), sampling=sampling, **options)


def test_it_works(served: Served) -> None:
    result = served.run(ask("What is the capital of France?"))
    said = result.choices[0]
    assert "Paris" in said.content
    assert said.reason == "stop"
    assert "<|" not in said.content
    assert said.usage.completion_tokens == len(said.tokens)


def test_json_is_enforced(served: Served) -> None:
    body = ask(
        "Give me the capital of France as JSON.",
        output_format=OutputFormat("json_schema", schema=PERSON),
        max_tokens=60,
    )
    said = served.run(body).choices[0]
    answer = json.loads(said.content)
    assert set(answer) == {"city", "capital"}
    assert said.reason == "stop"


ORDER = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "maxLength": 12},
        "lines": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {
                    "item": {"enum": ["shoe", "hat"]},
                    "sizes": {
                        "type": "array",
                        "maxItems": 2,
                        "items": {"type": "integer", "minimum": 1, "maximum": 50},
                    },
                },
                "required": ["item", "sizes"],
            },
        },
    },
    "required": ["customer", "lines"],
}
TOOLS = [
    {"type": "function", "function": {"name": "order", "description": "Order things.", "parameters": ORDER}},
    {"type": "function", "function": {"name": "get_time", "description": "The time.", "parameters": None}},
]


@pytest.mark.parametrize(("names", "temperature"), [([], 0.0), (["order"], 1.2)])
def test_a_small_model_calls_when_it_must_and_its_arguments_validate(
    served: Served, names: list[str], temperature: float
) -> None:
    """Its template knows no tools at all."""
    body = ask(
        "Order a hat for Ann.",
        tools=TOOLS,
        tool_choice="required",
        tool_names=names,
        parallel_tool_calls=False,
        sampling={"temperature": temperature, "seed": 1},
        max_tokens=150,
    )
    said = served.run(body).choices[0]
    assert said.reason == ("stop" if names else "tool_calls")
    assert not said.content
    assert said.calls[0][0] in (names or ["order", "get_time"])
    arguments = json.loads("".join(text for _, text in said.calls))
    if said.calls[0][0] == "order":
        jsonschema.validate(arguments, ORDER)
    else:
        assert arguments == {}


def test_different_requests_together_are_as_alone(served: Served) -> None:
    bodies = [
        ask("What is the capital of France?", stop=["Paris"]),
        ask("Name a colour.", sampling={"temperature": 0.9, "seed": 3}, max_tokens=8),
        ask("Say hello.", sampling={"top_logprobs": 2}, max_tokens=8),
        ask("Is water wet?", output_format=OutputFormat("choice", choices=["yes", "no"]), max_tokens=8),
    ]
    alone = [served.run(body).choices[0] for body in bodies]
    together = [served.result(request).choices[0] for request in [served.start(body) for body in bodies]]
    for one, other in zip(alone, together, strict=True):
        assert (one.content, one.tokens, one.reason) == (other.content, other.tokens, other.reason)
    assert alone[0].stop_sequence == "Paris"
    assert "Paris" not in alone[0].content
    assert alone[3].content in ("yes", "no")
