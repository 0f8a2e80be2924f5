"""One run: every stack on one model at every stream count, side by side on the same machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load import median
from tests.bench.stacks import ROOT, SERVERS, Stack

Row = dict[str, Any]
PROGRAMS = {"raw loop": "tests.bench.raw", "engine alone": "tests.bench.engine_alone"}
STACKS = (*PROGRAMS, *(kind.name for kind in SERVERS))


@dataclass(frozen=True)
class Plan:
    """``tokens`` per stream at each of ``counts`` streams, after an unmeasured pass of ``warm_tokens``.

    Of ``rounds`` measured passes the one with the median speed counts: where one stream is bound by the host, single
    passes of one and the same program differ by a fifth. ``limit_s`` ends a stack after that many seconds; the counts
    it has done by then stand.
    """

    model_dir: Path
    tokens: int
    counts: list[int]
    warm_tokens: int = 32
    limit_s: float = 900.0
    rounds: int = 1


def measure(plan: Plan, stacks: tuple[str, ...] = STACKS, seen: Callable[[list[Row]], None] | None = None) -> list[Row]:
    """Rows of figures, one per stack and stream count; ``seen`` gets all rows so far after each stack.

    A stack that fails keeps its rows and gets one more with its ``problem``.
    """
    rows: list[Row] = []
    for name in stacks:
        print(f"  {name} ...", file=sys.stderr, flush=True)
        try:
            for row in _rows_of(name, plan):
                rows.append(row | {"stack": name})
                speed = f"{row['tokens_per_second']:9.1f} tok/s"
                print(f"    {row['streams']:3d} streams {speed}", file=sys.stderr, flush=True)
        except Exception as error:  # one stack's failure must not lose the others' figures
            print(f"    failed: {error}", file=sys.stderr, flush=True)
            rows.append({"stack": name, "problem": str(error)[-600:] or repr(error)})
        if seen:
            seen(rows)
    return rows


def _rows_of(name: str, plan: Plan) -> Iterator[Row]:
    if name in PROGRAMS:
        yield from _program(PROGRAMS[name], plan)
        return
    kind = next(kind for kind in SERVERS if kind.name == name)
    with tempfile.TemporaryDirectory() as scratch:
        yield from _server(kind(plan.model_dir, Path(scratch)), plan)


def _program(module: str, plan: Plan) -> Iterator[Row]:
    """Rows that a measuring program prints, as it prints them."""
    numbers = map(str, (plan.tokens, plan.warm_tokens, plan.rounds, *plan.counts))
    command = [sys.executable, "-m", module, str(plan.model_dir), *numbers]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=plan.limit_s, check=False)
        output, problem = done.stdout, done.stderr[-1000:] if done.returncode not in (0, -6) else ""
    except subprocess.TimeoutExpired as late:
        output, problem = (late.stdout or b"").decode(), f"stopped after {plan.limit_s:.0f} s"
    yield from (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    if problem:
        raise RuntimeError(problem)


def load(stack: Stack, tokens: int, streams: int, limit_s: float = 600.0) -> Row:
    """One load from a process of its own."""
    target = ["127.0.0.1", str(stack.port), stack.model]
    command = [sys.executable, "-m", "tests.bench.load", *target, str(tokens), str(streams)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    row: Row = json.loads(done.stdout)
    return row


def _server(stack: Stack, plan: Plan) -> Iterator[Row]:
    ends = time.monotonic() + plan.limit_s

    def timed(tokens: int, streams: int) -> Row:
        left = ends - time.monotonic()
        if left < 1:
            raise RuntimeError(f"stopped after {plan.limit_s:.0f} s")
        return load(stack, tokens, streams, left)

    with stack:
        idle = stack.memory_bytes()
        timed(8, 1)
        for streams in plan.counts:
            timed(plan.warm_tokens, streams)
            before = stack.cpu_seconds()
            passes = [timed(plan.tokens, streams) for _ in range(plan.rounds)]
            after = stack.cpu_seconds()
            tokens = max(sum(row["tokens"] for row in passes), 1)
            row = median(passes)
            row |= {"cpu_us_per_token": {part: (after[part] - before[part]) / tokens * 1e6 for part in after}}
            row |= {"start_s": stack.start_s}
            row |= {"memory_idle": idle, "memory_loaded": stack.memory_bytes()}
            yield row
