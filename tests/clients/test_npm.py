"""The npm clients of OpenAI and Anthropic against the real server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.clients.running import KEY, Said, node_printed, node_said
from tests.live.process import ROOT, LiveServer

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture(scope="module")
def npm(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Said:
    return node_said(server, "with_npm.cjs", tmp_path_factory.mktemp("npm"))


def test_nobody_else_is_asked(npm: Said) -> None:
    assert npm.tried == []


def test_a_chat_whole_and_streamed(npm: Said, plain: dict[str, Any]) -> None:
    usage = [plain["read"], plain["made"]]
    assert npm["openaiChat"] == {"text": plain["text"], "calls": [], "reason": "length", "usage": usage}
    assert npm["openaiStream"] == {"text": plain["text"], "reasons": ["length"], "usage": usage}


def test_a_required_call_and_its_result(npm: Said) -> None:
    first, second = npm["openaiCall"]
    [[name, arguments]] = first["calls"]
    assert name == "weather"
    assert arguments["city"] in ("Oslo", "Rome")
    assert first["reason"] == "tool_calls"
    assert second["usage"][0] > first["usage"][0]


def test_a_call_that_the_model_writes_itself(npm: Said) -> None:
    told = npm["openaiOwnCall"]
    assert (told["text"], told["calls"], told["reason"]) == (
        "Let me look.",
        [["weather", {"city": "Oslo"}]],
        "tool_calls",
    )


def test_the_tool_runner(npm: Said) -> None:
    told = npm["openaiRunTools"]
    assert told == {"asked": ["Oslo", "Oslo"], "roles": ["user", "assistant", "tool", "assistant", "tool"]}


def test_structured_output(npm: Said) -> None:
    assert npm["openaiStructured"]["city"] in ("Oslo", "Rome")


def test_completions(npm: Said, once: str) -> None:
    assert npm["openaiCompletion"] == [once, once]


def test_responses(npm: Said, plain: dict[str, Any]) -> None:
    told = npm["openaiResponses"]
    assert told["whole"] == told["stream"] == plain["text"]
    assert told["ends"] == "response.incomplete"
    first, second = told["read"]
    assert first == plain["read"]
    assert second > first + plain["made"]
    assert (told["thinker"], told["says"]) == (["reasoning", "message"], "It rains.")


def test_embeddings_are_the_same_by_both_encodings(npm: Said, vectors: list[list[float]]) -> None:
    for made in npm["openaiEmbeddings"]:
        for one, wanted in zip(made, vectors, strict=True):
            assert one == pytest.approx(wanted, abs=1e-6)


def test_models(npm: Said) -> None:
    assert npm["openaiModels"] == {"ids": ["caller", "org/tiny", "org/vectors", "thinker"], "one": "org/tiny"}
    assert sorted(npm["anthropicModels"]) == ["caller", "org/tiny", "thinker"]


def test_a_stream_can_be_left(npm: Said) -> None:
    assert npm["openaiLeaves"] == {"pieces": 3, "aborted": True}


def test_a_message(npm: Said, plain: dict[str, Any]) -> None:
    told = npm["anthropicMessage"]
    assert (told["text"], told["reason"]) == (plain["text"], "max_tokens")
    assert told["read"] == told["counted"]["input_tokens"] == plain["read"]


def test_a_streamed_message_that_thinks(npm: Said) -> None:
    assert npm["anthropicStream"] == {"text": "It rains.", "blocks": ["thinking", "text"], "reason": "end_turn"}


def test_a_forced_call_of_a_message(npm: Said) -> None:
    told = npm["anthropicCall"]
    assert told["input"]["city"] in ("Oslo", "Rome")
    assert (told["reason"], told["then"]) == ("tool_use", ["text"])


def test_the_address_from_the_environment(npm: Said) -> None:
    by_openai, by_anthropic = npm["environment"]
    assert by_openai == npm["openaiModels"]["ids"]
    assert by_anthropic == npm["anthropicModels"]


def test_the_documented_example(server: LiveServer, tmp_path: Path) -> None:
    document = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```js\n(.*?)```", document, re.DOTALL)
    for shown, meant in (("http://127.0.0.1:1234", server.url), ("my-app", KEY), ("org/name", "thinker")):
        code = code.replace(shown, meant)
    printed = node_printed(code, server, tmp_path)
    assert printed.startswith("It rains.[")
    assert "thinking: 'Rain maybe.'" in printed


@pytest.mark.parametrize(
    ("case", "status", "kind", "code"),
    [
        ("long", 400, "BadRequestError", "context_length_exceeded"),
        ("long stream", 400, "BadRequestError", "context_length_exceeded"),
        ("unknown", 404, "NotFoundError", "model_not_found"),
        ("wrong", 400, "BadRequestError", "invalid_value"),
        ("image", 400, "BadRequestError", "unsupported_content"),
        ("path", 404, "NotFoundError", "unknown_url"),
        ("key", 401, "AuthenticationError", "invalid_api_key"),
    ],
)
def test_errors_of_openais_classes(npm: Said, case: str, status: int, kind: str, code: str) -> None:
    raised = npm["openaiErrors"][case]
    assert (raised["status"], raised["class"], raised["code"]) == (status, kind, code)


@pytest.mark.parametrize(
    ("case", "status", "kind", "says"),
    [
        ("long", 400, "BadRequestError", "prompt is too long"),
        ("unknown", 404, "NotFoundError", "not_found_error"),
        ("wrong", 400, "BadRequestError", "invalid_request_error"),
        ("key", 401, "AuthenticationError", "authentication_error"),
    ],
)
def test_errors_of_anthropics_classes(npm: Said, case: str, status: int, kind: str, says: str) -> None:
    raised = npm["anthropicErrors"][case]
    assert (raised["status"], raised["class"]) == (status, kind)
    assert says in raised["says"]
