"""The application over a fake engine whose model reasons, says something, and gives what was asked of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from inference.api import deps
from inference.engine import set_engine
from inference.ipc import (
    Delta,
    Finished,
    GenerateRequest,
    PromptLogprobs,
    RequestEvent,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from tests.api.conftest import Api
from tests.api.fake_engine import FakeEngine, Script, small_catalog, started


def script(request: GenerateRequest) -> Script:
    """Every choice thinks where it is a chat, then says two words; logprobs where they are asked for."""
    before: list[RequestEvent] = [started()]
    if request.prompt_logprobs is not None:
        before.append(PromptLogprobs("", [_token("On", math.nan), _token("ce", -1.0)]))
    if request.echo:
        before += [Delta("", choice=choice, content="Once") for choice in range(request.n)]
    return [before, *([event] for choice in range(request.n) for event in _choice(request, choice))]


def _choice(request: GenerateRequest, choice: int) -> Iterator[RequestEvent]:
    thinks = request.messages is not None
    if thinks:
        yield Delta("", choice=choice, reasoning="Hm. ", token_ids=[1])
    for at, word in enumerate(("Hello", " you")):
        logprobs = [_token(word, -0.5 - choice)] if request.sampling.top_logprobs is not None else []
        yield Delta("", choice=choice, content=word, token_ids=[2 + at], logprobs=logprobs)
    usage = Usage(prompt_tokens=7, completion_tokens=2 + thinks, cached_tokens=3, reasoning_tokens=int(thinks))
    yield Finished("", reason="stop", choice=choice, usage=usage)


def _token(text: str, logprob: float) -> TokenLogprob:
    return TokenLogprob(5, text, text.encode(), logprob, [TopLogprob(5, text, text.encode(), logprob)])


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    catalog = small_catalog()
    found = FakeEngine(catalog)
    found.respond = script
    set_engine(found)
    deps.configure(catalog=catalog)
    yield found
    deps.configure()
    set_engine(None)


@pytest.fixture
def api(engine: FakeEngine) -> Api:
    return Api()
