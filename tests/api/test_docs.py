"""``docs/api.md`` tells of every route and every parameter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import inference.api.urls  # noqa: F401 - registers every route
from inference.api import admin, lmstudio, v1
from inference.api.hub import FitBody
from inference.api.jobs import DownloadBody
from inference.protocols.openai import embeddings
from inference.protocols.openai.embeddings import EmbeddingRequest
from inference.protocols.openai.params import NO_EFFECT, REFUSED
from inference.protocols.openai.requests import ChatRequest, CompletionRequest
from inference.protocols.openai.tokens import DetokenizeRequest, TokenizeRequest

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
ROUTES = [
    (method, api.prefix.rstrip("/") + path.replace("{path:", "{"))
    for api in (v1.api, admin.api, lmstudio.api)
    for path, methods in api.routes.items()
    for method in methods
]


def section(heading: str) -> str:
    return DOCS.split(f"## `{heading}`", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_is_documented(method: str, path: str) -> None:
    assert f"`{method} {path}`" in DOCS


def test_nothing_else_is_documented() -> None:
    told = re.findall(r"^## `([A-Z]+) (/\S+)`$", DOCS, re.MULTILINE)
    assert set(told) <= set(ROUTES)


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("POST /v1/chat/completions", ChatRequest),
        ("POST /v1/completions", CompletionRequest),
        ("POST /v1/embeddings", EmbeddingRequest),
        ("POST /v1/tokenize", TokenizeRequest),
        ("POST /v1/detokenize", DetokenizeRequest),
        ("POST /admin/model/load", admin.LoadBody),
        ("DELETE /admin/model/unload", admin.UnloadBody),
        ("POST /admin/model/download", DownloadBody),
        ("POST /admin/model/fit", FitBody),
    ],
)
def test_every_parameter_is_documented(heading: str, model: type[BaseModel]) -> None:
    text = section(heading) + ("`repeat_penalty`" if heading.endswith("/completions") else "")
    for name in model.model_fields:
        assert f"`{name}`" in text, name


def test_every_rule_is_documented() -> None:
    for name in NO_EFFECT | set(REFUSED):
        assert f"`{name}`" in section("POST /v1/chat/completions"), name
    for name in embeddings.REFUSED:
        assert f"`{name}`" in section("POST /v1/embeddings"), name
