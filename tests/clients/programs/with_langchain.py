"""LangChain's clients of OpenAI and Anthropic, as an application uses them."""

from __future__ import annotations

from typing import Any, Literal

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

from tests.clients.programs.common import KEY, ROOM, TOO_LONG, URL, documented, raised

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 60, "max_retries": 0, "timeout": 120, "api_key": KEY}
ASKED = [SystemMessage("Be brief."), HumanMessage("Say something.")]


class City(BaseModel):
    """A city."""

    name: Literal["Oslo", "Rome"]
    large: bool = Field(description="Whether it is large.")


def weather(city: Literal["Oslo", "Rome"]) -> str:
    """The weather of a city."""
    return f"rain in {city}"


WEATHER = tool(weather)


def openai(model: str = "org/tiny", **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=f"{URL}/v1", **{**GREEDY, **options})


def anthropic(model: str = "org/tiny", **options: Any) -> ChatAnthropic:
    return ChatAnthropic(model=model, base_url=URL, **{**GREEDY, **options})


def told(message: Any) -> dict[str, Any]:
    """What of an answer does not change from one time to the next."""
    calls = [{"name": call["name"], "args": call["args"]} for call in message.tool_calls]
    return {"content": message.content, "text": message.text, "usage": message.usage_metadata, "calls": calls}


def streamed(client: Any, asked: Any = ASKED) -> dict[str, Any]:
    """The pieces of a stream put together as LangChain does it, and how many had text."""
    pieces = list(client.stream(asked))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece
    return {**told(whole), "pieces": sum(1 for piece in pieces if piece.text), "meta": whole.response_metadata}


def answered(client: Any) -> list[Any]:
    """A forced call, its result, and the answer to it."""
    forced = client.bind_tools([WEATHER], tool_choice="weather")
    first = forced.invoke(ASKED)
    [call] = first.tool_calls
    history = [*ASKED, first, ToolMessage(WEATHER.invoke(call["args"]), tool_call_id=call["id"])]
    second = client.bind_tools([WEATHER]).invoke(history)
    return [told(first), told(second), streamed(forced)]


def openai_chat() -> Any:
    answer = openai().invoke(ASKED)
    return {**told(answer), "meta": answer.response_metadata, "id": answer.id}


def openai_stream() -> Any:
    return streamed(openai(stream_usage=True))


def openai_batch() -> Any:
    return [answer.text for answer in openai().batch([ASKED] * 4)]


def openai_call() -> Any:
    return answered(openai())


def openai_own_call() -> Any:
    client = openai("caller").bind_tools([WEATHER])
    return [told(client.invoke(ASKED)), streamed(client)]


def openai_any_call() -> Any:
    return told(openai().bind_tools([WEATHER], tool_choice="any", strict=True, parallel_tool_calls=False).invoke(ASKED))


def openai_structured() -> Any:
    methods: list[Any] = ["json_schema", "function_calling"]
    client = openai(max_tokens=ROOM)
    found = [client.with_structured_output(City, method=method).invoke(ASKED) for method in methods]
    strict = client.with_structured_output(City, method="json_schema", strict=True, include_raw=True).invoke(ASKED)
    *_, last = client.with_structured_output(City).stream(ASKED)
    return [city.model_dump() for city in (*found, strict["parsed"], last)]


def openai_logprobs() -> Any:
    meta = openai(max_tokens=3).bind(logprobs=True, top_logprobs=2).invoke(ASKED).response_metadata
    return [len(token["top_logprobs"]) for token in meta["logprobs"]["content"]]


def openai_responses() -> Any:
    client = openai(use_responses_api=True)
    city = openai(use_responses_api=True, max_tokens=ROOM).with_structured_output(City).invoke(ASKED)
    return {
        "whole": told(client.invoke(ASKED)),
        "stream": streamed(client),
        "call": answered(client),
        "city": city.model_dump(),
        "thought": openai("thinker", use_responses_api=True, output_version="v1").invoke(ASKED).content,
    }


def openai_completion() -> Any:
    client = OpenAI(model="org/tiny", base_url=f"{URL}/v1", api_key=KEY, temperature=0, max_tokens=20)
    return [client.invoke("Once"), "".join(client.stream("Once"))]


def openai_embeddings() -> Any:
    client = OpenAIEmbeddings(model="org/vectors", base_url=f"{URL}/v1", api_key=KEY, check_embedding_ctx_length=False)
    return [client.embed_query("the sea"), *client.embed_documents(["the sea", "a stock market"])]


def openai_errors() -> Any:
    return {
        "long": raised(lambda: openai().invoke(TOO_LONG)),
        "long stream": raised(lambda: list(openai().stream(TOO_LONG))),
        "long response": raised(lambda: openai(use_responses_api=True).invoke(TOO_LONG)),
        "unknown": raised(lambda: openai("nobody").invoke(ASKED)),
        "wrong": raised(lambda: openai(temperature=9).invoke(ASKED)),
        "key": raised(lambda: openai(api_key="another").invoke(ASKED)),
    }


def anthropic_chat() -> Any:
    answer = anthropic().invoke(ASKED)
    return {**told(answer), "meta": answer.response_metadata}


def anthropic_stream() -> Any:
    return streamed(anthropic())


def anthropic_call() -> Any:
    return answered(anthropic())


def anthropic_own_call() -> Any:
    client = anthropic("caller").bind_tools([WEATHER])
    return [told(client.invoke(ASKED)), streamed(client)]


def anthropic_structured() -> Any:
    methods: list[Any] = ["json_schema", "function_calling"]
    found = [anthropic(max_tokens=ROOM).with_structured_output(City, method=method).invoke(ASKED) for method in methods]
    return [city.model_dump() for city in found]


def anthropic_thought() -> Any:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    client = anthropic("thinker", temperature=None, thinking=thinking, max_tokens=2000)
    first = client.invoke(ASKED)
    second = client.invoke([*ASKED, first, HumanMessage("And?")])
    return [told(first), told(second), streamed(client)]


def anthropic_count() -> Any:
    return [anthropic().get_num_tokens_from_messages(ASKED), anthropic().invoke(ASKED).usage_metadata["input_tokens"]]


def anthropic_errors() -> Any:
    return {
        "long": raised(lambda: anthropic().invoke(TOO_LONG)),
        "unknown": raised(lambda: anthropic("nobody").invoke(ASKED)),
        "key": raised(lambda: anthropic(api_key="another").invoke(ASKED)),
    }


def example() -> Any:
    return documented("LangChain").splitlines()


CASES = [case for name, case in list(globals().items()) if name.startswith(("openai_", "anthropic_", "example"))]
