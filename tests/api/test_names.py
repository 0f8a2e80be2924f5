"""A refusal of the worker's names the parameter as the client wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from inference.errors import InvalidRequest
from tests.api.conftest import CHAT, COMPLETIONS, Api, chat
from tests.api.fake_engine import FakeEngine

FUNCTIONS = [{"name": "now"}]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("param", "more", "told"),
    [
        ("response_format", {"guided_regex": "("}, "guided_regex"),
        ("response_format", {"structured_outputs": {"json": {}}}, "structured_outputs.json"),
        ("response_format", {"response_format": {"type": "json_object"}}, "response_format"),
        ("thinking_budget", {"reasoning": {"max_tokens": 5}}, "reasoning.max_tokens"),
        ("thinking_budget", {"thinking_token_budget": 5}, "thinking_token_budget"),
        ("tools[0].function.parameters", {"functions": FUNCTIONS}, "functions[0].parameters"),
        ("tool_choice", {"functions": FUNCTIONS, "function_call": {"name": "now"}}, "function_call"),
        ("messages[0].content", {}, "messages[0].content"),
    ],
)
async def test_of_a_chat(
    api: Api, engine: FakeEngine, param: str, more: dict[str, Any], told: str, streaming: bool
) -> None:
    engine.scripts.append([InvalidRequest(f"{param} is wrong", param=param)])
    status, body = await api.post(CHAT, chat(stream=streaming, **more))
    assert (status, body["error"]["param"], body["error"]["message"]) == (400, told, f"{told} is wrong")


@pytest.mark.parametrize("prompt", ["Once", ["Once", "Twice"]])
async def test_of_a_completion(api: Api, engine: FakeEngine, prompt: Any) -> None:
    engine.scripts += [[InvalidRequest("response_format is wrong", param="response_format")]] * 2
    status, body = await api.post(COMPLETIONS, {"prompt": prompt, "choice": ["a"]})
    assert (status, body["error"]["param"]) == (400, "choice")
