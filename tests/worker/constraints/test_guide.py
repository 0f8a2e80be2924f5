"""Grammars over the tiny model's vocabulary, walked by a blind chooser that takes any allowed token."""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from inference.errors import InvalidRequest
from inference.ipc import OutputFormat
from inference.worker.constraints.guide import Compiler, Guide
from inference.worker.core.types import Bitmask, ConstraintError
from tests.material import EOS_TOKEN_ID, nano_model

PADDED = 576
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(nano_model())


@cache
def compiler() -> Compiler:
    return Compiler(tokenizer(), PADDED, {EOS_TOKEN_ID, 0, 100_000})


@pytest.mark.parametrize(
    "schema",
    [{"$ref": "#"}, {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}],
)
def test_a_schema_that_is_nothing_but_itself_is_refused_in_words(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="refers to itself without end"):
        compiler().compile(OutputFormat("json_schema", schema=schema))


def allowed(guide: Guide, width: int = PADDED) -> list[int]:
    out: Bitmask = np.zeros((width + 31) // 32, np.uint32)
    assert guide.mask(out)
    bits = np.unpackbits(out.view(np.uint8), bitorder="little")
    return [int(token) for token in np.flatnonzero(bits)]


def walk(guide: Guide, seed: int, limit: int = 400) -> tuple[str, bool]:
    """Take random allowed tokens; the text, and whether it came to an end."""
    chooser = random.Random(seed)
    taken: list[int] = []
    while not guide.finished and len(taken) < limit:
        options = allowed(guide)
        token = EOS_TOKEN_ID if EOS_TOKEN_ID in options else chooser.choice(options)
        if token == EOS_TOKEN_ID:
            return tokenizer().decode(taken), True
        guide.advance(token)
        taken.append(token)
    return tokenizer().decode(taken), guide.finished


@pytest.mark.parametrize("seed", range(12))
def test_any_walk_under_a_schema_gives_a_valid_document(seed: int) -> None:
    text, ended = walk(compiler().compile(OutputFormat("json_schema", schema=PERSON))(), seed)
    assert ended
    person = json.loads(text)
    assert set(person) == {"name", "age"}
    assert len(person["name"]) <= 8
    assert person["age"] in range(100)


@pytest.mark.parametrize("seed", range(4))
def test_json_object_gives_an_object(seed: int) -> None:
    guide = compiler().compile(OutputFormat("json_object"))()
    first = allowed(guide)
    assert all(tokenizer().decode([token]).startswith("{") for token in first)
    text, ended = walk(guide, seed)
    assert isinstance(json.loads(text), dict) if ended else text.startswith("{")


def test_eos_is_allowed_only_when_the_text_is_complete() -> None:
    guide = compiler().compile(OutputFormat("regex", text="a{2,3}"))()
    seen = []
    for token in tokenizer().encode("a") * 3:
        seen.append(EOS_TOKEN_ID in allowed(guide))
        guide.advance(token)
    assert seen == [False, False, True]
    assert guide.finished


def test_every_eos_of_the_model_counts() -> None:
    guide = compiler().compile(OutputFormat("regex", text="a*"))()
    assert {0, EOS_TOKEN_ID} <= set(allowed(guide))


def test_ids_that_only_pad_the_vocabulary_are_never_allowed() -> None:
    assert max(allowed(compiler().compile(OutputFormat("regex", text=".*"))())) < len(tokenizer())


def test_a_mask_may_be_narrower_or_wider_than_the_vocabulary() -> None:
    make = compiler().compile(OutputFormat("regex", text="[a-z]*"))
    whole = allowed(make())
    assert allowed(make(), 4096) == whole
    assert allowed(make(), 64) == [token for token in whole if token < 64]


def test_choice_takes_one_of_the_texts_as_it_is() -> None:
    choices = ['say "yes"', "n\u00f6\n", "maybe | not"]
    found = {walk(compiler().compile(OutputFormat("choice", choices=choices))(), seed)[0] for seed in range(30)}
    assert found == set(choices)


def test_a_grammar_can_be_given() -> None:
    text, ended = walk(compiler().compile(OutputFormat("grammar", text='start: "x" ("," "x")* ";"'))(), 3)
    assert ended
    assert re.fullmatch(r"x(,x)*;", text)


def test_guides_of_one_grammar_do_not_share_their_state() -> None:
    make = compiler().compile(OutputFormat("regex", text="ab"))
    one, two = make(), make()
    one.advance(tokenizer().encode("a")[0])
    assert allowed(one) != allowed(two)
    assert allowed(two) == allowed(make())


def test_whitespace_cannot_go_on_for_ever() -> None:
    guide = compiler().compile(OutputFormat("json_object"))()
    newline = tokenizer().encode("\n")[0]
    guide.advance(tokenizer().encode("{")[0])
    for _ in range(64):
        guide.advance(newline)
    assert newline not in allowed(guide)


@pytest.mark.parametrize(
    ("output_format", "names"),
    [
        (OutputFormat("json_schema", schema={"type": "banana"}), "banana"),
        (OutputFormat("json_schema", schema={"type": "array", "uniqueItems": True}), "uniqueItems"),
        (OutputFormat("json_schema", schema={"$ref": "#/$defs/nope"}), "nope"),
        (OutputFormat("json_schema", schema={"$ref": "http://127.0.0.1:9/x.json"}), "x.json"),
        (OutputFormat("json_schema", schema={"type": "string", "pattern": "(["}), "unclosed"),
        (OutputFormat("json_schema", schema={"type": "integer", "minimum": 5, "maximum": 2}), "minimum"),
        (OutputFormat("json_schema", schema={"$ref": "#"}), "cannot be enforced"),
        (OutputFormat("regex", text="(?=a)b"), "look-around"),
        (OutputFormat("grammar", text="start: nope"), "nope"),
        (OutputFormat("choice", choices=[]), "choices"),
        (OutputFormat("choice", choices=["a", ""]), "empty"),
        (OutputFormat("regex", text="a" * 1_000_001), "longer"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_reason(output_format: OutputFormat, names: str) -> None:
    with pytest.raises(InvalidRequest, match=names) as refused:
        compiler().compile(output_format)
    assert refused.value.param == "response_format"
    assert "<state>" not in refused.value.message


def test_too_deep_a_schema_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidRequest, match="recursion"):
        compiler().compile(OutputFormat("json_schema", schema=schema))


@pytest.mark.parametrize("regex", ["(a|b)*a(a|b){25}", "((a{0,100}){0,100}){0,100}", "([a-z ]*(a|e)[a-z ]{200}){30}"])
def test_an_exploding_regex_ends_within_its_budget(regex: str) -> None:
    """Either it works or it raises; llguidance counts the work of each mask, so neither takes long."""
    with suppress(InvalidRequest, ConstraintError):
        walk(compiler().compile(OutputFormat("regex", text=regex))(), 1, limit=60)


def test_a_token_outside_the_grammar_is_an_error_of_its_guide_alone() -> None:
    make = compiler().compile(OutputFormat("regex", text="ab"))
    broken, other = make(), make()
    with pytest.raises(ConstraintError):
        broken.advance(tokenizer().encode("z")[0])
    assert not broken.finished
    assert walk(other, 1) == ("ab", True)
