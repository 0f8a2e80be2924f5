"""LangChain's clients of both protocols against the real server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.running import Said, python_said
from tests.live.process import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.slow]
BOTH = pytest.mark.parametrize("protocol", ["openai", "anthropic"])


@pytest.fixture(scope="module")
def langchain(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Said:
    return python_said(server, "with_langchain", tmp_path_factory.mktemp("langchain"))


def test_nobody_else_is_asked(langchain: Said) -> None:
    assert langchain.tried == []


@BOTH
def test_an_answer_is_the_servers(langchain: Said, brief: dict[str, Any], protocol: str) -> None:
    told = langchain[f"{protocol}_chat"]
    usage = told["usage"]
    assert (told["text"], usage["input_tokens"], usage["output_tokens"]) == (
        brief["text"],
        brief["read"],
        brief["made"],
    )
    assert told["meta"]["model_name"] == "org/tiny"
    assert told["meta"].get("finish_reason", told["meta"].get("stop_reason")) in ("length", "max_tokens")


@BOTH
def test_streamed_it_is_the_same(langchain: Said, protocol: str) -> None:
    streamed, whole = langchain[f"{protocol}_stream"], langchain[f"{protocol}_chat"]
    assert streamed["text"] == whole["text"]
    assert streamed["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    assert streamed["pieces"] > 1


def test_a_batch(langchain: Said, brief: dict[str, Any]) -> None:
    assert langchain["openai_batch"] == [brief["text"]] * 4


@BOTH
def test_a_forced_call_and_its_result(langchain: Said, protocol: str) -> None:
    whole, answer, streamed = langchain[f"{protocol}_call"]
    [call] = whole["calls"]
    assert call["name"] == "weather"
    assert call["args"]["city"] in ("Oslo", "Rome")
    assert streamed["calls"] == whole["calls"]
    assert answer["usage"]["input_tokens"] > whole["usage"]["input_tokens"]


@BOTH
def test_a_call_that_the_model_writes_itself(langchain: Said, protocol: str) -> None:
    for told in langchain[f"{protocol}_own_call"]:
        assert told["text"] == "Let me look."
        assert told["calls"] == [{"name": "weather", "args": {"city": "Oslo"}}]


def test_any_call(langchain: Said) -> None:
    [call] = langchain["openai_any_call"]["calls"]
    assert call["args"]["city"] in ("Oslo", "Rome")


@BOTH
def test_structured_output(langchain: Said, protocol: str) -> None:
    for city in langchain[f"{protocol}_structured"]:
        assert city["name"] in ("Oslo", "Rome")
        assert isinstance(city["large"], bool)


def test_log_probabilities(langchain: Said) -> None:
    assert langchain["openai_logprobs"] == [2, 2, 2]


def test_responses(langchain: Said, brief: dict[str, Any]) -> None:
    told = langchain["openai_responses"]
    assert told["whole"]["text"] == told["stream"]["text"] == brief["text"]
    whole, _, streamed = told["call"]
    assert [call["name"] for call in whole["calls"]] == ["weather"]
    assert streamed["calls"] == whole["calls"]
    assert told["city"]["name"] in ("Oslo", "Rome")
    assert [block["type"] for block in told["thought"]] == ["reasoning", "text"]


def test_thinking(langchain: Said) -> None:
    first, second, streamed = langchain["anthropic_thought"]
    for told in (first, second, streamed):
        assert [block["type"] for block in told["content"]] == ["thinking", "text"]
        assert told["content"][0]["thinking"] == "Rain maybe."
        assert told["text"] == "It rains."
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


def test_a_count_is_what_is_read(langchain: Said, brief: dict[str, Any]) -> None:
    counted, read = langchain["anthropic_count"]
    assert counted == read == brief["read"]


def test_completions(langchain: Said, once: str) -> None:
    assert langchain["openai_completion"] == [once, once]


def test_embeddings(langchain: Said, vectors: list[list[float]]) -> None:
    query, *documents = langchain["openai_embeddings"]
    for made, wanted in zip([query, *documents], [vectors[0], *vectors], strict=True):
        assert made == pytest.approx(wanted, abs=1e-6)


def test_the_documented_example(langchain: Said) -> None:
    assert langchain["example"] == ["It rains.", "It rains.", "64"]


@pytest.mark.parametrize(
    ("protocol", "case", "status", "kind"),
    [
        ("openai", "long", 400, "ContextOverflowError"),
        ("openai", "long stream", 400, "ContextOverflowError"),
        ("openai", "long response", 400, "ContextOverflowError"),
        ("openai", "unknown", 404, "ModelNotFoundError"),
        ("openai", "wrong", 400, "ModelInvalidRequestError"),
        ("openai", "key", 401, "ModelAuthenticationError"),
        ("anthropic", "long", 400, "ContextOverflowError"),
        ("anthropic", "unknown", 404, "ModelNotFoundError"),
        ("anthropic", "key", 401, "ModelAuthenticationError"),
    ],
)
def test_errors_are_of_langchains_kinds(langchain: Said, protocol: str, case: str, status: int, kind: str) -> None:
    raised = langchain[f"{protocol}_errors"][case]
    assert raised["status"] == status
    assert kind in raised["classes"], raised
