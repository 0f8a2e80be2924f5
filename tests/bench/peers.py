"""The other servers' environments: ``python -m tests.bench.peers`` makes them under .venvs/ once."""

from __future__ import annotations

import subprocess
import venv
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VLLM_MLX = "vllm-mlx==0.6.0"


def ensure(name: str, requirements: Path, without_deps: list[str]) -> Path:
    """The environment's Python; installs only when the requirements changed since the last complete installation."""
    home = ROOT / ".venvs" / name
    stamp = home / "stamp"
    wanted = sha256(requirements.read_bytes() + " ".join(without_deps).encode()).hexdigest()
    python = home / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {name} ...", flush=True)
    venv.create(home, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(requirements)], check=True)
    if without_deps:
        subprocess.run([*pip, "--no-deps", *without_deps], check=True)
    stamp.write_text(wanted)
    return python


def ensure_all() -> None:
    ensure("bench-vllm", ROOT / "requirements" / "bench-vllm.txt", [VLLM_MLX])
    ensure("bench-mlx-lm", ROOT / "requirements" / "bench-mlx-lm.txt", [])


if __name__ == "__main__":
    ensure_all()
