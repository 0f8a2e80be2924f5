"""Pydantic's complaints as one sentence that names the parameter the way a client wrote it (``messages[0].role``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from inference.errors import InvalidRequest
from inference.protocols.jsonbody import describe


class WireModel(BaseModel):
    """Base of request schemas: types are not coerced; unknown fields are kept in ``model_extra`` to be reported."""

    model_config = ConfigDict(strict=True, extra="allow")


Model = TypeVar("Model", bound=BaseModel)

_MOST_ERRORS = 50
_INSTANCE = re.compile(r" or instance of \w+")


def validate(model: type[Model], body: dict[str, Any]) -> Model:
    """``body`` as ``model``; ``InvalidRequest`` with ``param`` set to the path of the first fault."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False), body) from None


def refuse(param: str, message: str, *, code: str = "invalid_value") -> InvalidRequest:
    """The error for one parameter; the message is prefixed with its path."""
    return InvalidRequest(f"{param} {message}", param=param, code=code)


def unknown_fields(value: BaseModel, prefix: str = "") -> Iterator[str]:
    """Paths of the fields that no schema knows, depth first; list positions are left out (``messages[].foo``)."""
    for name in value.model_extra or ():
        yield prefix + name
    for name, child in value.__dict__.items():
        # Most fields of most messages are texts or unset: they are passed over with one look at their type.
        if type(child) is list:
            for item in child:
                if isinstance(item, BaseModel):
                    yield from unknown_fields(item, f"{prefix}{name}[].")
        elif child is not None and type(child) is not str and isinstance(child, BaseModel):
            yield from unknown_fields(child, f"{prefix}{name}.")


def _refusal(errors: list[ErrorDetails], body: dict[str, Any]) -> InvalidRequest:
    # Each branch of a union complains. The one that the client meant is the one whose types fitted, or fitted deepest.
    found = [(_path(error, body), error) for error in errors[:_MOST_ERRORS]]
    first = found[0][0]
    rivals = [(path, error) for path, error in found if path == first or path.startswith((first + ".", first + "["))]
    param, best = max(rivals, key=lambda rival: (not _is_type_error(rival[1]), len(rival[0])))
    if not _is_type_error(best):
        code = "missing_required_parameter" if best["type"] == "missing" else "invalid_value"
        return refuse(param, _sentence([best]), code=code)
    return refuse(param, _sentence([error for path, error in rivals if path == param]), code="invalid_type")


def _is_type_error(error: ErrorDetails) -> bool:
    return error["type"].endswith("_type")


def _path(error: ErrorDetails, body: dict[str, Any]) -> str:
    """The location without the names of union branches, which are no part of what the client sent."""
    path = ""
    here: Any = body
    for position, step in enumerate(error["loc"]):
        last = position == len(error["loc"]) - 1
        if isinstance(step, int) and isinstance(here, list):
            path, here = f"{path}[{step}]", here[step] if step < len(here) else None
        elif isinstance(here, dict) and (step in here or (last and error["type"] == "missing")):
            path, here = f"{path}.{step}" if path else str(step), here.get(step)
    return path


def _sentence(errors: list[ErrorDetails]) -> str:
    if errors[0]["type"] == "missing":
        return "is required"
    if errors[0]["type"] == "extra_forbidden":
        return "is not a parameter of this route"
    wishes = dict.fromkeys(_wish(error) for error in errors)
    return " or ".join(wishes) + _instead(errors[0])


def _instead(error: ErrorDetails) -> str:
    """What came in place of the wish, where that says more than the wish does."""
    given = error["input"]
    if error["type"] in ("literal_error", "enum") and isinstance(given, str):
        return f", not {given[:40]!r}"
    return "" if isinstance(given, str | list | dict) and not _is_type_error(error) else f", not {describe(given)}"


def _wish(error: ErrorDetails) -> str:
    text = _INSTANCE.sub("", error["msg"])
    for pattern, words in (
        ("Input should be ", "must be "),
        ("List should have ", "must have "),
        ("String should have ", "must have "),
        ("String should match ", "must match "),
        ("Value error, ", ""),
        (" after validation", ""),
    ):
        text = text.replace(pattern, words)
    text = text.replace("a valid list", "an array").replace("a valid dictionary", "an object").replace("a valid ", "a ")
    return text.replace("a integer", "an integer").split(", not ")[0]
