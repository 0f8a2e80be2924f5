"""Text completions of several prompts, the best of several choices, and the prompt's own log probabilities."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from openai.types import Completion

from inference.errors import ContextLengthExceeded, ModelUnavailable
from inference.ipc import (
    Delta,
    Finished,
    GenerateRequest,
    Prefill,
    PromptLogprobs,
    RequestEvent,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from inference.protocols.openai.batch import AT_ONCE
from tests.api.conftest import COMPLETIONS, Api, Wire
from tests.api.fake_engine import FakeEngine, Script, finished, started, text
from tests.conformance.strict import check

Open = Callable[[str, dict[str, Any]], Wire]


def token(word: str, logprob: float) -> TokenLogprob:
    raw = word.encode()
    return TokenLogprob(1, word, raw, logprob, [TopLogprob(1, word, raw, logprob)])


def repeats(request: GenerateRequest) -> Script:
    """Each choice is the prompt and the choice's number, in two pieces."""
    events: list[list[RequestEvent]] = [[started(), Prefill("", 1, 2)]]
    for choice in range(request.n):
        events.append([text(f"{request.prompt}", choice=choice)])
        usage = Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3)
        events.append([text(f"#{choice}", choice=choice), Finished("", "stop", choice, None, usage)])
    return [*events]


def body(**more: Any) -> dict[str, Any]:
    return {"model": "acme/tiny", **more}


async def test_choices_are_numbered_prompt_by_prompt(api: Api, engine: FakeEngine) -> None:
    engine.respond = repeats
    status, answer = await api.post(COMPLETIONS, body(prompt=["a", "b", "c"], n=2))
    assert status == 200
    check(answer, Completion)
    texts = ["a#0", "a#1", "b#0", "b#1", "c#0", "c#1"]
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == list(enumerate(texts))
    assert answer["usage"]["prompt_tokens"] == 21
    assert answer["usage"]["completion_tokens"] == 12
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 9
    assert len({generation.record.id for generation in engine.generations}) == 3


async def test_streamed_it_is_the_same(api: Api, engine: FakeEngine) -> None:
    engine.respond = repeats
    wanted = body(prompt=[[97], [98]], n=2)
    *chunks, last, done = await api.stream(COMPLETIONS, {**wanted, "stream_options": {"include_usage": True}})
    assert done == "[DONE]"
    for chunk in (*chunks, last):
        check(chunk, Completion)
    whole = (await api.post(COMPLETIONS, wanted))[1]
    for choice in whole["choices"]:
        mine = [part for chunk in chunks for part in chunk["choices"] if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in mine) == choice["text"]
        assert [part["finish_reason"] for part in mine if part["finish_reason"]] == ["stop"]
    assert last["usage"] == whole["usage"]


async def test_prompts_run_beside_each_other_a_few_at_a_time(api: Api, engine: FakeEngine) -> None:
    gate = asyncio.Event()
    engine.respond = lambda request: [[started()], gate, [finished()]]
    asking = asyncio.create_task(api.post(COMPLETIONS, body(prompt=["a"] * (AT_ONCE + 2))))
    while len(engine.generations) < AT_ONCE:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(engine.generations) == len(engine.flying) == AT_ONCE
    gate.set()
    status, answer = await asking
    assert (status, len(answer["choices"])) == (200, AT_ONCE + 2)


@pytest.mark.parametrize("streaming", [False, True])
async def test_leaving_ends_all_of_them(wire: Open, engine: FakeEngine, streaming: bool) -> None:
    engine.respond = lambda request: [[started(), text("x")], asyncio.Event()]
    client = wire(COMPLETIONS, body(prompt=["a", "b", "c"], stream=streaming))
    await client.send()
    while len(engine.generations) < 3:
        await asyncio.sleep(0)
    if streaming:
        assert await client.start() == 200
    await client.leave()
    for generation in engine.generations:
        await asyncio.wait_for(generation.left.wait(), 5)
    assert [generation.cancelled_by for generation in engine.generations] == ["client"] * 3
    assert engine.flying == {}


async def test_a_refusal_of_one_is_the_answer_and_names_its_place(api: Api, engine: FakeEngine) -> None:
    long = ContextLengthExceeded.of(3000, 2048, "prompt")
    engine.scripts += [[[started()], asyncio.Event()], [long]]
    status, answer = await api.post(COMPLETIONS, body(prompt=["a", "b"]))
    assert (status, answer["error"]["param"]) == (400, "prompt[1]")
    engine.scripts += [[[started()], asyncio.Event()], [ModelUnavailable("draining")]]
    status, answer = await api.post(COMPLETIONS, body(prompt=["a", "b"], stream=True))
    assert (status, answer["error"]["code"]) == (503, "model_unavailable")
    assert engine.flying == {}


async def test_the_owner_cancels_one_and_so_all(api: Api, engine: FakeEngine) -> None:
    engine.respond = lambda request: [[started()], asyncio.Event()]
    asking = asyncio.create_task(api.post(COMPLETIONS, body(prompt=["a", "b"])))
    while len(engine.generations) < 2:
        await asyncio.sleep(0)
    assert (await api.post("/admin/requests/cancel", {"id": engine.generations[1].record.id}))[0] == 200
    status, answer = await asking
    assert (status, answer["error"]["code"]) == (409, "request_cancelled")
    assert engine.flying == {}


def ranked(*means: float) -> Callable[[GenerateRequest], Script]:
    def script(request: GenerateRequest) -> Script:
        assert request.n == len(means)
        assert request.sampling.top_logprobs is not None
        ends: list[list[RequestEvent]] = []
        for choice, mean in enumerate(means):
            word = f"w{choice}"
            ends.append([text(word, choice=choice, logprobs=[token(word, mean)])])
            ends.append([finished(choice=choice, tokens=1)])
        return [[started()], *ends]

    return script


async def test_the_best_are_given_and_all_are_counted(api: Api, engine: FakeEngine) -> None:
    engine.respond = ranked(-3.0, -0.5, -2.0, -1.0)
    _, answer = await api.post(COMPLETIONS, body(prompt=["a", "b"], n=2, best_of=4))
    check(answer, Completion)
    assert [choice["text"] for choice in answer["choices"]] == ["w1", "w3", "w1", "w3"]
    assert [choice["logprobs"] for choice in answer["choices"]] == [None] * 4
    assert answer["usage"]["completion_tokens"] == 8
    _, answer = await api.post(COMPLETIONS, body(prompt="a", best_of=4, logprobs=1))
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [-0.5]


def scored(request: GenerateRequest) -> Script:
    """A prompt of three tokens, of which the first only marks the beginning; then one more, as the engine must."""
    prompt = [token("<s>", math.nan), token("Once", -2.0), token(" upon", -1.0)]
    made = [token(" a", -0.25)] if request.sampling.top_logprobs is not None else []
    before: list[RequestEvent] = [PromptLogprobs("", prompt)] if request.prompt_logprobs is not None else []
    echoed: list[RequestEvent] = [Delta("", choice=choice, content="Once upon") for choice in range(request.n)]
    after: list[list[RequestEvent]] = [
        [text(" a", choice=choice, logprobs=made), finished("length", choice=choice, tokens=1)]
        for choice in range(request.n)
    ]
    return [[started(), *before], echoed, *after]


LOGPROBS: dict[str, list[Any]] = {
    "tokens": ["<s>", "Once", " upon", " a"],
    "token_logprobs": [None, -2.0, -1.0, -0.25],
    "top_logprobs": [None, {"Once": -2.0}, {" upon": -1.0}, {" a": -0.25}],
    "text_offset": [0, 0, 4, 9],
}


async def test_an_echo_has_the_prompts_own_logprobs(api: Api, engine: FakeEngine) -> None:
    engine.respond = scored
    wanted = body(prompt="Once upon", echo=True, logprobs=1, n=2)
    _, answer = await api.post(COMPLETIONS, wanted)
    check(answer, Completion)
    assert engine.requests[0].prompt_logprobs == 1
    for choice in answer["choices"]:
        assert (choice["text"], choice["logprobs"]) == ("Once upon a", LOGPROBS)
    chunks = (await api.stream(COMPLETIONS, wanted))[:-1]
    for index in range(2):
        mine = [part for chunk in chunks for part in chunk["choices"] if part["index"] == index]
        assert mine[0]["text"] == "Once upon"
        for name, values in LOGPROBS.items():
            assert [item for part in mine if part["logprobs"] for item in part["logprobs"][name]] == values


async def test_the_order_of_echo_and_logprobs_is_of_no_account(api: Api, engine: FakeEngine) -> None:
    first, echoed, *rest = scored(GenerateRequest(prompt_logprobs=0))
    assert isinstance(first, list)
    assert isinstance(echoed, list)
    engine.scripts.append([first[:1], echoed, first[1:], *rest])
    _, answer = await api.post(COMPLETIONS, body(prompt="Once upon", echo=True, logprobs=0))
    assert answer["choices"][0]["logprobs"]["tokens"] == ["<s>", "Once", " upon"]
    assert answer["choices"][0]["text"] == "Once upon a"


async def test_scoring_makes_nothing_new(api: Api, engine: FakeEngine) -> None:
    engine.respond = scored
    for wanted in ({"logprobs": 1}, {}):
        _, answer = await api.post(COMPLETIONS, body(prompt="Once upon", echo=True, max_tokens=0, **wanted))
        check(answer, Completion)
        [choice] = answer["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("Once upon", "length")
        assert answer["usage"]["completion_tokens"] == 0
        if wanted:
            assert choice["logprobs"] == {name: values[:3] for name, values in LOGPROBS.items()}
    assert {request.max_tokens for request in engine.requests} == {1}
