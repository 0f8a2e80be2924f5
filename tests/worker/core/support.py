"""Small random models and a driver for the stepping core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models import gemma3_text, lfm2, llama, qwen3_next

from inference.ipc import Sampling
from inference.worker.core.core import Core
from inference.worker.core.types import (
    Bitmask,
    ChoiceFinished,
    CoreEvent,
    CoreRequest,
    PrefillProgress,
    PromptLogprobs,
    RequestFailed,
    Started,
    TokenLogprobs,
    Tokens,
)

mx.set_default_device(mx.cpu)

VOCAB = 331
EOS = 2


def _ready(model: Any, seed: int = 7) -> Any:
    """Random weights, a few times larger than usual, so that the logits are far from flat and from each other."""
    mx.random.seed(seed)
    model.update(
        tree_map(lambda leaf: mx.random.normal(leaf.shape) * (0.3 if leaf.ndim > 1 else 1), model.parameters())
    )
    model.eval()
    mx.eval(model.parameters())
    return model


def llama_model(vocab: int = VOCAB, layers: int = 2) -> Any:
    """Plain attention in every layer."""
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=32,
        num_hidden_layers=layers,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=vocab,
        tie_word_embeddings=False,
    )
    return _ready(llama.Model(arguments))


def window_model(window: int = 8) -> Any:
    """Gemma 3: sliding-window attention with rotating caches, every second layer global."""
    arguments = gemma3_text.ModelArgs(
        model_type="gemma3_text",
        hidden_size=32,
        num_hidden_layers=4,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        vocab_size=VOCAB,
        sliding_window=window,
        sliding_window_pattern=2,
    )
    return _ready(gemma3_text.Model(arguments))


def state_space_model() -> Any:
    """Qwen3-Next: gated delta-net layers (recurrent state) with a global attention layer, mixture of experts."""
    arguments = qwen3_next.ModelArgs(
        model_type="qwen3_next",
        hidden_size=32,
        num_hidden_layers=4,
        intermediate_size=48,
        num_attention_heads=4,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_conv_kernel_dim=4,
        num_experts=4,
        num_experts_per_tok=2,
        decoder_sparse_step=1,
        shared_expert_intermediate_size=16,
        mlp_only_layers=[],
        moe_intermediate_size=16,
        rms_norm_eps=1e-5,
        vocab_size=VOCAB,
        num_key_value_heads=2,
        rope_theta=10000.0,
        partial_rotary_factor=0.5,
        max_position_embeddings=2048,
        head_dim=8,
        full_attention_interval=4,
    )
    return _ready(qwen3_next.Model(arguments))


def convolution_model() -> Any:
    """LFM2: short convolutions beside attention layers."""
    arguments = lfm2.ModelArgs(
        model_type="lfm2",
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        norm_eps=1e-5,
        conv_bias=False,
        conv_L_cache=3,
        block_dim=32,
        block_ff_dim=48,
        block_multiple_of=8,
        block_ffn_dim_multiplier=1.0,
        block_auto_adjust_ff_dim=False,
        full_attn_idxs=[1, 3],
        rope_theta=10000.0,
    )
    return _ready(lfm2.Model(arguments))


def prompt(length: int, seed: int = 0, vocab: int = VOCAB) -> list[int]:
    """Random token ids, none of them EOS."""
    return [int(token) for token in np.random.default_rng(seed).integers(3, vocab, length)]


class Cycle:
    """Allows only tokens of one remainder at each position: 0, 1, 2, 0, ... ``length`` tokens, then nothing."""

    def __init__(self, length: int = 1000, period: int = 3) -> None:
        self._at = 0
        self._length = length
        self._period = period

    def mask(self, out: Bitmask) -> bool:
        for token in range(self._at % self._period, VOCAB, self._period):
            out[token // 32] |= np.uint32(1 << (token % 32))
        return True

    def advance(self, token: int) -> None:
        assert token % self._period == self._at % self._period
        self._at += 1

    @property
    def finished(self) -> bool:
        return self._at >= self._length


class Panic(BaseException):
    """As a native extension raises it: not an ``Exception``."""


class Broken:
    """A constraint that fails at one position, in ``mask``, in ``advance`` or by allowing nothing."""

    finished = False

    def __init__(self, how: str, at: int = 3) -> None:
        self._how = how
        self._left = at

    def mask(self, out: Bitmask) -> bool:
        if self._left == 0 and self._how == "mask":
            raise Panic("this schema is broken")
        return self._left == 0 and self._how == "nothing"

    def advance(self, token: int) -> None:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and self._how == "advance"):
            raise Panic("this schema is broken")


@dataclass
class Answer:
    """What one choice gave."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    reason: str = ""
    completion_tokens: int = -1


@dataclass
class Outcome:
    """What a run gave: answers by (key, choice), failures and prompts' scores by key, all events in order."""

    answers: dict[tuple[str, int], Answer] = field(default_factory=dict)
    failures: dict[str, RequestFailed] = field(default_factory=dict)
    scored: dict[str, PromptLogprobs] = field(default_factory=dict)
    events: list[CoreEvent] = field(default_factory=list)

    def add(self, events: Iterable[CoreEvent]) -> None:
        for event in events:
            self.events.append(event)
            if isinstance(event, Tokens):
                self._add_tokens(event)
            elif isinstance(event, ChoiceFinished):
                answer = self.answers.setdefault((event.key, event.choice), Answer())
                assert not answer.reason, "a choice had two last events"
                answer.reason, answer.completion_tokens = event.reason, event.completion_tokens
            elif isinstance(event, RequestFailed):
                assert event.key not in self.failures, "a request failed twice"
                self.failures[event.key] = event
            elif isinstance(event, PromptLogprobs):
                assert event.key not in self.scored, "a prompt was scored twice"
                mine = [answer for (key, _), answer in self.answers.items() if key == event.key]
                assert not any(answer.tokens for answer in mine), "a token came before the prompt's scores"
                self.scored[event.key] = event
            else:
                assert isinstance(event, Started | PrefillProgress)

    def _add_tokens(self, event: Tokens) -> None:
        logprobs = event.logprobs or [None] * len(event.rows)
        for row, token, logprob in zip(event.rows, event.token_ids, logprobs, strict=True):
            answer = self.answers.setdefault((row.key, row.choice), Answer())
            assert not answer.reason, "a token came after the last event"
            assert row.key not in self.failures, "a token came after the failure"
            answer.tokens.append(token)
            answer.logprobs.append(logprob)


def run(
    core: Core,
    arrivals: Mapping[int, list[CoreRequest]],
    cancels: Mapping[int, list[tuple[str, int | None]]] | None = None,
    limit: int = 3000,
) -> Outcome:
    """Step the core until it is idle, submitting and cancelling before the steps named."""
    outcome = Outcome()
    cancels = cancels or {}
    last = max([*arrivals, *cancels], default=0)
    for step in range(limit):
        for request in arrivals.get(step, []):
            core.submit(request)
        for key, choice in cancels.get(step, []):
            core.cancel(key, choice)
        outcome.add(core.step())
        if step >= last and not core.busy:
            assert not core.wait_for_work(0)
            return outcome
    raise AssertionError(f"not idle after {limit} steps")


def alone(core: Core, request: CoreRequest) -> Outcome:
    """What a request gives with nothing beside it."""
    return run(core, {0: [request]})


def same(found: Answer, wanted: Answer) -> None:
    """Assert that two answers agree token by token, and their log probabilities to 1e-4."""
    assert found.tokens == wanted.tokens
    assert found.reason == wanted.reason
    assert found.completion_tokens == wanted.completion_tokens == len(found.tokens)
    for one, other in zip(found.logprobs, wanted.logprobs, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert abs(one.logprob - other.logprob) < 1e-4
            assert np.allclose(one.top_logprobs, other.top_logprobs, atol=1e-4)
            assert one.top_ids == other.top_ids


def request(key: str, length: int = 9, max_tokens: int = 12, **parameters: Any) -> CoreRequest:
    """A request with a prompt made from its key; ``parameters`` are those of ``Sampling`` or ``CoreRequest``."""
    own = {name: parameters.pop(name) for name in ("n", "constraints", "eos", "prompt_logprobs") if name in parameters}
    seed = sum(key.encode())
    return CoreRequest(key, prompt(length, seed), max_tokens, sampling=Sampling(**parameters), **own)
