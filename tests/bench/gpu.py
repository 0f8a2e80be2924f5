"""``make bench-gpu``: the stacks on a GPU (MLX on CUDA, or Metal) with a random 1.2B 4-bit Llama.

Writes docs/benchmarks/gpu.*. The first step at each new batch shape compiles kernels on CUDA, so every stream count is
run once in full before it is measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import report
from tests.bench.__main__ import about
from tests.bench.measure import STACKS, Plan, Row, measure
from tests.bench.stacks import ROOT


def device() -> str:
    """The accelerator's name as MLX tells it; asked in a child so that this process holds no device memory."""
    program = "import mlx.core as mx; print(mx.default_device(), mx.device_info().get('device_name', ''))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--warm-tokens", type=int, default=512)
    parser.add_argument("--stacks", nargs="+", default=list(STACKS), choices=STACKS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds a stack may take")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--model", type=Path, default=Path(tempfile.gettempdir()) / "lmx-bench-1.2b-4bit")
    options = parser.parse_args()
    on = device()
    if "gpu" not in on:
        sys.exit(f"No GPU for MLX here ({on}): make bench-gpu needs Metal or CUDA; make bench measures the CPU.")
    subprocess.run([sys.executable, "-m", "tests.bench.big_model", str(options.model)], cwd=ROOT, check=True)
    plan = Plan(options.model, options.tokens, options.streams, options.warm_tokens, options.limit, options.rounds)
    described = about() | {"device": on, "tokens per stream": str(options.tokens), "median of": str(options.rounds)}

    def save(rows: list[Row]) -> None:
        report.write("gpu", {"about": described, "models": {"llama-1.2b-4bit": rows}}, options.out)

    measure(plan, tuple(options.stacks), seen=save)


if __name__ == "__main__":
    main()
