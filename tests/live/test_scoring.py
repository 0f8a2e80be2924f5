"""Prompts scored over HTTP: OpenAI's client and what an evaluation harness sends, beside streams, real to the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm import load as load_model

from tests.live.process import LiveServer, until
from tests.live.real import ENDLESS, Asked, endless_model, in_flight, real_server, sdk, settled
from tests.material import EOS_TOKEN_ID, place, tiny_model

pytestmark = [pytest.mark.live, pytest.mark.slow]

TEXT = "Once upon a time, in Z\u00fcrich: \u4f60\u597d \U0001f389 said the sea. "


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    place(tiny_model(), home / "models" / "tiny")
    endless_model(home)
    with real_server(home) as running:
        yield running


class Reference:
    """The model in this process: one plain forward pass over the whole prompt, in float32."""

    def __init__(self, path: Path) -> None:
        mx.set_default_device(mx.cpu)
        self._model, self.tokenizer = load_model(str(path))

    def encode(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer.encode(text)
        return found

    def logprobs(self, tokens: list[int]) -> np.ndarray:
        """(T, V): what is thought of the token after each position."""
        logits = np.array(self._model(mx.array([tokens]))[0].astype(mx.float32)).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        found: np.ndarray = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return found


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(tiny_model())


def check(choice: Any, tokens: list[int], wanted: np.ndarray, top: int) -> None:
    """The prompt's part of ``logprobs`` against the reference, and the offsets against the text."""
    found, count = choice.logprobs, len(tokens)
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == len(found.text_offset)
    assert found.token_logprobs[0] is None
    assert found.top_logprobs[0] is None
    for at in range(1, count):
        row = wanted[at - 1]
        assert found.token_logprobs[at] == pytest.approx(row[tokens[at]], abs=2e-4)
        best = np.sort(row)[::-1][:top]
        values = sorted(found.top_logprobs[at].values(), reverse=True)
        assert values[0] == pytest.approx(max(best[:1], default=row[tokens[at]]), abs=2e-4)
        assert len(values) <= top + 1
    for token, offset in zip(found.tokens, found.text_offset, strict=True):
        assert "\ufffd" in token or choice.text.startswith(token, offset)
    assert found.text_offset == sorted(found.text_offset)


@pytest.mark.parametrize("streams", [0, 8])
def test_an_echo_is_scored_as_by_a_plain_forward_pass(server: LiveServer, reference: Reference, streams: int) -> None:
    """Longer than one chunk; streamed and whole are one."""
    beside = [Asked(server, "tiny", max_tokens=600, seed=at).streams() for at in range(streams)]
    wanted: dict[str, Any] = {"model": "tiny", "prompt": TEXT * 16, "echo": True, "temperature": 0, "max_tokens": 4}
    tokens = reference.encode(TEXT * 16)
    assert len(tokens) > 512
    with sdk(server) as client:
        for top in (0, 5):
            whole = client.completions.create(**wanted, logprobs=top)
            [choice] = whole.choices
            assert choice.text.startswith(TEXT * 16)
            assert choice.logprobs is not None
            assert len(choice.logprobs.tokens or []) == len(tokens) + 4
            check(choice, tokens, reference.logprobs(tokens), top)
            chunks = list(client.completions.create(**wanted, logprobs=top, stream=True))
            said = [chunk.choices[0] for chunk in chunks]
            assert "".join(one.text for one in said) == choice.text
            parts = [one.logprobs for one in said if one.logprobs is not None]
            for name in ("tokens", "text_offset"):
                assert [item for part in parts for item in getattr(part, name)] == getattr(choice.logprobs, name)
            flowed = [item for part in parts for item in part.token_logprobs or []]
            assert flowed[1:] == pytest.approx(choice.logprobs.token_logprobs[1:], abs=2e-4)
            assert len([item for part in parts for item in part.top_logprobs or []]) == len(flowed)
    for stream in beside:
        assert stream.ended().error is None
        assert stream.whole() == beside[0].whole()


def test_choices_of_several_prompts_have_the_scores_of_their_own(server: LiveServer, reference: Reference) -> None:
    prompts = ["Once upon a time", "Zwei", TEXT]
    with sdk(server) as client:
        wanted: dict[str, Any] = {"prompt": prompts, "n": 2, "echo": True, "logprobs": 2, "max_tokens": 2, "seed": 4}
        answer = client.completions.create(model="tiny", **wanted)
    for choice in answer.choices:
        text = prompts[choice.index // 2]
        tokens = reference.encode(text)
        assert choice.text.startswith(text)
        check(choice, tokens, reference.logprobs(tokens), 2)
        assert len(choice.logprobs.tokens) == len(tokens) + 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens == sum(len(reference.encode(text)) for text in prompts)


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_new_is_made(server: LiveServer, reference: Reference, stream: bool) -> None:
    wanted: dict[str, Any] = {"model": "tiny", "prompt": TEXT, "echo": True, "logprobs": 1, "max_tokens": 0}
    tokens = reference.encode(TEXT)
    with sdk(server) as client:
        if stream:
            options: Any = {"include_usage": True}
            chunks = list(client.completions.create(**wanted, stream=True, stream_options=options))
            choices, usage = [chunk.choices[0] for chunk in chunks if chunk.choices], chunks[-1].usage
        else:
            answer = client.completions.create(**wanted)
            choices, usage = list(answer.choices), answer.usage
    assert "".join(choice.text for choice in choices) == TEXT
    assert choices[-1].finish_reason == "length"
    check(choices[0], tokens, reference.logprobs(tokens), 1)
    assert len(choices[0].logprobs.tokens or []) == len(tokens)
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(tokens), 0)


def harness(server: LiveServer, prompts: list[list[int]], begins: list[int], **more: Any) -> list[tuple[float, bool]]:
    """What lm-evaluation-harness's ``local-completions`` sends, and how it reads the answer: for each prompt the sum of
    the log probabilities from ``begins`` on without the one token made, and whether each was the most likely.
    """
    body = {"model": "tiny", "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234}
    answer = httpx.post(f"{server.url}/v1/completions", json={**body, "echo": True, **more}, timeout=120).json()
    found = []
    for choice, begin in zip(sorted(answer["choices"], key=lambda one: one["index"]), begins, strict=True):
        scores = choice["logprobs"]["token_logprobs"][begin:-1]
        tops = choice["logprobs"]["top_logprobs"][begin:-1]
        greedy = all(score == max(top.values()) for score, top in zip(scores, tops, strict=True))
        found.append((sum(scores), greedy))
    return found


@pytest.mark.parametrize("bias", [{}, {str(EOS_TOKEN_ID): 100}], ids=["goes on", "ends at once"])
def test_an_evaluation_harness_reads_the_right_numbers(
    server: LiveServer, reference: Reference, bias: dict[str, float]
) -> None:
    """Also when the one token that has to be made is the end of the answer."""
    contexts = [reference.encode(text) for text in ("Once upon", TEXT, "The \u4f60")]
    prompts, begins, greedy = [], [], []
    for context in contexts:
        best = list(context)
        for _ in range(3):
            best.append(int(reference.logprobs(best)[-1].argmax()))
        for tokens in (best, [*context, 99, 1234, 77]):
            prompts.append(tokens)
            begins.append(len(context))
            greedy.append(tokens is best)
    found = harness(server, prompts, begins, logit_bias=bias)
    for (total, is_greedy), tokens, begin, is_best in zip(found, prompts, begins, greedy, strict=True):
        rows = reference.logprobs(tokens)
        assert total == pytest.approx(sum(rows[at - 1][tokens[at]] for at in range(begin, len(tokens))), abs=1e-3)
        assert is_greedy == is_best


def test_a_client_that_leaves_in_the_middle_of_its_prompt(server: LiveServer, reference: Reference) -> None:
    """The rest of it is not computed, and a stream beside it goes on."""
    alone = Asked(server, ENDLESS, max_tokens=300).ended().whole()
    other = Asked(server, ENDLESS, max_tokens=300).streams()
    body = {"model": ENDLESS, "prompt": [9] * 60000, "echo": True, "logprobs": 1, "max_tokens": 1, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=120) as leaving:
        assert leaving.status_code == 200
        until(lambda: len(in_flight(server)) >= 1, "the prompt to be in flight")
    assert other.ended().whole() == alone
    settled(server)
    assert not math.isnan(harness(server, [[5, 6, 7]], [1])[0][0])
