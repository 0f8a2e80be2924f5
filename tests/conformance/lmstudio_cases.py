"""LM Studio's own routes; ``/api/v0``'s completions and embeddings take what OpenAI's do, by the same code."""

from __future__ import annotations

from collections.abc import Iterator

from inference.protocols.lmstudio.requests import LOAD_NO_EFFECT, LOAD_REFUSED, InstanceLoad
from tests.conformance.cases import Case, Endpoint, accepted, by_name, refused, without_effect

TITLE = "LM Studio"

LOAD = "POST /api/v1/models/load"

ENDPOINTS = [Endpoint(LOAD, {"model": "acme/tiny"}, InstanceLoad, more=[*LOAD_REFUSED, *LOAD_NO_EFFECT])]


def _load() -> Iterator[Case]:
    yield from by_name(LOAD, LOAD_REFUSED)
    yield from without_effect(LOAD, LOAD_NO_EFFECT)
    yield Case(LOAD, "echo_load_config", True, "honoured")
    yield Case(LOAD, "context_length", 1024, "honoured")
    yield Case(LOAD, "ttl", 60, "honoured")
    yield from accepted(LOAD, {"model": "small"}, "an alias")
    yield from refused(LOAD, {"context_length": 0, "ttl": 0, "model": ""})
    yield from refused(LOAD, {"context_length": "9", "ttl": "9", "echo_load_config": 1, "model": 5}, "invalid_type")


CASES = [*_load()]
