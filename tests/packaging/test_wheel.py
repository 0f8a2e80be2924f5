"""The wheel, installed by pip into an empty environment and run from ``/``, where no checkout can help it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.material import models_dir

pytestmark = pytest.mark.slow

LARGEST = 600 * 2**20
# Nothing here takes long; this ends what hangs.
GIVE_UP = 300
UNWANTED = ("torch", "torchvision", "gradio", "cv2", "triton", "tensorflow", "jax")


def run(command: list[str | Path], **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LMX_", "PYTHON", "DJANGO_"))}
    result = subprocess.run(
        command, cwd="/", env={**clean, **env}, capture_output=True, text=True, timeout=GIVE_UP, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, root])
    (built,) = folder.glob("opta_lmx-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its dependencies, then the engine by ``lmx setup``, as the documents say."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    run([sys.executable, "-m", "venv", folder])
    run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel])
    said = run([folder / "bin" / "lmx", "setup"]).stdout
    assert "vllm-mlx 0.6.0" in said
    return folder


def test_templates_and_static_files_are_inside(root: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    for folder in ("templates", "static"):
        files = [path for path in (root / folder).rglob("*") if path.is_file()]
        assert {f"lmx_site/assets/{path.relative_to(root)}" for path in files} <= names
    assert not [name for name in names if name.startswith(("tests/", "templates/", "static/")) or ".sqlite3" in name]


def test_small_and_without_what_it_does_not_use(environment: Path) -> None:
    size = sum(path.lstat().st_size for path in environment.rglob("*"))
    assert size < LARGEST
    (packages,) = environment.glob("lib/python3.*/site-packages")
    assert not [name for name in UNWANTED if (packages / name).exists()]


def test_version(environment: Path) -> None:
    said = run([environment / "bin" / "lmx", "version"]).stdout
    assert "opta-lmx 0." in said
    assert "vllm-mlx 0.6.0" in said


def test_setup_again_installs_nothing(environment: Path) -> None:
    said = run([environment / "bin" / "lmx", "setup"]).stdout
    assert said == "The engine is ready: vllm-mlx==0.6.0, mlx-embeddings==0.1.0\n"


@contextmanager
def server(environment: Path, home: Path) -> Iterator[tuple[str, subprocess.Popen[str], list[str]]]:
    """``lmx serve`` on a free port, from ``/``; ready when it has said where it listens. Its lines so far come last."""
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **pip}
    env |= {"LMX_HOME": str(home), "LMX_MODELS__DEMO": "false", "LMX_MODELS__EXTRA_DIRECTORIES": "[]"}
    command = [str(environment / "bin" / "lmx"), "serve", "--port", "0"]
    process = subprocess.Popen(
        command, cwd="/", env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    watchdog = threading.Timer(GIVE_UP, process.kill)
    watchdog.start()
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if "http://" in line:
                break
        else:
            pytest.fail(f"lmx serve ended: {''.join(said)}")
        yield json.loads((home / "run" / "server.json").read_text(encoding="utf-8"))["url"], process, said
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
        watchdog.cancel()


def fetch(url: str, body: object = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=GIVE_UP) as answer:
        content: bytes = answer.read()
    return content


def test_it_serves_from_anywhere(root: Path, environment: Path, tmp_path: Path) -> None:
    models_dir(tmp_path / "home" / "models", "nano")
    with server(environment, tmp_path / "home") as (url, process, _):
        assert json.loads(fetch(f"{url}/v1/models"))["object"] == "list"
        page = next(path for path in sorted((root / "static").rglob("*.css")))
        assert fetch(f"{url}/static/{page.relative_to(root / 'static')}") == page.read_bytes()
        assert b"<html" in fetch(f"{url}/")
        said = run([environment / "bin" / "lmx", "status", "--url", url]).stdout
        assert "no model is loaded" in said
        body = {"model": "nano", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
        answer = json.loads(fetch(f"{url}/v1/chat/completions", body))  # its worker too runs without a checkout
        assert answer["usage"]["completion_tokens"] == 5
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def test_the_first_serve_installs_the_engine_after_saying_so(environment: Path, tmp_path: Path) -> None:
    """Last in this file: what others need is taken away first."""
    run([environment / "bin" / "python", "-m", "pip", "uninstall", "--quiet", "--yes", "vllm-mlx"])
    assert "not installed" in run([environment / "bin" / "lmx", "version"]).stdout
    with server(environment, tmp_path / "home") as (url, _, said):
        assert said[0].startswith("Installing vllm-mlx 0.6.0")
        assert json.loads(fetch(f"{url}/v1/models"))["data"] == []
    assert "vllm-mlx 0.6.0" in run([environment / "bin" / "lmx", "version"]).stdout
