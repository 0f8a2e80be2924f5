"""The vocabulary of cases, and how all of them are found.

Each protocol has one module ``<protocol>_cases.py`` beside this one with ``TITLE`` (a heading of the document),
``ENDPOINTS`` and ``CASES``. Adding a module or a case is all there is to do: the tests and the document follow.
"""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from tests.conformance.strict import OPENAI, Allowance

Outcome = Literal["honoured", "accepted", "refused"]
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class Endpoint:
    """``route`` is method and path. ``base`` is the smallest body that is answered with 200, ``headers`` go with it.

    ``fields`` are the names that must have a case each: those of ``schema`` and ``more``. ``answer`` is the published
    type that whole answers have, ``event`` that of what is streamed, but for what ``allowance`` names; None: no such.
    """

    route: str
    base: dict[str, Any]
    schema: type[BaseModel]
    more: Collection[str] = ()
    headers: dict[str, str] = field(default_factory=dict)
    answer: Any = None
    event: Any = None
    allowance: Allowance = OPENAI

    @property
    def method(self) -> str:
        return self.route.split()[0]

    @property
    def path(self) -> str:
        return self.route.split()[1]

    @property
    def fields(self) -> set[str]:
        return {info.alias or name for name, info in self.schema.model_fields.items()} | set(self.more)


@dataclass(frozen=True)
class Case:
    """``param`` (a path such as ``stream_options.include_usage`` or ``messages[0].content``) with ``value``.

    ``honoured``: what the engine is asked for, or the answer, differs from the answer to the same body without it.
    ``accepted``: neither differs, and it is not reported as unknown. ``refused``: status ``status`` and error code
    ``code``, which names ``param``, or ``named`` where that is another.

    ``beside`` is what the body has in both requests. ``note`` is for the reader of the document.
    """

    endpoint: str
    param: str
    value: Any
    outcome: Outcome
    code: str = ""
    note: str = ""
    beside: dict[str, Any] = field(default_factory=dict)
    status: int = 400
    named: str = ""

    def __str__(self) -> str:
        return f"{self.endpoint} {self.param}={self.value!r}"[:100]


def honoured(endpoint: str, values: Mapping[str, Any], note: str = "", **beside: Any) -> Iterator[Case]:
    for param, value in values.items():
        yield Case(endpoint, param, value, "honoured", note=note, beside=beside)


def accepted(endpoint: str, values: Mapping[str, Any], note: str = "", **beside: Any) -> Iterator[Case]:
    for param, value in values.items():
        yield Case(endpoint, param, value, "accepted", note=note, beside=beside)


def refused(
    endpoint: str, values: Mapping[str, Any], code: str = "invalid_value", note: str = "", **beside: Any
) -> Iterator[Case]:
    for param, value in values.items():
        yield Case(endpoint, param, value, "refused", code, note, beside)


def without_effect(endpoint: str, names: Collection[str]) -> Iterator[Case]:
    for name in sorted(names):
        yield Case(endpoint, name, {"any": "value"}, "accepted")


def by_name(endpoint: str, names: Mapping[str, tuple[Any, ...]]) -> Iterator[Case]:
    """What would change the answer: refused, but for the values that mean off."""
    for name, neutral in sorted(names.items()):
        for value in neutral:
            if value is not None:
                yield Case(endpoint, name, value, "accepted", note="means off")
        yield Case(endpoint, name, {"any": "other value"}, "refused", "unsupported_parameter")


@dataclass(frozen=True)
class ProtocolCases:
    title: str
    endpoints: list[Endpoint]
    cases: list[Case]


def protocols() -> list[ProtocolCases]:
    """Every protocol that has cases, by the name of its module."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("*_cases.py"))
    modules = [importlib.import_module(f"tests.conformance.{name}") for name in names]
    return [ProtocolCases(module.TITLE, module.ENDPOINTS, module.CASES) for module in modules]


def with_param(body: dict[str, Any], param: str, value: Any) -> dict[str, Any]:
    """A copy of ``body`` with the value at that path; objects on the way are made."""
    changed = deepcopy(body)
    steps = [name or int(position) for name, position in _STEP.findall(param)]
    here: Any = changed
    for step, following in itertools.pairwise(steps):
        if isinstance(step, str) and here.get(step) is None:
            here[step] = [] if isinstance(following, int) else {}
        here = here[step]
    here[steps[-1]] = value
    return changed


def top(param: str) -> str:
    """The name in the body of which ``param`` is a part."""
    return re.split(r"[.\[]", param, maxsplit=1)[0]
