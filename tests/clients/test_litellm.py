"""LiteLLM by its providers ``openai``, ``lm_studio`` and ``anthropic`` against the real server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.running import Said, python_said
from tests.live.process import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.slow]
PROVIDERS = ["openai", "lm_studio", "anthropic"]
EACH = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture(scope="module")
def litellm(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Said:
    return python_said(server, "with_litellm", tmp_path_factory.mktemp("litellm"))


def test_nobody_else_is_asked(litellm: Said) -> None:
    assert litellm.tried == []


@EACH
def test_an_answer_is_the_servers(litellm: Said, brief: dict[str, Any], provider: str) -> None:
    for case in ("chat", "chat_streamed"):
        told = litellm[case][provider]
        assert told["text"] == brief["text"]
        assert told["usage"] == [brief["read"], brief["made"]]
        assert told["reason"] == "length"
    assert litellm["chat_streamed"][provider]["pieces"] > 1


def test_all_at_once(litellm: Said, brief: dict[str, Any]) -> None:
    assert [told["text"] for told in litellm["chat_async"]] == [brief["text"]] * len(PROVIDERS)


@EACH
def test_a_forced_call_and_its_result(litellm: Said, provider: str) -> None:
    whole, streamed, answer = litellm["call"][provider]
    [[name, arguments]] = whole["calls"]
    assert name == "weather"
    assert arguments["city"] in ("Oslo", "Rome")
    assert streamed["calls"] == whole["calls"]
    assert answer["text"]
    assert answer["usage"][0] > whole["usage"][0]


@EACH
def test_a_call_that_the_model_writes_itself(litellm: Said, provider: str) -> None:
    for told in litellm["own_call"][provider]:
        assert told["text"] == "Let me look."
        assert told["calls"] == [["weather", {"city": "Oslo"}]]
        assert told["reason"] == "tool_calls"


@EACH
def test_thinking(litellm: Said, provider: str) -> None:
    for told in litellm["thought"][provider]:
        assert (told["thought"], told["text"], told["reason"]) == ("Rain maybe.", "It rains.", "stop")


@EACH
def test_structured_output(litellm: Said, provider: str) -> None:
    city = litellm["structured"][provider]
    assert city["name"] in ("Oslo", "Rome")
    assert isinstance(city["large"], bool)


@pytest.mark.parametrize("provider", ["openai", "text-completion-openai"])
def test_completions(litellm: Said, once: str, provider: str) -> None:
    assert litellm["text_completion"][provider] == [once, once]


@pytest.mark.parametrize("provider", ["openai", "lm_studio"])
def test_embeddings(litellm: Said, vectors: list[list[float]], provider: str) -> None:
    told = litellm["embedding"][provider]
    assert told["read"] > 0
    for made, wanted in zip(told["vectors"], vectors, strict=True):
        assert made == pytest.approx(wanted, abs=1e-6)


def test_responses(litellm: Said, plain: dict[str, Any]) -> None:
    told = litellm["responses"]
    assert told["whole"] == told["stream"] == plain["text"]
    assert told["ends"] == "incomplete"
    first, second = told["read"]
    assert first == plain["read"]
    assert second > first + plain["made"]


def test_messages(litellm: Said, brief: dict[str, Any]) -> None:
    assert litellm["messages"] == brief["text"]


def test_models(litellm: Said) -> None:
    assert litellm["models"] == ["caller", "org/tiny", "org/vectors", "thinker"]


def test_a_count_is_what_is_read(litellm: Said, plain: dict[str, Any]) -> None:
    assert litellm["count"] == plain["read"]


def test_the_address_from_the_environment(litellm: Said) -> None:
    told = litellm["environment"]
    assert told["lm_studio"] == "It rains."
    by_openai, by_anthropic = told["listed"]
    assert by_openai == litellm["models"]
    assert sorted(by_anthropic) == ["caller", "org/tiny", "thinker"]


def test_the_documented_example(litellm: Said) -> None:
    assert [line for line in litellm["example"] if line == "It rains."] == ["It rains."] * len(PROVIDERS)


@EACH
@pytest.mark.parametrize(
    ("case", "status", "kind"),
    [
        ("long", 400, "ContextWindowExceededError"),
        ("unknown", 404, "NotFoundError"),
        ("wrong", 400, "BadRequestError"),
        ("key", 401, "AuthenticationError"),
    ],
)
def test_errors_are_of_litellms_kinds(litellm: Said, provider: str, case: str, status: int, kind: str) -> None:
    raised = litellm["errors"][provider][case]
    assert raised["status"] == status
    assert raised["classes"][0] == kind, raised
