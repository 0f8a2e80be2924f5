"""Sixteen different requests together give exactly what each gives alone, through the whole backend."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from inference import ipc
from inference.ipc import GenerateRequest, OutputFormat, Sampling
from tests.material import EOS_TOKEN_ID, nano_model, tiny_model
from tests.worker.backends.served import Result, Said, Served

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["ok", "n"],
    "additionalProperties": False,
}


def chat(text: str, **options: Any) -> GenerateRequest:
    sampling = options.pop("sampling", {})
    return GenerateRequest(
        messages=[{"role": "user", "content": text}],
        max_tokens=options.pop("max_tokens", 20),
        sampling=Sampling(**({"temperature": 0.0} | sampling)),
        **options,
    )


BODIES = [
    chat("greedy"),
    chat("a longer prompt that is prefilled beside the others " * 12),
    chat("hot", sampling={"temperature": 1.3, "seed": 1}),
    chat("hot", sampling={"temperature": 1.3, "seed": 2}),
    chat("top p", sampling={"temperature": 1.0, "top_p": 0.4, "seed": 3}),
    chat("top k", sampling={"temperature": 2.0, "top_k": 3, "seed": 4}),
    chat("min p", sampling={"temperature": 1.5, "min_p": 0.3, "seed": 5}),
    chat("presence", sampling={"presence_penalty": 1.5}),
    chat("frequency", sampling={"frequency_penalty": 1.5}),
    chat("repetition", sampling={"repetition_penalty": 1.4}),
    chat("bias", sampling={"logit_bias": {70: 100.0}}, max_tokens=6),
    chat("ends at once", sampling={"logit_bias": {EOS_TOKEN_ID: 200.0}}),
    chat("stop", stop=["e", "a", "t"], max_tokens=40),
    chat("logprobs", sampling={"top_logprobs": 3}),
    chat("schema", output_format=OutputFormat("json_schema", schema=SCHEMA), max_tokens=40),
    GenerateRequest(
        prompt=[300, 301, 302], n=2, max_tokens=12, sampling=Sampling(temperature=1.0, seed=7, top_logprobs=0)
    ),
]


@pytest.fixture(scope="module", params=["nano", "tiny"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    path = nano_model() if request.param == "nano" else tiny_model()
    with Served(path) as made:
        yield made


def rounded(said: Said) -> tuple[Any, ...]:
    """Logprobs are compared to six digits: they are sums over a vocabulary, the tokens are what must be equal."""
    logprobs = [
        (entry.token_id, round(entry.logprob, 4), [(top.token_id, round(top.logprob, 4)) for top in entry.top])
        for entry in said.logprobs
    ]
    return (said.content, said.tokens, logprobs, said.reason, said.stop_sequence, said.usage, said.calls)


def outcome(result: Result) -> list[tuple[Any, ...]]:
    assert result.failed is None, result.failed
    return [rounded(said) for said in result.choices]


def test_together_as_alone(served: Served) -> None:
    assert len(BODIES) == 16
    alone = [outcome(served.run(body)) for body in BODIES]
    order = list(range(16))
    random.Random(4).shuffle(order)
    started = {index: served.start(BODIES[index]) for index in order}
    together = [outcome(served.result(started[index])) for index in range(16)]
    for index, (one, other) in enumerate(zip(alone, together, strict=True)):
        assert one == other, f"request {index}"


def test_each_parameter_did_something(served: Served) -> None:
    results = [served.run(body) for body in BODIES]
    choices = [result.choices[0] for result in results]
    assert choices[2].tokens != choices[3].tokens
    assert set(choices[10].tokens) == {70}
    assert (choices[11].reason, choices[11].tokens, choices[11].content) == ("stop", [EOS_TOKEN_ID], "")
    assert choices[11].usage.completion_tokens == 1
    assert choices[12].stop_sequence in ("e", "a", "t") or choices[12].reason == "length"
    assert not set(choices[12].content) & {"e", "a", "t"}
    assert len(choices[13].logprobs) == 20
    assert all(len(entry.top) == 3 for entry in choices[13].logprobs)
    assert b"".join(entry.raw for entry in choices[13].logprobs).decode("utf-8", "replace") == choices[13].content
    assert choices[14].content.startswith("{")
    assert results[15].choices[0].tokens != results[15].choices[1].tokens
    assert [len(entry.top) for entry in choices[15].logprobs] == [0] * 12


def test_usage_counts_what_was_templated_and_decoded(served: Served) -> None:
    result = served.run(BODIES[0])
    usage = result.choices[0].usage
    assert usage == ipc.Usage(prompt_tokens=served.backend.count(BODIES[0]), completion_tokens=20)
    assert result.prepared.prompt_tokens == usage.prompt_tokens
