"""The engine without HTTP: a real worker process behind the real engine, read in this process.

Run as ``python -m tests.bench.engine_alone MODEL_DIR TOKENS WARM_TOKENS ROUNDS STREAMS...``; prints a JSON line per
stream count. The difference to the whole server is what HTTP, the wire protocol, Django and daphne cost.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from inference import ipc
from inference.catalog import ModelRef
from inference.engine.engine import WorkerEngine
from inference.engine.settings import EngineSettings
from inference.errors import ModelNotFound
from inference.principal import Principal
from inference.records import RequestRecord
from monitoring.readings import open_reader
from tests.bench.load import SETTINGS, TTFT_ROUNDS, body, figures, median, quantile

OWNER = Principal("owner", "bench", frozenset({"inference", "admin"}))


class OneModel:
    """A catalog of one directory."""

    def __init__(self, path: Path) -> None:
        size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
        context = json.loads((path / "config.json").read_text())["max_position_embeddings"]
        self._ref = ModelRef(id=path.name, path=path, weight_bytes=size, context_length=context)

    def all(self) -> list[ModelRef]:
        return [self._ref]

    async def recheck(self, ref: ModelRef) -> ModelRef:
        return ref

    def resolve(self, name: str) -> ModelRef:
        if name != self._ref.id:
            raise ModelNotFound(f"no model {name}")
        return self._ref


class Nowhere:
    """A sink for records and events nobody reads here."""

    def put(self, record: RequestRecord) -> None:
        pass

    def emit(self, kind: str, /, **fields: Any) -> None:
        pass


async def one(engine: WorkerEngine, model: str, tokens: int, seed: int) -> tuple[int, float, list[float]]:
    """Tokens, seconds to the first one and the gaps of one generation."""
    messages = body(model, tokens, seed)["messages"]
    sampling = ipc.Sampling(temperature=SETTINGS["temperature"], min_p=SETTINGS["min_p"])
    request = ipc.GenerateRequest(messages=messages, max_tokens=tokens, sampling=sampling)
    record = RequestRecord(uuid.uuid4().hex, "bench", "bench", OWNER, model)
    began = last = time.perf_counter()
    ttft, count, gaps = 0.0, 0, []
    async with await engine.generate(model, request, record) as generation:
        async for events in generation:
            now = time.perf_counter()
            for event in events:
                if isinstance(event, ipc.Delta):
                    count += len(event.token_ids)
            if count:
                if ttft:
                    gaps.append(now - last)
                else:
                    ttft = now - began
                last = now
    return count, ttft, gaps


async def measure(engine: WorkerEngine, model: str, tokens: int, streams: int) -> dict[str, Any]:
    base = random.randrange(1 << 30)
    began = time.perf_counter()
    seen = await asyncio.gather(*(one(engine, model, tokens, base + index) for index in range(streams)))
    seconds = time.perf_counter() - began
    row = figures(streams, sum(count for count, _, _ in seen), seconds, [(ttft, gaps) for _, ttft, gaps in seen])
    if streams == 1:
        first = [(await one(engine, model, 4, base + index))[1] for index in range(1, TTFT_ROUNDS)]
        row |= {"ttft_p50": quantile(first, 0.50), "ttft_p99": quantile(first, 0.99)}
    return row


async def run(path: Path, tokens: int, warm: int, rounds: int, counts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as home:
        settings = EngineSettings(run_dir=Path(home), load_timeout_s=900)
        engine = WorkerEngine(settings, OneModel(path), open_reader(), Nowhere(), Nowhere())
        await engine.start()
        try:
            for streams in counts:
                await measure(engine, path.name, warm, streams)
                passes = [await measure(engine, path.name, tokens, streams) for _ in range(rounds)]
                print(json.dumps(median(passes)), flush=True)
        finally:
            await engine.stop(5)


def main(arguments: list[str]) -> None:
    path, tokens, warm, rounds, *counts = arguments
    asyncio.run(run(Path(path), int(tokens), int(warm), int(rounds), [int(count) for count in counts]))


if __name__ == "__main__":
    main(sys.argv[1:])
