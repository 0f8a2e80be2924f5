"""The distribution that is sampled, against a plain numpy implementation of each parameter."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from inference.ipc import Sampling
from inference.worker.core.rng import row_seed, uniforms
from inference.worker.core.sampling import Sampled, SamplingPlan, draw, expand_bits, sample

mx.set_default_device(mx.cpu)

ROWS = 4000
Floats = NDArray[np.float64]


def reference(
    logits: Floats, sampling: Sampling, answer: list[int], prompt: list[int], allowed: NDArray[np.bool_] | None = None
) -> Floats:
    """Probability of each token, in float64, one step after the other as the parameters are documented."""
    shaped = logits.astype(np.float64).copy()
    for token, bias in sampling.logit_bias.items():
        shaped[token] += bias
    counts = np.bincount(answer, minlength=len(shaped)) if answer else np.zeros(len(shaped))
    for token in {*answer, *prompt}:
        factor = sampling.repetition_penalty
        shaped[token] = shaped[token] / factor if shaped[token] > 0 else shaped[token] * factor
    shaped -= sampling.presence_penalty * (counts > 0) + sampling.frequency_penalty * counts
    if allowed is not None:
        shaped[~allowed] = -np.inf
    if sampling.temperature == 0:
        one_hot: Floats = np.eye(len(shaped))[int(np.argmax(shaped))]
        return one_hot
    shaped = np.exp((shaped - shaped.max()) / sampling.temperature)
    probabilities = shaped / shaped.sum()
    if sampling.top_k:
        smallest = np.sort(probabilities)[::-1][min(sampling.top_k, len(shaped)) - 1]
        probabilities = _normal(np.where(probabilities >= smallest, probabilities, 0))
    if sampling.top_p < 1:
        order = np.argsort(-probabilities)
        before = np.cumsum(probabilities[order]) - probabilities[order]
        dropped = order[before >= sampling.top_p]
        probabilities[dropped] = 0
        probabilities = _normal(probabilities)
    floor = sampling.min_p * probabilities.max()
    return _normal(np.where(probabilities >= floor, probabilities, 0))


def _normal(weights: Floats) -> Floats:
    total: Floats = weights / weights.sum()
    return total


def spread_logits(vocab: int, seed: int = 0) -> Floats:
    logits: Floats = np.random.default_rng(seed).normal(size=vocab) * 2
    return logits


def sampled(logits: Floats, sampling: Sampling, uniform: NDArray[np.float32], **more: Any) -> NDArray[np.int64]:
    """One draw for each of the uniform numbers."""
    rows = len(uniform)
    plan = SamplingPlan.of([sampling] * rows)
    repeated = mx.array(np.repeat(logits[None].astype(np.float32), rows, axis=0))
    drawn = sample(plan, repeated, mx.array(uniform[:, None]), **more)
    return np.array(drawn.tokens)[:, 0].astype(np.int64)


CASES = [
    Sampling(),
    Sampling(temperature=0.4),
    Sampling(temperature=2.5),
    Sampling(temperature=0.0),
    Sampling(top_k=1),
    Sampling(top_k=5, temperature=1.3),
    Sampling(top_k=100_000),
    Sampling(top_p=0.7),
    Sampling(top_p=0.05, temperature=1.8),
    Sampling(top_p=0.999999),
    Sampling(min_p=0.1, temperature=1.5),
    Sampling(min_p=1.0),
    Sampling(top_k=30, top_p=0.8, min_p=0.05, temperature=1.4),
    Sampling(logit_bias={3: 5.0, 7: -100.0}),
    Sampling(presence_penalty=1.5),
    Sampling(frequency_penalty=0.5, presence_penalty=-0.5, temperature=0.8),
    Sampling(repetition_penalty=1.5),
    Sampling(repetition_penalty=0.7, frequency_penalty=1.0, logit_bias={1: 2.0}, top_p=0.9),
    Sampling(temperature=0.0, repetition_penalty=3.0, presence_penalty=2.0),
]
ANSWER, PROMPT = [1, 1, 5, 30], [0, 1, 9, 9]


def penalties_of(rows: int, vocab: int) -> dict[str, mx.array]:
    counts = np.bincount(ANSWER, minlength=vocab).astype(np.float32)
    held = np.zeros(vocab, dtype=np.bool_)
    held[PROMPT] = True
    return {"counts": mx.array(np.repeat(counts[None], rows, 0)), "in_prompt": mx.array(np.repeat(held[None], rows, 0))}


@pytest.mark.parametrize("sampling", CASES, ids=str)
def test_evenly_spaced_uniforms_give_each_token_its_share(sampling: Sampling) -> None:
    """With one draw in the middle of each of N equal parts, a token's count is its probability times N, give or take
    the two parts at its ends.
    """
    vocab = 50
    logits = spread_logits(vocab)
    uniform = ((np.arange(ROWS) + 0.5) / ROWS).astype(np.float32)
    drawn = sampled(logits, sampling, uniform, **penalties_of(ROWS, vocab))
    counts = np.bincount(drawn, minlength=vocab)
    wanted = reference(logits, sampling, ANSWER, PROMPT)
    assert np.abs(counts - wanted * ROWS).max() <= 1.5
    assert counts[wanted == 0].sum() == 0


@pytest.mark.parametrize("vocab", [8192, 9001])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(min_p=0.02), Sampling(top_p=0.9)], ids=str)
def test_long_vocabularies_are_drawn_from_in_two_levels_alike(sampling: Sampling, vocab: int) -> None:
    rows = 500
    logits = spread_logits(vocab)
    uniform = ((np.arange(rows) + 0.5) / rows).astype(np.float32)
    drawn = sampled(logits, sampling, uniform)
    probabilities = reference(logits, sampling, [], [])
    assert (probabilities[drawn] > 0).all()
    ends = np.cumsum(probabilities)
    assert (ends[drawn] > uniform - 1e-5).all()
    assert (ends[drawn] - probabilities[drawn] < uniform + 1e-5).all()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_p=0.8, temperature=1.5), Sampling(min_p=0.02)], ids=str)
def test_chi_square_of_hashed_uniforms(sampling: Sampling) -> None:
    vocab, rows = 40, 8000
    logits = spread_logits(vocab, seed=3)
    uniform = np.array([uniforms([row_seed(11, 0)], [position], 1)[0, 0] for position in range(rows)])
    counts = np.bincount(sampled(logits, sampling, uniform), minlength=vocab)
    wanted = reference(logits, sampling, [], []) * rows
    common = wanted >= 5
    chi_square = (((counts - wanted) ** 2)[common] / wanted[common]).sum()
    freedom = int(common.sum()) - 1
    # Mean and variance of chi-square are its degrees of freedom and twice that; five deviations never by chance.
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def test_every_row_of_a_mixed_batch_follows_its_own_parameters() -> None:
    vocab = 60
    counts = penalties_of(len(CASES), vocab)
    logits = np.stack([spread_logits(vocab, seed=row) for row in range(len(CASES))])
    plan = SamplingPlan.of(CASES)
    for uniform in (0.0, 0.3, 0.77, 1 - 2**-24):
        column = mx.full((len(CASES), 1), uniform)
        drawn = np.array(sample(plan, mx.array(logits.astype(np.float32)), column, **counts).tokens)[:, 0]
        for row, sampling in enumerate(CASES):
            wanted = reference(logits[row], sampling, ANSWER, PROMPT)
            ends = np.cumsum(wanted)
            token = int(drawn[row])
            assert wanted[token] > 0
            assert ends[token] - wanted[token] - 1e-5 <= uniform <= ends[token] + 1e-5


def test_greedy_takes_the_first_of_equals_alone_and_in_a_mixed_batch() -> None:
    logits = mx.array([[0.5, 3.0, 3.0, 1.0]] * 2)
    plain = sample(SamplingPlan.of([Sampling(temperature=0.0)] * 2), logits, None)
    plan = SamplingPlan.of([Sampling(temperature=0.0), Sampling()])
    mixed = sample(plan, logits, mx.array((np.array([0.99, 0.99], dtype=np.float32) * plan.spread)[:, None]))
    assert plain.tokens.tolist() == [[1], [1]]
    assert mixed.tokens.tolist() == [[1], [3]]


def test_logprobs_are_the_raw_distribution_s_whatever_the_parameters() -> None:
    vocab = 30
    logits = np.stack([spread_logits(vocab, seed=row) for row in range(3)])
    samplings = [Sampling(), Sampling(top_logprobs=4, temperature=0.2, logit_bias={2: 9.0}), Sampling(top_logprobs=0)]
    plan = SamplingPlan.of(samplings)
    drawn: Sampled = sample(plan, mx.array(logits.astype(np.float32)), mx.full((3, 1), 0.5))
    assert plan.logprob_rows == [1, 2]
    assert drawn.logprobs is not None
    assert drawn.top_ids is not None
    assert drawn.top_logprobs is not None
    exact = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for at, row in enumerate(plan.logprob_rows):
        token = int(np.array(drawn.tokens)[row, 0])
        assert abs(float(np.array(drawn.logprobs)[at]) - exact[row, token]) < 1e-4
        best = np.sort(exact[row])[::-1][:4]
        assert np.allclose(np.sort(np.array(drawn.top_logprobs)[at])[::-1], best, atol=1e-4)


def test_masks_bound_the_choice() -> None:
    vocab = 70
    allowed = np.zeros(vocab, dtype=np.bool_)
    allowed[[4, 33, 69]] = True
    words = np.zeros((1, 3), dtype=np.uint32)
    for token in (4, 33, 69):
        words[0, token // 32] |= np.uint32(1 << (token % 32))
    mask = expand_bits(mx.array(words), vocab)
    assert np.array(mask)[0].tolist() == allowed.tolist()
    logits = spread_logits(vocab)
    rows = 300
    uniform = ((np.arange(rows) + 0.5) / rows).astype(np.float32)
    drawn = sampled(logits, Sampling(), uniform, allowed=mx.repeat(mask, rows, axis=0))
    wanted = reference(logits, Sampling(), [], [], allowed)
    assert np.abs(np.bincount(drawn, minlength=vocab) - wanted * rows).max() <= 1.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling()], ids=str)
def test_health_tells_rows_with_logits_that_are_not_numbers(bad: float, sampling: Sampling) -> None:
    logits = np.stack([spread_logits(20), np.full(20, bad)]).astype(np.float32)
    drawn = sample(SamplingPlan.of([sampling] * 2), mx.array(logits), mx.full((2, 1), 0.5))
    health = np.array(drawn.health)[:, 0]
    assert np.isfinite(health).tolist() == [True, False]


@pytest.mark.parametrize("vocab", [300, 8192, 10_007])
def test_tokens_of_weight_zero_are_never_drawn(vocab: int) -> None:
    rng = np.random.default_rng(5)
    weights = (rng.random((64, vocab)) * (rng.random((64, vocab)) < 0.01)).astype(np.float32)
    weights[:, 17] += 1e-6
    for uniform in (0.0, 1 - 2**-24, 0.5):
        tokens, _ = draw(mx.array(weights), mx.full((64, 1), uniform))
        assert (weights[np.arange(64), np.array(tokens)[:, 0]] > 0).all()


def test_what_nobody_uses_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SamplingPlan.of([Sampling(temperature=0.0, top_p=0.5)] * 3).greedy
    plan = SamplingPlan.of([Sampling(), Sampling(min_p=0.1)])
    assert plan.top is None
    assert plan.bias is None
    assert plan.penalties is None
    assert not plan.logprob_rows
    monkeypatch.setattr(mx, "sort", None)
    sample(plan, mx.zeros((2, 9)), mx.zeros((2, 1)))


def test_uniforms_depend_on_seed_and_position_only() -> None:
    block = uniforms([1, 2, 3], [0, 10, 5], 8)
    assert block.shape == (8, 3)
    assert ((block >= 0) & (block < 1)).all()
    assert np.array_equal(block[:, 1], uniforms([2], [10], 8)[:, 0])
    assert np.array_equal(block[3:, 2], uniforms([3], [8], 5)[:, 0])
    assert len({row_seed(1, 0), row_seed(1, 1), row_seed(2, 0), row_seed(-1, 0)}) == 4
    assert row_seed(None, 0) != row_seed(None, 0)


def test_uniforms_are_even() -> None:
    numbers = uniforms([row_seed(seed, 0) for seed in range(100)], [0] * 100, 1000).ravel()
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 99 + 5 * np.sqrt(2 * 99)
    neighbours = np.corrcoef(numbers[:-1], numbers[1:])[0, 1]
    assert abs(neighbours) < 0.02
