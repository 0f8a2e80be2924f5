"""The yardstick: a bare MLX loop that decodes N streams at once, with temperature and min_p per row.

One forward pass per step over the whole batch, all rows sampled in one array operation, the next step queued before
the last one is read. No server, no text, no joining or leaving: nothing that serves requests can be faster.
Run as ``python -m tests.bench.raw MODEL_DIR TOKENS WARM_TOKENS ROUNDS STREAMS...``; prints a JSON line per count.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from tests.bench.load import PROMPT_TOKENS, SETTINGS


def sample(logits: mx.array, temperature: mx.array, min_p: mx.array) -> mx.array:
    """One token per row; ``logits`` [rows, vocab], ``temperature`` and ``min_p`` [rows, 1]."""
    scaled = logits.astype(mx.float32) / temperature
    floor = mx.max(scaled, axis=-1, keepdims=True) + mx.log(min_p)
    return mx.random.categorical(mx.where(scaled < floor, -mx.inf, scaled))


def decode(model: object, vocab: int, rows: int, tokens: int) -> float:
    """Seconds from the prompt to the last of ``tokens`` tokens on each of ``rows`` rows."""
    prompt = mx.random.randint(10, min(vocab, 49_000), (rows, PROMPT_TOKENS))
    temperature = mx.full((rows, 1), SETTINGS["temperature"])
    min_p = mx.full((rows, 1), SETTINGS["min_p"])
    mx.eval(prompt, temperature, min_p)
    began = time.perf_counter()
    cache = make_prompt_cache(model)
    token = sample(model(prompt, cache=cache)[:, -1], temperature, min_p)  # type: ignore[operator]
    mx.async_eval(token)
    for _ in range(tokens - 1):
        following = sample(model(token[:, None], cache=cache)[:, -1], temperature, min_p)  # type: ignore[operator]
        mx.async_eval(following)
        token.tolist()
        token = following
    token.tolist()
    return time.perf_counter() - began


def main(arguments: list[str]) -> None:
    """Run each stream count once unmeasured and print the median of the passes that follow."""
    directory, tokens, warm, rounds, *counts = arguments
    model, config = load_model(Path(directory))
    for rows in map(int, counts):
        decode(model, config["vocab_size"], rows, int(warm))
        passes = [decode(model, config["vocab_size"], rows, int(tokens)) for _ in range(int(rounds))]
        seconds = sorted(passes)[len(passes) // 2]
        print(
            json.dumps(
                {"streams": rows, "tokens": rows * int(tokens), "tokens_per_second": rows * int(tokens) / seconds}
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
