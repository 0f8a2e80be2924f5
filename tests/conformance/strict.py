"""A JSON value against the published pydantic types of an SDK, without any of pydantic's leniency.

Every field must be known (but for a named list of extra ones), every required field present, every value of exactly the
JSON type that the annotation tells: no number from a string, no integer from a boolean, no null where none is allowed
(but for a named list). An integer is a number too.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from openai.types import Embedding, Model
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.chat.chat_completion_message import ChatCompletionMessage
from openai.types.completion_choice import CompletionChoice, Logprobs
from pydantic import BaseModel

Names = Mapping[type, frozenset[str]]

_SCALARS: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}
_ANY = (Any, object)
_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Allowance:
    """Where answers may differ from the published types, by the model that has the field.

    ``extra``: fields that the types do not have. ``null``: fields that may be null, or hold nulls in a list, although
    the type says otherwise. ``instead``: the type that a field may have instead.
    """

    extra: Names = field(default_factory=dict)
    null: Names = field(default_factory=dict)
    instead: Mapping[type, Mapping[str, Any]] = field(default_factory=dict)


_REASONING = frozenset({"reasoning_content", "reasoning"})
OPENAI = Allowance(
    extra={
        ChatCompletionMessage: _REASONING,
        ChoiceDelta: _REASONING,
        Model: frozenset(
            {
                "root",
                "type",
                "state",
                "context_length",
                "max_model_len",
                "loaded_context_length",
                "size_bytes",
                "architecture",
                "quantization",
                "capabilities",
            }
        ),
    },
    null={
        # OpenAI streams text completions with null until the last chunk, and has no logprob for a prompt's first token.
        CompletionChoice: frozenset({"finish_reason"}),
        Logprobs: frozenset({"token_logprobs", "top_logprobs"}),
    },
    # As base64, which the SDK decodes by itself.
    instead={Embedding: {"embedding": str}},
)


def check(value: Any, expected: Any, allowance: Allowance = OPENAI) -> None:
    """Raise ``AssertionError`` that lists every place where ``value`` is not strictly an ``expected``."""
    faults = list(_faults(value, expected, allowance, ""))
    assert not faults, "\n".join(faults)


def conforms(value: Any, expected: Any, allowance: Allowance = OPENAI) -> bool:
    return next(_faults(value, expected, allowance, ""), None) is None


def _faults(value: Any, expected: Any, allowance: Allowance, path: str) -> typing.Iterator[str]:
    origin = typing.get_origin(expected)
    if expected in _ANY:
        return
    if origin is typing.Annotated:
        yield from _faults(value, typing.get_args(expected)[0], allowance, path)
    elif origin in (typing.Union, types.UnionType):
        yield from _of_union(value, typing.get_args(expected), allowance, path)
    elif origin is typing.Literal:
        if not any(value == one and type(value) is type(one) for one in typing.get_args(expected)):
            yield f"{path}: {value!r} is none of {typing.get_args(expected)}"
    elif origin is list:
        yield from _of_list(value, typing.get_args(expected)[0], allowance, path)
    elif origin is dict:
        yield from _of_dict(value, typing.get_args(expected)[1], allowance, path)
    elif isinstance(expected, type) and issubclass(expected, BaseModel):
        yield from _of_model(value, expected, allowance, path)
    else:
        yield from _of_scalar(value, expected, path)


def _of_scalar(value: Any, expected: Any, path: str) -> typing.Iterator[str]:
    if expected in (None, type(None)):
        fits = value is None
    elif expected is dict:
        fits = isinstance(value, dict)
    elif expected is datetime:
        fits = isinstance(value, str) and _ISO_TIME.fullmatch(value) is not None
    else:
        fits = type(value) in _SCALARS[expected]
    if not fits:
        yield f"{path}: {value!r} is no {expected}"


def _of_list(value: Any, item: Any, allowance: Allowance, path: str) -> typing.Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: {value!r} is no list"
        return
    for position, one in enumerate(value):
        yield from _faults(one, item, allowance, f"{path}[{position}]")


def _of_dict(value: Any, item: Any, allowance: Allowance, path: str) -> typing.Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is no object"
        return
    for name, one in value.items():
        yield from _faults(one, item, allowance, f"{path}.{name}")


def _of_union(value: Any, branches: tuple[Any, ...], allowance: Allowance, path: str) -> typing.Iterator[str]:
    tried = [list(_faults(value, branch, allowance, path)) for branch in branches]
    if all(tried):
        # Of the branches that do not fit, the one that was meant is one of which something fitted.
        yield from min(tried, key=lambda faults: (faults[0].startswith(f"{path}:"), len(faults)))


def _of_model(value: Any, model: type[BaseModel], allowance: Allowance, path: str) -> typing.Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is no {model.__name__}"
        return
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    nullable = allowance.null.get(model, frozenset())
    instead = allowance.instead.get(model, {})
    for name in value.keys() - fields.keys() - allowance.extra.get(model, frozenset()):
        yield f"{path}.{name}: {model.__name__} has no such field"
    for name, info in fields.items():
        if name in value:
            one = _without_nulls(value[name]) if name in nullable else value[name]
            if (one is not None or name not in nullable) and not (name in instead and type(one) is instead[name]):
                yield from _faults(one, info.annotation, allowance, f"{path}.{name}")
        elif info.is_required():
            yield f"{path}.{name}: required by {model.__name__}, and missing"


def _without_nulls(value: Any) -> Any:
    return [one for one in value if one is not None] if isinstance(value, list) else value
