"""``docs/responses.md`` tells of every parameter and route."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.api import responses  # noqa: F401 - registers its routes
from inference.api.v1 import api
from inference.protocols.responses.requests import NO_EFFECT, ResponsesRequest

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "responses.md").read_text()


@pytest.mark.parametrize("name", sorted({*ResponsesRequest.model_fields, *NO_EFFECT}))
def test_every_parameter_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCS


@pytest.mark.parametrize("path", [path for path in api.routes if path.startswith("/responses")])
def test_every_route_is_documented(path: str) -> None:
    for method in api.routes[path]:
        assert f"`{method} /v1{path}`" in DOCS
