"""``docs/conformance.md`` as the cases make it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.cases import Case, ProtocolCases, protocols

FILE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
_LONGEST_VALUE = 70

_HEAD = """# Conformance

What every parameter does, endpoint by endpoint. This page is made by `python -m tests.conformance --write` from cases
that the tests send to the server; a test fails when the two differ.

- **honoured**: the model is asked for something else, or the answer differs.
- **accepted**: it changes nothing, as it cannot or as the value means "off"; the request is answered as without it.
- **refused**: the error and its code; the message names the parameter.

A parameter that is not listed is accepted, ignored, and named in the header `x-lmx-ignored`; with
`server.strict: true` it is refused with `unknown_parameter`."""


def document() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    for protocol in protocols():
        yield f"\n## {protocol.title}"
        for endpoint in protocol.endpoints:
            yield f"\n### `{endpoint.route}`\n"
            yield "| parameter | value | outcome | |"
            yield "|---|---|---|---|"
            yield from (_row(case) for case in _ordered(protocol, endpoint.route))


def _ordered(protocol: ProtocolCases, route: str) -> list[Case]:
    return sorted((case for case in protocol.cases if case.endpoint == route), key=lambda case: case.param)


def _row(case: Case) -> str:
    outcome = f"refused: {case.status} `{case.code}`" if case.outcome == "refused" else case.outcome
    beside = f"with {_shown(case.beside)}" if case.beside and not case.note else case.note
    return f"| `{case.param}` | {_shown(case.value)} | {outcome} | {beside} |"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
    return "`" + text.replace("|", "\\|") + "`"
