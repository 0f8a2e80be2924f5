"""One run: every stack on one model at every stream count, side by side on the same machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.bench.stacks import ROOT, SERVERS, Stack

Row = dict[str, Any]


def measure_model(
    model_dir: Path, tokens: int, counts: list[int], *, servers: Iterable[type[Stack]] = SERVERS, warm_tokens: int = 32
) -> list[Row]:
    """Rows of figures, one per stack and stream count. A stack that fails gives a row with its ``problem``.

    Each stream count is first run with ``warm_tokens`` tokens a stream, unmeasured.
    """
    rows: list[Row] = []
    for name, module in (("raw loop", "tests.bench.raw"), ("engine alone", "tests.bench.engine_alone")):
        rows += _guarded(name, lambda module=module: _program(module, model_dir, tokens, warm_tokens, counts))
    with tempfile.TemporaryDirectory() as scratch:
        for kind in servers:
            rows += _guarded(
                kind.name, lambda kind=kind: _server(kind(model_dir, Path(scratch)), tokens, warm_tokens, counts)
            )
    return rows


def _guarded(name: str, work: Any) -> list[Row]:
    print(f"  {name} ...", file=sys.stderr, flush=True)
    try:
        rows: list[Row] = work()
    except Exception as error:  # one stack's failure must not lose the others' figures
        print(f"    failed: {error}", file=sys.stderr, flush=True)
        return [{"stack": name, "problem": str(error)[-600:]}]
    for row in rows:
        row["stack"] = name
        print(f"    {row['streams']:3d} streams {row['tokens_per_second']:9.1f} tok/s", file=sys.stderr, flush=True)
    return rows


def _program(module: str, model_dir: Path, tokens: int, warm: int, counts: list[int]) -> list[Row]:
    command = [sys.executable, "-m", module, str(model_dir), str(tokens), str(warm), *map(str, counts)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode not in (0, -6):
        raise RuntimeError(done.stderr[-1000:])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def load(stack: Stack, tokens: int, streams: int) -> Row:
    """One load from a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.bench.load",
        "127.0.0.1",
        str(stack.port),
        stack.model,
        str(tokens),
        str(streams),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    row: Row = json.loads(done.stdout)
    return row


def _server(stack: Stack, tokens: int, warm: int, counts: list[int]) -> list[Row]:
    rows: list[Row] = []
    with stack:
        idle = stack.memory_bytes()
        load(stack, 8, 1)
        for streams in counts:
            load(stack, warm, streams)
            before = stack.cpu_seconds()
            row = load(stack, tokens, streams)
            after = stack.cpu_seconds()
            row["cpu_us_per_token"] = {
                part: (after[part] - before[part]) / max(row["tokens"], 1) * 1e6 for part in after
            }
            row |= {"start_s": stack.start_s, "memory_idle": idle, "memory_loaded": stack.memory_bytes()}
            rows.append(row)
    return rows
