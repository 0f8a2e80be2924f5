"""LiteLLM by three of its providers, as an application uses it."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import anthropic
import litellm
import openai
from pydantic import BaseModel

from tests.clients.programs.common import KEY, ROOM, TOO_LONG, URL, documented, raised

BASES = {"openai": f"{URL}/v1", "lm_studio": f"{URL}/v1", "anthropic": URL}
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say something."}]
LONG = [{"role": "user", "content": TOO_LONG}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
FORCED: dict[str, Any] = {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}}


class City(BaseModel):
    name: Literal["Oslo", "Rome"]
    large: bool


def ask(provider: str, model: str = "org/tiny", messages: Any = ASKED, **options: Any) -> Any:
    given = {"temperature": 0, "max_tokens": 60, "max_retries": 0, "timeout": 120, "api_key": KEY} | options
    return litellm.completion(f"{provider}/{model}", messages=messages, api_base=BASES[provider], **given)


def told(answer: Any) -> dict[str, Any]:
    """What of an answer does not change from one time to the next."""
    [choice] = answer.choices
    calls = [[call.function.name, json.loads(call.function.arguments)] for call in choice.message.tool_calls or []]
    usage = [answer.usage.prompt_tokens, answer.usage.completion_tokens]
    thought = getattr(choice.message, "reasoning_content", None)
    return {
        "text": choice.message.content,
        "thought": thought,
        "calls": calls,
        "usage": usage,
        "reason": choice.finish_reason,
    }


def streamed(*arguments: Any, **options: Any) -> dict[str, Any]:
    """A stream put together as LiteLLM does it, and how many pieces had text."""
    pieces = list(ask(*arguments, **options, stream=True, stream_options={"include_usage": True}))
    told_whole = told(litellm.stream_chunk_builder(pieces, messages=ASKED))
    return {**told_whole, "pieces": sum(1 for piece in pieces if piece.choices and piece.choices[0].delta.content)}


def chat() -> Any:
    return {provider: told(ask(provider)) for provider in BASES}


def chat_streamed() -> Any:
    return {provider: streamed(provider) for provider in BASES}


def chat_async() -> Any:
    async def all_at_once() -> list[Any]:
        options: Any = {"messages": ASKED, "temperature": 0, "max_tokens": 60, "api_key": KEY}
        asked = (litellm.acompletion(f"{name}/org/tiny", api_base=BASES[name], **options) for name in BASES)
        return list(await asyncio.gather(*asked))

    return [told(answer) for answer in asyncio.run(all_at_once())]


def call() -> Any:
    """A forced call whole and streamed, and the answer to its result."""
    found: dict[str, Any] = {}
    for provider in BASES:
        first = ask(provider, **FORCED)
        message = first.choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
        second = ask(provider, messages=[*ASKED, message, result], tools=[WEATHER])
        found[provider] = [told(first), streamed(provider, **FORCED), told(second)]
    return found


def own_call() -> Any:
    options: Any = {"model": "caller", "tools": [WEATHER]}
    return {provider: [told(ask(provider, **options)), streamed(provider, **options)] for provider in BASES}


def thought() -> Any:
    return {provider: [told(ask(provider, "thinker")), streamed(provider, "thinker")] for provider in BASES}


def structured() -> Any:
    found = {}
    for provider in BASES:
        text = ask(provider, response_format=City, max_tokens=ROOM).choices[0].message.content
        found[provider] = json.loads(text)
    return found


def text_completion() -> Any:
    options: Any = {"api_base": f"{URL}/v1", "api_key": KEY, "prompt": "Once", "temperature": 0, "max_tokens": 20}
    found = {}
    for provider in ("openai", "text-completion-openai"):
        whole = litellm.text_completion(model=f"{provider}/org/tiny", **options)
        pieces = litellm.text_completion(model=f"{provider}/org/tiny", stream=True, **options)
        found[provider] = [whole.choices[0].text, "".join(piece.choices[0].text or "" for piece in pieces)]
    return found


def embedding() -> Any:
    found = {}
    for provider in ("openai", "lm_studio"):
        answer = litellm.embedding(
            f"{provider}/org/vectors", input=["the sea", "a stock market"], api_base=f"{URL}/v1", api_key=KEY
        )
        found[provider] = {"vectors": [item["embedding"] for item in answer.data], "read": answer.usage.prompt_tokens}
    return found


def responses() -> Any:
    options: Any = {"api_base": f"{URL}/v1", "api_key": KEY, "temperature": 0, "max_output_tokens": 60}
    first = litellm.responses(model="openai/org/tiny", input="Say something.", **options)
    second = litellm.responses(model="openai/org/tiny", input="And?", previous_response_id=first.id, **options)
    events = list(litellm.responses(model="openai/org/tiny", input="Say something.", stream=True, **options))
    return {
        "whole": first.output_text,
        "read": [first.usage.input_tokens, second.usage.input_tokens],
        "stream": "".join(event.delta for event in events if event.type == "response.output_text.delta"),
        "ends": events[-1].response.status,
    }


def messages() -> Any:
    """Anthropic's own form of asking, by LiteLLM."""
    options: Any = {"api_base": URL, "api_key": KEY, "max_tokens": 60, "temperature": 0, "system": "Be brief."}
    asked = litellm.anthropic.messages.acreate(model="anthropic/org/tiny", messages=ASKED[1:], **options)
    return asyncio.run(asked)["content"][0]["text"]


def models() -> Any:
    return litellm.get_valid_models(
        check_provider_endpoint=True, custom_llm_provider="openai", api_base=f"{URL}/v1", api_key=KEY
    )


def count() -> Any:
    options: Any = {"messages": ASKED[1:], "api_base": URL, "api_key": KEY}
    return asyncio.run(litellm.acount_tokens(model="anthropic/org/tiny", **options)).total_tokens


def environment() -> Any:
    """The address and the key from the environment: LiteLLM's, and the two clients' that it brings along."""
    asked: Any = {"model": "lm_studio/thinker", "messages": ASKED}
    with openai.OpenAI() as one, anthropic.Anthropic() as other:
        listed = [[model.id for model in client.models.list()] for client in (one, other)]
    return {"lm_studio": litellm.completion(**asked).choices[0].message.content, "listed": listed}


def example() -> Any:
    return documented("LiteLLM").splitlines()


def errors() -> Any:
    found = {}
    for provider in BASES:
        found[provider] = {
            "long": raised(lambda: ask(provider, messages=LONG)),  # noqa: B023
            "unknown": raised(lambda: ask(provider, "nobody")),  # noqa: B023
            "wrong": raised(lambda: ask(provider, temperature=9)),  # noqa: B023
            "key": raised(lambda: ask(provider, api_key="another")),  # noqa: B023
        }
    return found


CASES = [
    chat,
    chat_streamed,
    chat_async,
    call,
    own_call,
    thought,
    structured,
    text_completion,
    embedding,
    responses,
    messages,
    models,
    count,
    environment,
    example,
    errors,
]
