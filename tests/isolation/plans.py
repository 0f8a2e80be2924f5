"""What meets in one model: requests with any parameters, when each begins and how it ends; drawn by Hypothesis.

Nothing here goes by time. A request begins, and is ended, at a moment: when one of the mix has had so many events.
Prompts are cut out of few texts, so that many of a mix share a long beginning, go on from each other or are the same.

The environment's ``ISOLATION_EXAMPLES`` asks for that many mixes from random seeds, in place of the few that are the
same in every run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from inference.ipc import GenerateRequest, OutputFormat, Sampling
from tests.material import EOS_TOKEN_ID

VOCABULARY = 512
End = Literal["leave", "cancel"]
Protocol = Literal["chat", "completions", "responses", "messages"]


@dataclass(frozen=True)
class Moment:
    """When request number ``of`` of the mix has had ``count`` events, or has ended."""

    of: int
    count: int


@dataclass(frozen=True)
class Ending:
    """``leave``: the client goes without a word. ``cancel``: the owner ends the request. ``turns``: of the event loop
    after the moment, so that it falls between any two steps of a request that has hardly begun.
    """

    how: End
    moment: Moment
    turns: int


@dataclass(frozen=True)
class Ask:
    """One request of a mix. What comes after ``priority`` is for HTTP alone; ``more`` are prompts beside its own, and
    ``background`` is a response that runs on without its client.
    """

    request: GenerateRequest
    begins: Moment
    ends: Ending | None
    priority: int
    protocol: Protocol
    stream: bool
    background: bool
    more: tuple[str, ...]


def examples(count: int) -> Callable[[Any], Any]:
    """Settings of a test of ``count`` mixes, or of as many as the environment asks for.

    A mix that fails is not made smaller: what goes on at once is not the same twice, and each try takes a second.
    """
    asked = os.environ.get("ISOLATION_EXAMPLES")
    return settings(
        max_examples=int(asked) if asked else count,
        derandomize=not asked,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


# -------------------------------------------------------------------------------------------------------- prompts

_WORDS = "sea, wind and a harbour; two ships of 1887 came late: nobody had seen them (or so it was said) for years. "


def _text(seed: int) -> str:
    return " ".join(random.Random(seed).choices(_WORDS.split(), k=300))


_TEXTS = [_text(1), _text(2)]
_IDS = random.Random(3).choices(range(3, VOCABULARY), k=700)
_TALKS = [[_text(seed)[at * 37 : at * 37 + 20 + 90 * (at % 3)] for at in range(7)] for seed in (4, 5)]
_ENDS = ["", "", "?", " é", "\n\n", " 日本"]
# Around the sizes at which chunks, blocks and buffers end.
_LENGTHS = st.integers(1, 48) | st.sampled_from([31, 32, 33, 63, 64, 65, 128, 255, 256, 257, 258, 511, 512, 513, 690])


def _cut(text: str, length: int, end: str) -> str:
    return text[: 2 * length] + end


_texts = st.builds(_cut, st.sampled_from(_TEXTS), _LENGTHS, st.sampled_from(_ENDS))


def _talk(turns: list[str], length: int, system: str) -> list[dict[str, Any]]:
    """A conversation up to one of its user's turns; a longer cut goes on from a shorter one."""
    roles = ["user", "assistant"] * len(turns)
    said = [{"role": role, "content": text} for role, text in zip(roles, turns[: 2 * length + 1], strict=False)]
    return [{"role": "system", "content": system}, *said] if system else said


_prompts: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda *parts: {"messages": _talk(*parts)}, st.sampled_from(_TALKS), st.integers(0, 3), st.just("")),
    st.builds(lambda text, system: {"messages": _talk([text], 0, system)}, _texts, st.sampled_from(["", "Be brief."])),
    st.builds(lambda text: {"prompt": text}, _texts),
    st.builds(
        lambda length, last: {"prompt": [*_IDS[:length], *last]},
        _LENGTHS,
        st.lists(st.integers(3, VOCABULARY - 1), max_size=2),
    ),
)

# ----------------------------------------------------------------------------------------------------- parameters

_OBJECT = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2, 30]}},
    "required": ["ok", "n"],
    "additionalProperties": False,
}
_LIST = {"type": "array", "items": {"type": "string", "maxLength": 6}, "minItems": 1, "maxItems": 3}
_FORMATS = [
    OutputFormat("json_object"),
    OutputFormat("json_schema", schema=_OBJECT),
    OutputFormat("json_schema", schema=_LIST),
    OutputFormat("regex", text=r"[a-f]{2,9}(-[0-9]+)?"),
    OutputFormat("choice", choices=["yes", "no", "yes, but"]),
    OutputFormat("grammar", text='start: "a"+ ("b" | "c")'),
    OutputFormat("json_schema", schema={"type": "no such type"}),  # refused
]


def _tool(name: str, strict: bool, **properties: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
    parameters["additionalProperties"] = False
    return {"type": "function", "function": {"name": name, "parameters": parameters, "strict": strict}}


_TOOLS = [
    _tool("weather", True, city={"enum": ["Oslo", "Rome"]}, days={"type": "integer", "minimum": 0, "maximum": 9}),
    _tool("note", False, text={"type": "string", "maxLength": 12}),
]
_tools: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.just({}),
    st.fixed_dictionaries(
        {
            "tools": st.just(_TOOLS),
            "tool_choice": st.sampled_from(["auto", "none", "required", "required"]),
            "tool_names": st.sampled_from([[], ["weather"], ["note"]]),
            "parallel_tool_calls": st.booleans(),
        }
    ),
)
_bias = st.dictionaries(st.integers(3, VOCABULARY - 1), st.sampled_from([-100.0, -3.0, 2.5, 6.0]), max_size=3)
# The models of the tests never say that they are done. So they do after some tokens, or at once.
_ends_by_itself = st.builds(lambda bias: {EOS_TOKEN_ID: bias}, st.sampled_from([22.0, 25.0, 28.0, 100.0]))
_sampling = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.6, 1.0, 1.9]),
    top_p=st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.3]),
    top_k=st.sampled_from([0, 0, 0, 1, 9, 100_000]),
    min_p=st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.5]),
    seed=st.integers(0, 2**63 - 1) | st.integers(0, 3) | st.integers(0, 2**31) | st.none(),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.1, -1.5]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.7, -0.4]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3, 0.8]),
    logit_bias=st.just({}) | _bias | _bias | _ends_by_itself,
    top_logprobs=st.sampled_from([None, None, 0, 1, 5, 20]),
)
_parameters: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "sampling": _sampling,
        "n": st.sampled_from([1, 1, 1, 1, 2, 4]),
        "max_tokens": st.integers(1, 40) | st.sampled_from([1, 2, 40, 70, 150]),
        "stop": st.lists(st.sampled_from(["e", "th", " a", "on", '"', "}", "abc", "é"]), max_size=2, unique=True),
        "ignore_eos": st.booleans(),
        "output_format": st.just(OutputFormat()) | st.just(OutputFormat()) | st.sampled_from(_FORMATS),
    }
)
_chat: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "template_kwargs": st.sampled_from([{"enable_thinking": False}, {"enable_thinking": False}, {}]),
        "thinking_budget": st.sampled_from([None, None, 0, 5]),
        "continue_final": st.sampled_from([False, False, False, True]),
    }
)
_plain: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "echo": st.sampled_from([False, False, False, False, True]),
        "prompt_logprobs": st.sampled_from([None, None, 0, 2]),
    }
)


@st.composite
def _requests(draw: st.DrawFn, prompt: dict[str, Any]) -> GenerateRequest:
    parameters: dict[str, Any] = draw(_parameters)
    if "prompt" in prompt:
        return GenerateRequest(**prompt, **parameters, **draw(_plain))
    more: dict[str, Any] = {**draw(_chat), **draw(_tools)}
    messages: list[dict[str, Any]] = prompt["messages"]
    if more["continue_final"]:
        messages = [*messages, {"role": "assistant", "content": "Well, the"}]
    return GenerateRequest(messages=messages, **parameters, **more)


# Many begin at once, so that more are there than there are slots, and few when all others are over.
_EVENTS = st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8, 13, 21])


@st.composite
def mixes(draw: st.DrawFn, most: int = 16) -> list[Ask]:
    """2 to ``most`` requests. Each begins at a moment of one before it; it may be ended at a moment of any."""
    prompts = st.sampled_from(draw(st.lists(_prompts, min_size=1, max_size=4)))
    count = draw(st.integers(2, most))
    mix = []
    for at in range(count):
        request = draw(_requests(draw(prompts)))
        chats: list[Protocol] = ["chat", "chat", "responses", "messages"]
        ends = st.builds(
            Ending,
            st.sampled_from(["leave", "cancel"]),
            st.builds(Moment, st.just(at) | st.integers(0, count - 1) | st.integers(0, count - 1), _EVENTS),
            st.integers(0, 8),
        )
        mix.append(
            Ask(
                request,
                begins=draw(st.builds(Moment, st.integers(0, at - 1), _EVENTS)) if at else Moment(0, 0),
                ends=draw(st.none() | ends),
                priority=draw(st.sampled_from([0, 0, -1, 1])),
                protocol=draw(st.sampled_from(chats)) if request.messages else "completions",
                stream=draw(st.booleans()),
                background=draw(st.booleans()),
                more=tuple(draw(st.lists(_texts, max_size=2))) if isinstance(request.prompt, str) else (),
            )
        )
    return mix
