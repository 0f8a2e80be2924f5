"""What is not read twice: ``python -m tests.bench.prefixes``, on the tiny model, or any other with ``--model``.

Several agents share a long beginning and bring something new in every turn; then the server is started again; then a
long prompt is read beside running streams. Every figure that is judged is a ratio of two times of the same run.
Writes ``NAME.json`` and ``NAME.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.bench.__main__ import about
from tests.bench.load import body, one, quantile
from tests.bench.stacks import ROOT, Lmx
from tests.material import place, tiny_model

Figures = dict[str, Any]
STREAMS = 3
_WORDS = 40_000
_LIMIT_S = 600.0


class Asking:
    """Asks one server for one token after prompts of token ids. ``server`` has been started."""

    def __init__(self, server: Lmx) -> None:
        self.server = server
        self.url = f"http://127.0.0.1:{server.port}"

    def ask(self, prompt: list[int]) -> tuple[float, int]:
        """Seconds to the one token, and how many tokens of the prompt were not read for it."""
        began = time.perf_counter()
        asked = {"model": self.server.model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "ignore_eos": True}
        answer = httpx.post(f"{self.url}/v1/completions", json=asked, timeout=_LIMIT_S).raise_for_status().json()
        seconds = time.perf_counter() - began
        return seconds, answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    def load(self) -> None:
        self._admin("load")

    def unload(self) -> None:
        self._admin("unload")

    def _admin(self, what: str) -> None:
        asked = {"model_id": self.server.model}
        httpx.post(f"{self.url}/admin/model/{what}", json=asked, timeout=_LIMIT_S).raise_for_status()


def tokens(count: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(300, _WORDS), k=count)


def bare(model: Path, context: int, new: int) -> float:
    """Seconds that a bare loop needs for ``new`` tokens behind ``context`` others, and one token more."""
    command = [sys.executable, "-m", "tests.bench.prefixes", "--bare", str(model), str(context), str(new)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=_LIMIT_S)
    return float(done.stdout.split()[-1])


def bare_loop(model_dir: Path, context: int, new: int) -> float:
    import mlx.core as mx  # the benchmark's own process holds no device memory
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(model_dir)
    cache = make_prompt_cache(model)
    seconds = 0.0
    for number, length in enumerate((context, new, new, new)):
        prompt = mx.array(tokens(length, number))[None]
        began = time.perf_counter()
        for at in range(0, length, 2048):
            logits = model(prompt[:, at : at + 2048], cache=cache)
            mx.eval(mx.argmax(logits[:, -1], axis=-1), [one.state for one in cache])
        seconds = time.perf_counter() - began
    return seconds


def agents(asking: Asking, count: int, shared: int, new: int) -> Figures:
    """Agents that begin at once, and the second turn of each by itself."""
    beginning = tokens(shared, 1)
    first = [beginning + tokens(new, 10 + agent) for agent in range(count)]
    warm, _ = asking.ask(tokens(shared + new, 2))
    cold = min(warm, asking.ask(tokens(shared + new, 3))[0])
    began = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        found = sorted(cached for _, cached in pool.map(asking.ask, first))
    together = time.perf_counter() - began
    turns = [asking.ask(prompt + tokens(new, 100 + agent)) for agent, prompt in enumerate(first)]
    return {
        "cold s": cold,
        "agents at once s": together,
        "agents at once ÷ one by one without a cache": together / (count * cold),
        "share of the shared part found, first turn": sum(found[1:]) / ((count - 1) * shared),
        "share of the prompt before found, second turn": sum(one for _, one in turns) / (count * (shared + new)),
        "second turn s": statistics.median(seconds for seconds, _ in turns),
    }


def again(server: Lmx, prompt: list[int], cold: float) -> Figures:
    """The same prompt after the server was started anew; ``server`` is not running.

    Another prompt comes first: what a fresh process does once (kernels are loaded) is no matter of prompts.
    """
    with server:
        asking = Asking(server)
        asking.load()
        asking.ask(tokens(len(prompt) // 2, 7))
        seconds, cached = asking.ask(prompt)
        return {"after a restart s": seconds, "after a restart ÷ cold": seconds / cold, "found after a restart": cached}


def beside(asking: Asking, length: int, answer: int) -> Figures:
    """A long prompt beside streams: what it costs them, and what they cost it."""

    async def streams(prompt: list[int] | None) -> tuple[float, float]:
        seeds = range(random.randrange(1 << 20), 1 << 30)
        port, model = asking.server.port, asking.server.model
        running = [asyncio.create_task(one("127.0.0.1", port, body(model, answer, seeds[n]))) for n in range(STREAMS)]
        await asyncio.sleep(1.0)
        seconds = (await asyncio.to_thread(asking.ask, prompt))[0] if prompt else 0.0
        still = sum(not task.done() for task in running)
        if prompt and still < STREAMS:
            raise RuntimeError(f"only {still} of {STREAMS} streams were running to the end: ask for longer answers")
        seen = await asyncio.gather(*running)
        return quantile([gap for stream in seen for gap in stream.gaps], 0.99), seconds

    asyncio.run(streams(None))
    alone, _ = asking.ask(tokens(length, 5))
    quiet, _ = asyncio.run(streams(None))
    disturbed, seconds = asyncio.run(streams(tokens(length, 6)))
    return {
        f"prompt of {length} alone s": alone,
        "the same beside 3 streams s": seconds,
        "prefill speed beside ÷ alone": alone / seconds,
        "gap p99 without s": quiet,
        "gap p99 with s": disturbed,
        "gap p99 with ÷ without": disturbed / quiet,
    }


def measured(options: argparse.Namespace, model: Path, scratch: Path) -> Iterator[Figures]:
    server = Lmx(model, scratch)
    shared, new = options.shared, options.new
    with server:
        asking = Asking(server)
        found = agents(asking, options.agents, shared, new)
        if options.beside:
            yield beside(asking, options.beside, options.answer)
        prompt = tokens(shared, 1) + tokens(new, 10) + tokens(new, 100)
        cold, _ = asking.ask(tokens(len(prompt), 4))
        asking.ask(prompt)
        asking.unload()
    behind, alone = bare(model, shared + new, new), bare(model, 0, new)
    turn = found["second turn s"]
    yield found | {
        "second turn ÷ a bare loop behind the same context": turn / behind,
        "second turn ÷ a bare loop of the new alone": turn / alone,
    }
    yield again(server, prompt, cold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--name", default="cpu-prefixes")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    for name, default in (("agents", 6), ("shared", 6000), ("new", 500), ("beside", 0), ("answer", 2000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bare", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(bare_loop(Path(options.bare[0]), int(options.bare[1]), int(options.bare[2])))
        return
    described = about() | {"agents": str(options.agents), "shared": str(options.shared), "new": str(options.new)}
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or long_model(Path(scratch))
        for found in measured(options, model, Path(scratch)):
            figures |= found
            write(options.out, options.name, described, figures)
            print(json.dumps(found), file=sys.stderr, flush=True)


def long_model(scratch: Path) -> Path:
    """The tiny model with room for longer prompts than it was made for."""
    directory = place(tiny_model(), scratch / "tiny-long")
    config = json.loads((directory / "config.json").read_text()) | {"max_position_embeddings": 65536}
    (directory / "config.json").unlink()  # a link to the file that others use
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def write(directory: Path, name: str, described: dict[str, str], figures: Figures) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps({"about": described, "figures": figures}, indent=1) + "\n")
    head = " · ".join(f"{key}: {value}" for key, value in described.items())
    rows = [f"| {what} | {value:,.3f} |" for what, value in figures.items()]
    text = "\n".join([f"# Benchmark `{name}`\n", f"{head}\n", "| | |", "|---|--:|", *rows])
    (directory / f"{name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
