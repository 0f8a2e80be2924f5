"""``make bench``: this machine's CPU, tiny and nano models, 1 to 64 streams; writes docs/benchmarks/cpu.*."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version
from pathlib import Path

from tests.bench import report
from tests.bench.measure import Plan, measure
from tests.bench.stacks import ROOT
from tests.material import nano_model, tiny_model

TOKENS = {"tiny": 128, "nano": 256}


def about() -> dict[str, str]:
    versions = {name: version(name) for name in ("mlx", "mlx-lm", "vllm-mlx")}
    return {"machine": f"{platform.system()} {platform.machine()}", "python": platform.python_version(), **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    parser.add_argument("--models", nargs="+", default=["tiny", "nano"], choices=["tiny", "nano"])
    options = parser.parse_args()
    makers = {"tiny": tiny_model, "nano": nano_model}
    run = {
        "about": about(),
        "models": {name: measure(Plan(makers[name](), TOKENS[name], options.streams)) for name in options.models},
    }
    report.write("cpu", run, options.out)
    print(f"written: {options.out}/cpu.json, cpu.md, cpu.svg")


if __name__ == "__main__":
    main()
